"""The verbs that every tier has; the root tasks choose the tier, the namespaces fix it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import invoke

from infra.console import SHELLS, Answer, Table, env_lines, human_bytes
from infra.context import Context
from infra.errors import ExitCode, PlatformError
from infra.tasks.command import ANY, command, confirm, words

if TYPE_CHECKING:
    from infra.lifecycle import Started
    from infra.tier_choice import Choice
    from infra.tiers.base import Removal, Tier

TIER = (
    "tier to use: native, compose, kind, or production (only to read);"
    " default: the running one, else the last used, else the best available"
)
SERVICE = "service; repeatable, or comma-separated"
PRIVATE = "random passwords, for this stack alone, instead of the documented ones; remembered"
NO_PRIVATE = "the documented passwords again"
NO_OBS = "stop the observability services, and start without them from now on"


def choose(context: Context, *, quiet: bool = False) -> Choice:
    """Return the tier of this run; one that was picked automatically is named with the reason."""
    from infra import tier_choice

    choice = tier_choice.choose(context)
    context.console.tier = choice.tier.name
    if not choice.named and not quiet:
        context.console.say(f"tier {choice.tier.name}: {choice.reason}", "dim")
    return choice


def up(
    context: Context,
    service: list[str],
    obs: bool = False,
    no_obs: bool = False,
    auto_ports: bool = False,
    private: bool = False,
    no_private: bool = False,
    timeout: float = 0.0,
) -> Answer:
    """Start the platform and wait until it works; a second call changes nothing.

    Example: invoke up --obs
    """
    context = with_logins(context, private, no_private)
    return started(context, words(service), observability(obs, no_obs), auto_ports, timeout)


def with_logins(context: Context, private: bool, no_private: bool) -> Context:
    """Return the run with what --private and --no-private ask for.

    Raises:
        PlatformError: USAGE for both.
    """
    if private and no_private:
        raise PlatformError("USAGE", "--private and --no-private contradict each other", steps=("give one of them",))
    wish = "yes" if private else "no" if no_private else ""
    return context.with_values({"PLATFORM_PRIVATE": wish}, "the command line") if wish else context


def _warn_of_what_is_old(tier: Tier) -> None:
    from infra import outdated

    console = tier.context.console
    for check in (*outdated.packages(tier.context.settings.root), *outdated.programs(tier.context)):
        if check.status == "warn":
            console.warn(f"{check.text}; next: {check.remedy}")
    if names := tier.outdated() if tier.running() else ():
        console.say(f"  restarting, since an earlier version or other settings started them: {', '.join(names)}")


@contextlib.contextmanager
def interruptible(again: str = "invoke up") -> Iterator[None]:
    """Say after Ctrl-C what goes on; `again` is the command that continues. Raises PlatformError INTERRUPTED."""
    try:
        yield
    except KeyboardInterrupt:
        steps = ("invoke status shows how far it is", f"{again} goes on from there", "invoke down stops it")
        what = "interrupted; the services that were started keep running"
        raise PlatformError("INTERRUPTED", what, steps=steps) from None


def observability(obs: bool, no_obs: bool) -> bool | None:
    """Return what --obs and --no-obs ask for; None for neither: what ran before.

    Raises:
        PlatformError: USAGE for both.
    """
    if obs and no_obs:
        raise PlatformError("USAGE", "--obs and --no-obs contradict each other", steps=("give one of them",))
    return obs or (False if no_obs else None)


def started(context: Context, names: tuple[str, ...], obs: bool | None, auto_ports: bool, timeout: float) -> Answer:
    """Start, and show what runs; with `auto_ports` taken ports are moved first."""
    from infra.tasks import show

    return show.started(brought_up(context, names, obs, timeout, auto_ports))


def brought_up(
    context: Context, names: tuple[str, ...], obs: bool | None, timeout: float, auto_ports: bool = False
) -> Started:
    """Start on the tier of this run, after a warning of what is older than the checkout.

    Raises:
        PlatformError: INTERRUPTED after Ctrl-C, and what `lifecycle.up` raises.
    """
    from infra import auto_ports as moving
    from infra import lifecycle, tier_choice

    choice = choose(context)
    tier_choice.known_services(names, choice.tier)
    _warn_of_what_is_old(choice.tier)
    for turn in (1, 2, 3):
        try:
            with interruptible():
                return lifecycle.up(choice, obs, timeout or None, names)
        except PlatformError as error:
            if not auto_ports or error.code != "PORT_TAKEN" or turn == 3:
                raise
            settings, moved = moving.move(context.settings, context.stack, error)
            ports = ", ".join(f"{n}={p}" for n, p in moved.items())
            context.console.say(f"  ports changed: {ports}; remembered", "warn")
            choice = choose(replace(context, settings=settings), quiet=True)
    raise AssertionError  # the third turn has returned or raised


def leave_out(context: Context, name: str) -> Context:
    """Leave a service out in this run, in addition to those the settings leave out."""
    names = ",".join(n for n in (name, context.settings.text("PLATFORM_LEAVE_OUT")) if n)
    return context.with_values({"PLATFORM_LEAVE_OUT": names}, "the command line")


def down(context: Context) -> Answer:
    """Stop the platform and keep its data.

    Example: invoke down
    """
    from infra import lifecycle

    stopped = lifecycle.down(choose(context, quiet=True))
    text = "stopped; the data is kept" if stopped else "nothing was running"
    return Answer({"stopped": stopped}, lines=(text, "Next: invoke up"))


def restart(context: Context, service: list[str]) -> Answer:
    """Restart all services, or those named.

    Example: invoke restart -s postgres
    """
    from infra import stack, tier_choice

    chosen = choose(context, quiet=True)
    tier_choice.known_services(words(service), chosen.tier)
    active = tier_choice.require_running(chosen)
    names = words(service) or tuple(s.name for s in active.status())
    with stack.lock(context.stack, "restart"):
        active.restart(names)
    return Answer({"restarted": list(names)}, lines=(f"restarted and ready: {', '.join(names)}",), names=names)


def status(context: Context, why: bool = False, show_secrets: bool = False) -> Answer:
    """Show what is running, where, and in what state; exit 0 ready, 7 degraded, 9 stopped.

    Example: invoke status --json
    """
    from infra import status_report
    from infra.tasks import show

    choice = choose(context, quiet=True)
    found = status_report.report(choice.tier)
    if show_secrets:
        context.console.secrets = ()
    return show.status(choice, found, why, show_secrets)


def logs(
    context: Context, service: list[str], tail: int = 100, follow: bool = False, since: str = "", grep: str = ""
) -> Answer | None:
    """Print the services' logs, rotated ones as well; with -f follow them.

    Example: invoke logs --since 10m --grep error
    """
    from infra import tier_choice
    from infra.loglines import LogQuery
    from infra.tasks import log_query, show

    if tail < 0:
        raise PlatformError("USAGE", f"--tail {tail} is less than 0", steps=("--tail 0 prints everything",))
    query = LogQuery(tail, follow, log_query.earliest(since), log_query.pattern(grep))
    active = choose(context, quiet=True).tier
    tier_choice.known_services(words(service), active)
    return show.logs(context, active.logs(words(service), query), follow)


def wait(context: Context, service: list[str], timeout: float = 0.0) -> Answer:
    """Wait until the services are ready; exit 6 on timeout, 9 when nothing is running.

    Example: invoke wait -s mlflow
    """
    from infra import tier_choice

    chosen = choose(context, quiet=True)
    tier_choice.known_services(words(service), chosen.tier)
    active = tier_choice.require_running(chosen)
    running = [s.name for s in active.status()]
    absent = [n for n in words(service) if n not in running]
    if absent:
        raise PlatformError("NOT_RUNNING", f"{absent[0]} is not started", steps=("invoke up --obs", "invoke status"))
    active.wait(words(service), timeout or None)
    return Answer({"ready": list(words(service) or running)}, lines=("ready",))


def reset(context: Context, service: list[str], no_backup: bool = False, yes: bool = False) -> Answer:
    """Move the data of all services, or of those named, to the trash, after showing a plan.

    Example: invoke reset -s redis --yes
    """
    return removed(context, words(service), no_backup, yes)


def removed(context: Context, service: tuple[str, ...], no_backup: bool, yes: bool) -> Answer:
    """Show the plan, ask, stop everything, and move the data to the trash."""
    from infra import stack, tier_choice
    from infra.data import trash
    from infra.tasks.trash import kept

    active = choose(context, quiet=True).tier
    tier_choice.known_services(service, active)
    with stack.lock(context.stack, "reset"):
        removals = active.removals(service)
        if not removals:
            return Answer({"removed": [], "trash": []}, lines=("no data to remove",))
        _consent(active, removals, no_backup, yes)
        _stop_everything(context)
        away = [] if no_backup else trash.put(active, removals, "reset")
        if no_backup:
            active.remove(removals)
        expired = trash.sweep(context.stack)
    names = tuple(dict.fromkeys(r.service for r in removals))
    data = {"removed": [vars(r) for r in removals], "trash": [e.data() for e in away]}
    lines = (f"{'deleted' if no_backup else 'removed'}: {', '.join(names)}", *kept(away))
    lines += (f"expired, removed from the trash: {', '.join(e.name for e in expired)}",) if expired else ()
    return Answer(data, lines=(*lines, "Next: invoke up"))


def _consent(active: Tier, removals: list[Removal], no_backup: bool, yes: bool) -> None:
    """Show what a reset does and ask; a permanent deletion needs more than a word at the prompt."""
    from infra.data import trash

    plan = ["This permanently deletes:" if no_backup else f"This is moved to the trash for {trash.DAYS} days:"]
    plan += [f"  {r.service:<16} {human_bytes(r.size):>8}  {r.place}" for r in removals]
    plan += ["The platform is stopped first."] if active.running() else []
    if no_backup and not yes:
        for line in plan:
            active.context.console.say(line)
        steps = ("add --yes to delete it permanently", "or omit --no-backup")
        raise PlatformError("CONFIRMATION_NEEDED", "nothing was changed: --no-backup needs --yes", steps=steps)
    confirm(active.context, plan, yes)


def _stop_everything(context: Context) -> None:
    from infra import lifecycle, tier_choice

    lifecycle.stop_others(context.stack)
    tier_choice.choose(context).tier.stop()


def env(
    context: Context, shell: str = "", write: str = "", yes: bool = False, store: str = "datasets", profiles: str = ""
) -> Answer | None:
    """Print the .env contract for applications, and the variables that SDKs, libpq and other tools look for.

    Example: eval "$(invoke env --shell sh)"
    """
    from infra import endpoints
    from infra.tasks import show

    if store not in endpoints.STORES:
        steps = (f"use one of {', '.join(endpoints.STORES)}",)
        raise PlatformError("USAGE", f"there is no object store {store!r}", steps=steps)
    if shell and shell not in SHELLS:
        raise PlatformError("USAGE", f"unknown shell {shell!r}", steps=(f"use one of {', '.join(SHELLS)}",))
    active = choose(context, quiet=True).tier
    ends = active.endpoints()
    values = endpoints.contract(ends) | endpoints.familiar(ends, store)
    comments = (*endpoints.store_comments(store), *show.not_running(active.name, ends))
    if profiles:
        return show.written(context, endpoints.profiles(ends), profiles, yes)
    if write:
        return show.written(context, "\n".join([*env_lines(values), *comments]) + "\n", write, yes)
    context.console.shell = shell
    if context.console.output == "table":
        context.console.output = "env"
    context.console.secrets = ()  # the contract is for programs: it carries its passwords
    return Answer(values, env=values, names=tuple(values), comments=comments)


def doctor(context: Context, obs: bool = False, strict: bool = False) -> Answer:
    """Check this machine, the settings and the running services; exit 4 when something fails.

    Example: invoke doctor
    """
    from infra import doctor as checks

    choice = choose(context)
    found = checks.checks(choice.tier, obs)
    marks = {"ok": "good", "warn": "warn", "fail": "bad"}
    stdout = context.console.stdout
    rows = [(context.console.symbol(marks[c.status], stdout), c.status.upper(), c.id, c.text) for c in found]
    styles = {status.upper(): style for status, style in marks.items()}
    counts = ", ".join(f"{sum(c.status == status for c in found)} {status}" for status in marks)
    remedies = tuple(f"  next for {c.id}: {c.remedy}" for c in found if c.remedy and c.status != "ok")
    bad = checks.worst(found) in (("fail", "warn") if strict else ("fail",))
    code = ExitCode.PREFLIGHT if bad else ExitCode.OK
    data = {"checks": [vars(c) for c in found], "worst": checks.worst(found)}
    lines = (*remedies, f"{len(found)} checks: {counts}")
    return Answer(data, Table(("", "", "", ""), tuple(rows), wrap=3, styles=styles), lines, exit=int(code))


def version(context: Context) -> Answer:
    """Print the versions of this tool, Python and the tier's programs.

    Example: invoke version --json
    """
    from infra.tasks import show

    return show.versions(choose(context, quiet=True).tier)


BODIES: tuple[tuple[Callable[..., Any], dict[str, Any]], ...] = (
    (
        up,
        {
            "help": {
                "service": "start only this service and what it needs; repeatable, or comma-separated",
                "obs": "also start MLflow and the tier's other observability services; remembered",
                "no_obs": NO_OBS,
                "auto_ports": "choose free ports where the usual ones are taken, and remember them",
                "private": PRIVATE,
                "no_private": NO_PRIVATE,
                "timeout": "total time limit in seconds; 0: each service's own limit",
            },
            "iterable": ("service",),
        },
    ),
    (down, {}),
    (restart, {"help": {"service": SERVICE}, "iterable": ("service",)}),
    (status, {"help": {"why": "show only the root cause", "show_secrets": "show passwords"}, "log": False}),
    (
        logs,
        {
            "help": {
                "service": SERVICE,
                "tail": "number of last lines of each log, after --since and --grep; 0: all",
                "follow": "go on",
                "since": "only lines since then: 10m, 2h, 1d, or a time such as 2026-11-30T08:00",
                "grep": "only lines that match this regular expression, in upper or lower case",
            },
            "iterable": ("service",),
            "log": False,
        },
    ),
    (wait, {"help": {"service": SERVICE, "timeout": "seconds, 0: budgets"}, "iterable": ("service",), "log": False}),
    (
        reset,
        {
            "help": {
                "service": SERVICE,
                "no_backup": "delete it permanently; needs --yes",
                "yes": "skip the confirmation prompt",
            },
            "iterable": ("service",),
        },
    ),
    (
        env,
        {
            "help": {
                "shell": f"print commands for this shell: {', '.join(SHELLS)}",
                "write": "to a file",
                "yes": "overwrite it",
                "store": "object store for AWS_*: datasets or results",
                "profiles": "write a file for AWS_CONFIG_FILE with the profiles datasets and results",
            },
            "log": False,
        },
    ),
    (doctor, {"help": {"obs": "check for --obs too", "strict": "treat warnings as failures"}, "log": False}),
    (version, {"log": False}),
)


def tasks(tier: str = ANY) -> tuple[invoke.Task[Any], ...]:
    """Return the verbs as tasks, on any tier or fixed to one."""
    made = []
    for body, options in BODIES:
        texts = {"tier": TIER, **options.get("help", {})}
        made.append(command(**{**options, "help": texts}, tier=tier)(body))
    return tuple(made)
