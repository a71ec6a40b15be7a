"""The life of the platform on a tier: start, fill, prove, stop. The same on every tier."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from infra import catalog, logins, machine, proof, stack
from infra.endpoints import Endpoints
from infra.errors import PlatformError
from infra.stack import Stack
from infra.tier_choice import Choice
from infra.tiers.base import Check, Tier


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
        machine.register(context.stack, context.settings, tier.name, running=True)
        tier.start(names, timeout)
        if obs is False and set(names) & set(catalog.OBSERVABILITY):
            stop_observability(tier)  # a stopped cluster starts with all that it had
        ends = tier.endpoints()
        for made in proof.heal(ends, proof.psql(context.settings)):
            context.console.say(f"  created the missing {made}")
        stack.remember(context.stack, tier=tier.name)
        if "mlflow" in ends.services:
            stack.remember(context.stack, mlflow=tier.mlflow_tables)
        stack.remember_overlay(context.stack, {*stack.remembered_overlay(context.stack), *ends.services})
        _give_grafana_its_password(tier, ends)
        if coming:
            logins.finish(context.stack, coming, tier.name)
            _renew_clients(context.stack, ends)
        tier.renew_application(timeout)
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


def _with_logins(tier: Tier, coming: logins.LoginChange, names: Sequence[str], timeout: float | None) -> Tier:
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
        supervise.renew(place, contract(ends), (*catalog.CONTRACT_NAMES, *catalog.MLFLOW_LOGIN))


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


def down(choice: Choice) -> bool:
    """Stop the application, the training worker and the tier; data stays. False when nothing ran."""
    home = choice.tier.context.stack
    with stack.lock(home, "down", writes=False):
        others = stop_others(home)
        stopped = choice.tier.stop() or others
        machine.register(home, choice.tier.context.settings, choice.tier.name, running=False)
        return stopped


def stop_others(home: Stack) -> bool:
    """Stop what runs on the platform: the application, the training worker. False when nothing ran."""
    from infra.app import service as app
    from infra.training import service as training

    stopped = [app.stop(home), training.stop_worker(home)]
    return any(stopped)
