"""The work of the tasks with a tier: choose it, check, start, fill, prove, describe, stop. The same on every tier."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from infra import catalog, database, health, logins, probes, stack
from infra.context import Context
from infra.endpoints import Endpoints
from infra.errors import PlatformError, nearest
from infra.probes import Finding
from infra.settings import Settings
from infra.sqlstate import TOO_MANY_CONNECTIONS, of_text
from infra.stack import Stack
from infra.tiers.base import Availability, Check, ServiceStatus, Tier
from infra.waiting import login_steps

PATIENCE = 20.0
"""Seconds for an answer that did not come in the usual time."""


@dataclass(frozen=True)
class Choice:
    """A tier and why it was taken; `named` when the user asked for it."""

    tier: Tier
    reason: str
    named: bool


def tiers(context: Context) -> Mapping[str, Tier]:
    """Return all tiers of this version, best first."""
    return {name: made(context) for name, made in TIERS.items()}


def tier_of(name: str, context: Context) -> Tier:
    """Return one tier; what the others are made of is not imported.

    Raises:
        PlatformError: USAGE for a name that this version does not have.
    """
    if name not in TIERS:
        raise PlatformError("USAGE", f"there is no tier {name!r}", steps=(f"use one of {', '.join(TIERS)}",))
    return TIERS[name](context)


def _compose(context: Context) -> Tier:
    from infra.tiers.compose.tier import Compose

    return Compose(context)


def _native(context: Context) -> Tier:
    from infra.tiers.native.tier import Native

    return Native(context)


def _kind(context: Context) -> Tier:
    from infra.tiers.kind.tier import Kind

    return Kind(context)


TIERS: Mapping[str, Callable[[Context], Tier]] = {"compose": _compose, "native": _native, "kind": _kind}
"""Every tier, best first; each is imported when it is used, since commands start faster without the others."""


def choose(context: Context, known: Mapping[str, Tier] | None = None) -> Choice:
    """Decide on a tier: flag or PLATFORM_TIER, else the one that runs, else the last one used, else the best.

    Raises:
        PlatformError: TIER_UNAVAILABLE when the named tier, or every tier, cannot run here.
    """
    settings = context.settings
    asked = settings.text("PLATFORM_TIER")
    if known is None:
        known = {asked: tier_of(asked, context)} if asked else tiers(context)
    if asked:
        return Choice(_usable(known[asked]), f"set by {settings.origin('PLATFORM_TIER')}", named=True)
    last = known.get(stack.remembered(context.stack, "tier"))
    for tier in sorted(known.values(), key=lambda t: t is not last):  # the others' engines are asked only if need be
        if tier.running():
            return Choice(tier, "it runs", named=False)
    if last is not None and last.available().ok:
        return Choice(last, "it was used last", named=False)
    return _best(known)


def _usable(tier: Tier) -> Tier:
    found = tier.available()
    if not found.ok:
        raise PlatformError(
            found.code,
            f"the {tier.name} tier cannot run on this machine",
            why=found.reason,
            steps=(*found.steps, "or omit --tier to choose automatically"),
        )
    return tier


def _best(known: Mapping[str, Tier]) -> Choice:
    refused: list[str] = []
    steps: list[str] = []
    for tier in known.values():
        found: Availability = tier.available()
        if found.ok and found.prefer:
            because = f"{found.reason}; {'; '.join(refused)}" if refused else found.reason
            return Choice(tier, because, named=False)
        refused.append(f"{tier.name}: {found.reason}")
        steps += found.steps
    for tier in known.values():
        if (found := tier.available()).ok:
            return Choice(tier, found.reason, named=False)
    raise PlatformError(
        "TIER_UNAVAILABLE", "no tier can run on this machine", why="; ".join(refused), steps=tuple(steps)
    )


@dataclass(frozen=True)
class Started:
    """The outcome of `up`: seconds it took and whether anything had to be started."""

    tier: Tier
    endpoints: Endpoints
    seconds: float
    changed: bool


def up(
    choice: Choice, obs: bool | None, timeout: float | None, only: Sequence[str] = (), rotate: Sequence[str] = ()
) -> Started:
    """Bring the platform up and prove that it works; a second call changes nothing.

    Args:
        obs: also the observability services that the tier has; None: those that ran before; False: none, and those
            that run are stopped and forgotten.
        timeout: seconds for each wait; None leaves it to the services' budgets.
        only: start just these services and what they need.
        rotate: settings of a private stack that get another random value.

    Raises:
        PlatformError: LOCKED, PREFLIGHT_FAILED, PORT_TAKEN, WAIT_TIMEOUT, SERVICE_FAILED and what tiers raise.
    """
    began = time.monotonic()
    tier, context = choice.tier, choice.tier.context
    with stack.lock(context.stack, "up"):
        before = _processes(tier)
        if obs is False:
            stop_observability(tier)
        names = selected(tier, obs, only)
        coming = logins.change(context.settings, context.stack, tier.name, rotate)
        if coming:
            tier = _with_logins(tier, coming, names, timeout)
            context = tier.context
        else:
            raise_on_failures(tier.preflight(names))
        _save_what_mlflow_may_change(tier, names, timeout)
        tier.start(names, timeout)
        if obs is False and set(names) & set(catalog.OBSERVABILITY):
            stop_observability(tier)  # a stopped cluster starts with all that it had
        ends = tier.endpoints()
        for made in heal(ends, psql(context.settings)):
            context.console.say(f"  created the missing {made}")
        stack.remember(context.stack, tier=tier.name)
        if "mlflow" in ends.services:
            stack.remember(context.stack, mlflow=tier.mlflow_tables)
        stack.remember_overlay(context.stack, {*stack.remembered_overlay(context.stack), *ends.services})
        _give_grafana_its_password(tier, ends)
        if coming:
            logins.finish(context.stack, coming, tier.name)
            _renew_clients(context.stack, ends)
        changed = before != _processes(tier)
        if changed:
            _resume_trainings(tier, ends)
    return Started(tier, ends, time.monotonic() - began, changed)


def _save_what_mlflow_may_change(tier: Tier, names: Sequence[str], timeout: float | None) -> None:
    """Back MLflow's tables up before a version starts that is not the one that ran last; nothing without data."""
    home = tier.context.stack
    before = stack.remembered(home, "tier")
    if before and "mlflow" in names and stack.remembered(home, "mlflow") != tier.mlflow_tables:
        from infra import mlflow_tables

        tier.start([n for n in names if n != "mlflow"], timeout)
        mlflow_tables.back_up(tier)


def _with_logins(tier: Tier, coming: logins.Change, names: Sequence[str], timeout: float | None) -> Tier:
    """Return the tier for the logins that are coming.

    PostgreSQL, which keeps its password with its data, gets it here; the others get theirs when they start.
    """
    from infra.data.postgres import password

    after = tier.with_context(replace(tier.context, settings=coming.settings))
    after.context.console.secrets += tuple((coming.logins.next or {}).values())
    raise_on_failures(after.preflight(names))
    logins.begin(tier.context.stack, coming)
    if tier.removals(("postgres",)):
        try:
            tier.start(tier.selection(False, ("postgres",)), timeout)
        except PlatformError as error:
            if error.code != "LOGIN_REFUSED":  # it may know another one since a run that was cut off
                raise
        known = coming.logins.candidates("POSTGRES_PASSWORD")
        password.change(after.endpoints(), known, coming.settings.text("POSTGRES_PASSWORD"))
    return after


def _give_grafana_its_password(tier: Tier, ends: Endpoints) -> None:
    """Give Grafana the password of a stack that is, or was, private: it may have been away when that changed."""
    from infra import grafana

    home = tier.context.stack
    if "grafana" in ends.services and logins.file(home).exists():
        known = logins.read(home).candidates("GRAFANA_ADMIN_PASSWORD")
        grafana.give_password(ends, [*known, catalog.GRAFANA_ON_KIND])


def _renew_clients(home: Stack, ends: Endpoints) -> None:
    """Restart the training worker and the application with other logins, where they run; trainings go on."""
    from infra.app import service as app
    from infra.endpoints import contract
    from infra.supervision import client as supervise
    from infra.training import service as training

    for place in (training.home(home), app.home(home)):
        supervise.renew(place, contract(ends), catalog.CONTRACT_NAMES)


def selected(tier: Tier, obs: bool | None, only: Sequence[str] = ()) -> tuple[str, ...]:
    """Return what `up` must run: what is asked for, and without a word about it what ran before and can run now."""
    if only or obs is not None:
        return tier.selection(obs is True, only)
    again = set(stack.remembered_overlay(tier.context.stack))
    core = tier.selection(False, ())
    return tuple(n for n in tier.selection(True, ()) if n in again or n in core) if again else core


def stop_observability(tier: Tier) -> tuple[str, ...]:
    """Stop the observability services, keep their data, and do not bring them back; returns those that ran."""
    running = tier.endpoints().services if tier.running() else ()
    gone = tier.stop_services(catalog.OBSERVABILITY) if set(running) & set(catalog.OBSERVABILITY) else ()
    stack.remember_overlay(tier.context.stack, ())
    return gone


def _resume_trainings(tier: Tier, ends: Endpoints) -> None:
    """Resume trainings that the last stop interrupted; asked only where there were trainings."""
    from infra.endpoints import contract
    from infra.training import runners, service

    context = tier.context
    if service.home(context.stack).exists() and {"postgres", "temporal"} <= set(ends.services):
        jobs = runners.environment(context.settings, tier.jobs_kubeconfig)
        waiting = service.resume_unfinished(context.stack, contract(ends), jobs)
        if waiting:
            context.console.say(f"  {waiting} interrupted training{'s continue' if waiting > 1 else ' continues'}")


def _processes(tier: Tier) -> set[tuple[str, int | None]]:
    return tier.processes() if tier.running() else set()


def raise_on_failures(checks: Sequence[Check]) -> None:
    """Stop before anything is started when a check failed, naming all that failed.

    Raises:
        PlatformError: the code of the first failed check.
    """
    failed = [c for c in checks if c.status == "fail"]
    if not failed:
        return
    remedies = tuple(dict.fromkeys(c.remedy for c in failed if c.remedy))
    several = [c.text for c in failed] if len(failed) > 1 else []
    raise PlatformError(
        failed[0].code or "PREFLIGHT_FAILED",
        f"nothing was started: {f'{len(failed)} checks failed' if several else failed[0].text}",
        steps=(*remedies, "invoke doctor"),
        details={"checks": [vars(c) for c in failed], "problems": several},
    )


def heal(endpoints: Endpoints, client: Path) -> list[str]:
    """Ask every functional question; make the databases and buckets that are missing, and ask those again.

    Returns what had to be made.

    Raises:
        PlatformError: SERVICE_FAILED or LOGIN_REFUSED, naming what does not work although its process runs.
    """
    from infra.provision import ensure

    questions = health.thorough(endpoints, client)
    bad = _unanswered(questions)
    made: list[str] = []
    if bad and not set(bad) & set(endpoints.services):
        made = ensure.everything(endpoints)
        bad = _unanswered({name: questions[name] for name in bad})
    if bad:
        name, finding = next(iter(bad.items()))
        if of_text(finding.detail) == TOO_MANY_CONNECTIONS:
            raise database.full(endpoints.database_url("postgres"), f"{name} could not be asked", finding.detail)
        refused = finding.fatal and name in endpoints.services
        raise PlatformError(
            "LOGIN_REFUSED" if refused else "SERVICE_FAILED",
            f"{name} runs, but refuses the login" if refused else f"started, but {name} does not work",
            why=finding.detail,
            steps=(*(login_steps(name) if refused else ()), "invoke status", "invoke doctor"),
            details={"failed": {n: f.detail for n, f in bad.items()}},
        )
    return made


def _unanswered(questions: dict[str, dict[str, Any]]) -> dict[str, Finding]:
    """Return what is not as it should be; services that were only too slow are asked once more, with more time.

    And one by one where the server has not a connection for each question at once.
    """
    bad = {name: finding for name, finding in health.ask(questions).items() if not finding.ok}
    for name in [n for n, finding in bad.items() if of_text(finding.detail) == TOO_MANY_CONNECTIONS]:
        bad |= health.ask({name: questions[name]})
    slow = {name: questions[name] for name, finding in bad.items() if finding.detail == probes.TOO_SLOW}
    if slow:
        bad |= health.ask(slow, limit=PATIENCE)
    return {name: finding for name, finding in bad.items() if not finding.ok}


def psql(settings: Settings) -> Path:
    """Return the client program with which SQL servers are probed."""
    from infra.tiers import providers

    return providers.postgres_bin(settings).path / f"psql{providers.EXE}"


@dataclass(frozen=True)
class Report:
    """A tier's services with the answers of their functional probes, and the worst state of all."""

    services: list[ServiceStatus]
    findings: Mapping[str, Finding]
    state: str


def report(tier: Tier) -> Report:
    """Return the status of everything: processes as the tier sees them, and whether each one answers now."""
    found = tier.status() if tier.running() else []
    live = [s.name for s in found if s.state in ("ready", "starting")]
    ends = tier.endpoints()
    client = psql(tier.context.settings)
    findings = health.ask({n: health.probe(ends, n, client) for n in live}, limit=3.0)
    return Report(found, findings, overall(found, findings))


def overall(found: Sequence[ServiceStatus], findings: Mapping[str, Finding]) -> str:
    """Return the state of several services as one word: ready, starting, degraded or stopped."""
    if not found or all(s.state == "stopped" for s in found):
        return "stopped"
    if all(s.state == "ready" and findings[s.name].ok for s in found):
        return "ready"
    on_the_way = all(s.state in ("starting", "waiting") or (s.state == "ready" and findings[s.name].ok) for s in found)
    return "starting" if on_the_way else "degraded"


def state_of(service: ServiceStatus, findings: Mapping[str, Finding]) -> tuple[str, str]:
    """Return state and detail of one service for people: a process that does not answer is `unhealthy`."""
    finding = findings.get(service.name)
    if service.state == "ready" and finding is not None and not finding.ok:
        return "unhealthy", one_line(service.detail or finding.detail)
    return service.state, one_line(service.detail)


def one_line(text: str, limit: int = 200) -> str:
    """Return a server's message, fit for a table."""
    flat = " ".join(text.split())
    return flat if len(flat) <= limit else f"{flat[:limit]}..."


def require_running(choice: Choice) -> Tier:
    """Return the tier, provided that it runs.

    Raises:
        PlatformError: NOT_RUNNING.
    """
    if not choice.tier.running():
        raise PlatformError(
            "NOT_RUNNING", "the platform is not running", steps=("invoke up", "./scripts/start-infra.sh")
        )
    return choice.tier


def running_endpoints(context: Context) -> Endpoints:
    """Return the endpoints of the running platform, for tasks that use it.

    Raises:
        PlatformError: NOT_RUNNING.
    """
    return require_running(choose(context)).endpoints()


def down(choice: Choice) -> bool:
    """Stop the application, the training worker and the tier; data stays. False when nothing ran."""
    home = choice.tier.context.stack
    with stack.lock(home, "down", writes=False):
        others = stop_others(home)
        return choice.tier.stop() or others


def stop_others(home: Stack) -> bool:
    """Stop what runs on the platform: the application, the training worker. False when nothing ran."""
    from infra.app import service as app
    from infra.training import service as training

    stopped = [app.stop(home), training.stop_worker(home)]
    return any(stopped)


def known_services(names: Sequence[str], tier: Tier) -> None:
    """Refuse names that are no services of the tier, with the nearest one.

    Raises:
        PlatformError: USAGE.
    """
    offered = [s.name for s in catalog.offered(tier.name)]
    for name in names:
        if name in offered:
            continue
        gap = next((g for g in catalog.gaps(tier.name) if g.feature == name), None)
        raise PlatformError(
            "USAGE",
            f"no service {name!r} on the {tier.name} tier",
            why=gap.reason if gap else "",
            steps=(*nearest(name, offered), f"the services are: {', '.join(offered)}"),
        )
