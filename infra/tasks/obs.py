"""Observability: MLflow, Loki, Prometheus, Grafana, ClearML, and the proof that they work."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from infra.console import Answer, Table
from infra.context import Context
from infra.errors import ExitCode, PlatformError
from infra.tasks import verbs
from infra.tasks.command import ANY, command, words

if TYPE_CHECKING:
    from infra.endpoints import Endpoints
    from infra.observability import Sources
    from infra.tiers.base import Check, Observed, Tier


def names() -> tuple[str, ...]:
    """Return the observability services."""
    from infra import catalog

    return catalog.OBSERVABILITY


@command(
    tier=ANY,
    help={
        "only": "start only these and what they need, e.g. mlflow or clearml; repeatable, or comma-separated",
        "no_clearml": "leave out ClearML",
        "auto_ports": "choose free ports where the usual ones are taken, and remember them",
        "timeout": "total time limit in seconds; 0: each service's own limit",
        "tier": verbs.TIER,
    },
    iterable=("only",),
)
def up(
    context: Context,
    only: list[str],
    no_clearml: bool = False,
    auto_ports: bool = False,
    timeout: float = 0.0,
) -> Answer:
    """Start the observability services, or those named, with the core that they need.

    Example: invoke obs.up --only mlflow
    """
    if no_clearml:
        context = verbs.leave_out(context, "clearml")
    return verbs.started(context, words(only), obs=None if only else True, auto_ports=auto_ports, timeout=timeout)


@command(tier=ANY, help={"tier": verbs.TIER})
def down(context: Context) -> Answer:
    """Stop the observability services, also for the next `up`; the core keeps running, the data is kept.

    Example: invoke obs.down
    """
    from infra import lifecycle, stack, tier_choice

    active = tier_choice.require_running(verbs.choose(context, quiet=True))
    with stack.lock(context.stack, "obs.down"):
        gone = lifecycle.stop_observability(active)
    text = f"stopped: {', '.join(gone)}; the data is kept" if gone else "none of them was running"
    return Answer({"stopped": list(gone)}, lines=(text,), names=gone)


@command(tier=ANY, log=False, help={"tier": verbs.TIER})
def status(context: Context) -> Answer:
    """Show the observability services, their addresses and states; exit 0 ready, 7 degraded, 9 stopped.

    Example: invoke obs.status
    """
    from infra import status_report
    from infra.tasks import show

    choice = verbs.choose(context, quiet=True)
    found = status_report.report(choice.tier)
    kept = [s for s in found.services if s.name in names()]
    state = status_report.overall(kept, found.findings)
    answer = show.status(choice, replace(found, services=kept, state=state), why=False, reveal=False)
    if kept:
        return answer
    return replace(answer, lines=("no observability service is running. Next: invoke obs.up",))


@command(
    "open", tier=ANY, log=False, help={"service": "service to open; default: grafana, else mlflow", "tier": verbs.TIER}
)
def open_(context: Context, service: str = "") -> Answer:
    """Open a service in the browser, and print its address.

    Example: invoke obs.open --service mlflow
    """
    ends = _running(context)[1]
    there = [n for n in ("grafana", "mlflow", "clearml", "prometheus") if n in ends.services]
    name = service or next(iter(there), "")
    if name not in there:
        steps = ("invoke obs.up", f"running: {', '.join(there) or 'none'}")
        raise PlatformError("NOT_RUNNING", f"{name or 'no service with web pages'} is not started", steps=steps)
    address = ends.url(name)
    if context.console.live:
        import webbrowser

        webbrowser.open(address)
    return Answer({"service": name, "url": address}, lines=(address,), names=(address,))


def _running(context: Context) -> tuple[Tier, Endpoints]:
    from infra import tier_choice

    active = tier_choice.require_running(verbs.choose(context, quiet=True))
    return active, active.endpoints()


@command(
    tier=ANY,
    help={
        "alerts": "also stop Redis for about a minute and check that an alert fires and clears",
        "tier": verbs.TIER,
    },
)
def check(context: Context, alerts: bool = False) -> Answer:
    """Check that logs arrive, targets answer, dashboards have data and (--alerts) an alert fires; exit 4 if not.

    Example: invoke obs.check --alerts
    """
    from infra import doctor

    active, ends = _running(context)
    found = _found(active, ends, alerts)
    marks = {"ok": "good", "warn": "warn", "fail": "bad"}
    rows = [
        (context.console.symbol(marks[c.status], context.console.stdout), c.status.upper(), c.id, c.text) for c in found
    ]
    remedies = tuple(f"  next for {c.id}: {c.remedy}" for c in found if c.remedy and c.status == "fail")
    worst = doctor.worst(found)
    code = ExitCode.PREFLIGHT if worst == "fail" else ExitCode.OK
    data = {"checks": [vars(c) for c in found], "worst": worst}
    return Answer(data, Table(("", "", "", ""), tuple(rows)), remedies, exit=int(code))


def _found(active: Tier, ends: Endpoints, alerts: bool) -> list[Check]:
    import requests

    from infra import catalog, observability
    from infra.tiers.base import Check

    sources, seen = observability.Sources(ends), active.observed()
    lacking = {gap.feature: gap for gap in catalog.gaps(active.name)}
    try:
        found = _metrics(sources, seen)
        if "loki" in lacking:
            found += [observability.found_in_files(ends, lambda text: _logged(active, text))]
        else:
            found += [observability.logs(sources, seen.logs)]
        if "grafana" in lacking:
            return [*found, Check("dashboards", "warn", f"none: {lacking['grafana'].reason}")]
        found += observability.board_checks(sources, active.context.settings.root, seen.logs)
    except (requests.RequestException, ValueError) as error:
        raise PlatformError("UNREACHABLE", "a data source does not answer", why=str(error)) from error
    if alerts:
        return [*found, observability.alert(sources, active.paused("redis"))]
    return [*found, Check("alert", "warn", "not tested: --alerts stops Redis for about a minute and watches")]


def _metrics(sources: Sources, seen: Observed) -> list[Check]:
    """Ask Prometheus for its targets; where it does not run, ask them directly, if that is possible."""
    from infra import observability
    from infra.tiers.base import Check

    if "prometheus" in sources.ends.services:
        return observability.settled(lambda: observability.targets(sources, list(seen.absent)))
    if not seen.targets:
        raise PlatformError("NOT_RUNNING", "Prometheus is not started", steps=("invoke obs.up",))
    text = "Prometheus is not running, so nothing collects metrics: each service was asked directly"
    remedy = "install prometheus, or set PLATFORM_PROMETHEUS, then: invoke obs.up"
    return [Check("prometheus", "warn", text, remedy), *observability.exposed(seen.targets, seen.logins)]


def _logged(active: Tier, text: str) -> bool:
    """Return whether PostgreSQL's log has a line with this text that was written a moment ago."""
    import re
    import time

    from infra.loglines import LogQuery

    query = LogQuery(1, since=time.time() - 60, pattern=re.compile(re.escape(text)))
    return any(True for _ in active.logs(("postgres",), query))


TASKS = (up, down, status, open_, check)
