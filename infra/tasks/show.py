"""The answers of the verbs: tables, lines and data made from what the lifecycle found."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra import catalog, rows, status_report
from infra.console import MASK, PROGRAM, Answer, Table, human_bytes, human_seconds
from infra.context import Context
from infra.endpoints import Endpoints, absent, contract
from infra.errors import ExitCode, PlatformError
from infra.stack import write_atomic
from infra.tiers.base import Check, LogLine, Tier

if TYPE_CHECKING:
    from infra.lifecycle import Started
    from infra.status_report import StatusReport
    from infra.tier_choice import Choice

STATE_EXIT = {"ready": ExitCode.OK, "starting": ExitCode.SERVICE_FAILED, "degraded": ExitCode.SERVICE_FAILED}
_MARKS = {"ready": "good", "failed": "bad", "unhealthy": "bad", "stopped": "bad"}
_MARKS |= {"backoff": "warn", "unsupervised": "warn"}
WRITTEN_BY_US = "# written by `invoke env --write`"


def login(ends: Endpoints, service: str, settings: Any, reveal: bool) -> str:
    """Format the login of a service, `user / password`; a password that is not the documented default is hidden."""
    entry = catalog.service(service)
    names = entry.login
    if ends.password(service):
        return f"password {ends.password(service) if reveal else MASK}"
    if names is None:
        return "none"
    user, password = (settings.text(name) for name in names)
    if service == "grafana":
        user, password = ends.grafana.user, ends.grafana.password
    if service in ends.elsewhere:
        user, password = ends.elsewhere[service].login.user, ends.elsewhere[service].login.password
    public = password in (catalog.SETTINGS[names[1]].default, catalog.GRAFANA_ON_KIND)
    return f"{user} / {password if reveal or public else MASK}"


def urls(ends: Endpoints, service: str, engines: Mapping[str, str]) -> list[str]:
    """List the addresses of a service; a console that its engine lacks is left out."""
    lacking = {gap.feature for gap in catalog.gaps(engines.get(service, ""))}
    roles = [p.role for p in catalog.service(service).ports if not (p.role == "console" and "s3-console" in lacking)]
    return [ends.url(service, role) for role in roles]


def started(outcome: Started) -> Answer:
    """Return the answer of `up`: what runs, where, with which login, what it lacks, what to do next."""
    context, ends, engines = outcome.tier.context, outcome.endpoints, outcome.tier.engines()
    rows = []
    for name in ends.services:
        title = catalog.service(name).title
        engine = f" [{engines[name]}]" if name in engines else ""
        shown = login(ends, name, context.settings, False)
        rows += _by_address((title + engine,), urls(ends, name, engines), (shown,))
    changed = f"ready in {human_seconds(outcome.seconds)}" if outcome.changed else "already runs: nothing to do"
    head = f"The platform is {changed}." if outcome.changed else f"The platform {changed}."
    context.console.say(f"{context.console.symbol('good')} {head}", "good")
    data = {
        "changed": outcome.changed,
        "seconds": round(outcome.seconds, 3),
        "services": [_where(ends, name, engines) for name in ends.services],
        "gaps": _gaps(outcome.tier, engines),
        "next": list(NEXT),
    }
    names = tuple(ends.services)
    return Answer(
        data, Table(("service", "address", "login"), tuple(rows), keep=(1, 2)), _after(outcome, engines), names=names
    )


def _by_address(before: tuple[str, ...], addresses: list[str], after: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Return a row for the first address, and rows with nothing else for the others, which keeps the table narrow."""
    first, *others = addresses or [""]
    blank = tuple("" for _ in before), tuple("" for _ in after)
    return [(*before, first, *after), *((*blank[0], other, *blank[1]) for other in others)]


NEXT = (
    "invoke train.run      train on real images, end to end",
    "invoke status         what is running, and in what state",
    "invoke env            print the .env for your application",
    "./scripts/start-infra.sh --stop   stop it; the data is kept",
)


def _after(outcome: Started, engines: Mapping[str, str]) -> tuple[str, ...]:
    lines = [""]
    if "mlflow" in outcome.endpoints.services:
        missing = [f"  {g.feature}: {g.reason}; instead: {g.instead}" for g in catalog.gaps(outcome.tier.name)]
        missing += _not_found(outcome)
        lines += ["Not on this tier:", *missing, ""] if missing else []
    stores = [engines[name] for name in outcome.endpoints.services if name in engines]
    store = stores[0] if stores else ""
    if catalog.gaps(store) and not outcome.endpoints.elsewhere:
        lines += [f"The object stores run on {store}; `invoke doctor` lists what it cannot do.", ""]
    advice = outcome.tier.advice
    lines += [advice, ""] if advice else []
    return (*lines, "Next:", *(f"  {line}" for line in (*_activation(), *NEXT)))


def _activation() -> tuple[str, ...]:
    """Describe the way to get `invoke` on PATH, where it is not."""
    if shutil.which("invoke") or Path(sys.argv[0]).stem == PROGRAM:
        return ()
    posix, windows = "source .venv/bin/activate", r".venv\Scripts\Activate.ps1"
    return (f"{windows if os.name == 'nt' else posix}   first, once in each terminal: it puts `invoke` on PATH",)


def _not_found(outcome: Started) -> list[str]:
    """Return services that this tier would run if their program were found and they were not left out."""
    known = [s for s in catalog.offered(outcome.tier.name) if s.name in catalog.OBSERVABILITY]
    absent = [s for s in known if s.name not in outcome.endpoints.services]
    if outcome.tier.from_images:
        return [f"  {s.name}: left out" for s in absent]
    return [f"  {s.name}: its program was not found; install it, or set PLATFORM_{s.name.upper()}" for s in absent]


def _where(ends: Endpoints, name: str, engines: Mapping[str, str]) -> dict[str, object]:
    return {"name": name, "urls": urls(ends, name, engines), "engine": engines.get(name, "")}


def _gaps(tier: Tier, engines: Mapping[str, str]) -> list[dict[str, str]]:
    """List what the tier and its engines lack, and on containers what the user has left out."""
    out = tier.context.settings.words("PLATFORM_LEAVE_OUT") if tier.from_images else ()
    reason = f"left out by PLATFORM_LEAVE_OUT ({tier.context.settings.origin('PLATFORM_LEAVE_OUT')})"
    chosen = [rows.Gap(tier.name, name, reason) for name in out]
    return [vars(gap) for gap in (*catalog.gaps(tier.name, *set(engines.values())), *chosen)]


def status(choice: Choice, found: StatusReport, why: bool, reveal: bool) -> Answer:
    """Return the answer of `status`."""
    context, ends, engines = choice.tier.context, choice.tier.endpoints(), choice.tier.engines()
    entries = [_entry(context, ends, s, found, engines, reveal) for s in found.services]
    console = context.console
    rows = []
    for entry in entries:
        mark = console.symbol(_MARKS.get(str(entry["state"]), "dim"), console.stdout)
        memory = human_bytes(entry["memory"]) if entry["memory"] else ""
        state = f"{mark} {entry['state']}"
        secret = (str(entry["login"]),) if reveal else ()
        rows += _by_address((str(entry["name"]), state), entry["urls"], (*secret, memory, _age(entry), _note(entry)))
    heading = ("service", "state", "address", *(("login",) if reveal else ()), "memory", "up", "")
    drop = tuple(heading.index(name) for name in ("memory", "up", ""))
    styles = {row[1]: _MARKS.get(row[1].partition(" ")[2], "dim") for row in rows if row[1]}
    table = Table(heading, tuple(rows), keep=(0, 1, 2), drop=drop, styles=styles)
    data: dict[str, Any] = {
        "state": found.state,
        "services": entries,
        "engines": engines,
        "gaps": _gaps(choice.tier, engines),
    }
    code = STATE_EXIT.get(found.state, ExitCode.NOTHING)
    warnings = _warnings(found, ends)
    data["warnings"] = [vars(w) for w in warnings]
    data["lastVerifiedBackup"] = verified = _last_verified_backup(context)
    lines = _causes(entries) if why else _advice(found.state, choice.tier.name)
    if verified is not None and not why:
        lines = (f"last verified backup of the databases: {human_seconds(time.time() - verified)} ago", *lines)
    lines = (*(f"{w.id}: {w.text}; {w.remedy}" for w in warnings), *lines)
    shown = None if why or not entries else table
    env = contract(ends)
    return Answer(data, shown, lines, env=env, names=tuple(str(e["name"]) for e in entries), exit=int(code))


def _warnings(found: StatusReport, ends: Endpoints) -> list[Check]:
    """Return what makes other tasks fail though PostgreSQL runs; asked only where it does."""
    if not any(s.name == "postgres" and s.state == "ready" for s in found.services):
        return []
    from infra import postgres_checks

    return postgres_checks.checks(ends)


def _last_verified_backup(context: Context) -> float | None:
    """Return when the newest verified backup was made (seconds since 1970); looked up only where there are backups."""
    if not context.stack.backups.is_dir():
        return None
    from infra.data.postgres import backups as postgres_backups

    return postgres_backups.last_verified(context.stack)


def _entry(
    context: Context, ends: Endpoints, service: Any, found: StatusReport, engines: Mapping[str, str], reveal: bool
) -> dict[str, Any]:
    state, detail = status_report.state_of(service, found.findings)
    shown = login(ends, service.name, context.settings, reveal)
    if not reveal and " / " in shown:
        shown = f"{shown.split(' / ')[0]} / {MASK}"
    return {
        "name": service.name,
        "state": state,
        "detail": detail,
        "urls": urls(ends, service.name, engines),
        "login": shown,
        "engine": service.engine,
        "pid": service.pid,
        "memory": service.memory,
        "restarts": service.restarts,
        "since": service.since,
        "needs": list(catalog.service(service.name).needs),
        "log": service.log,
    }


def _age(entry: Mapping[str, Any]) -> str:
    if not (entry["since"] and entry["pid"]):
        return ""
    age = max(0.0, time.time() - entry["since"])
    return human_seconds(age if age < 60 else age // 60 * 60).removesuffix(" 0 s")


def _note(entry: Mapping[str, Any]) -> str:
    engine = f"[{entry['engine']}]" if entry["engine"] else ""
    restarts = f"{entry['restarts']} restarts" if entry["restarts"] else ""
    return " ".join(part for part in (engine, restarts, entry["detail"]) if part)


def _causes(entries: list[dict[str, Any]]) -> tuple[str, ...]:
    """List only the services to blame: not ready although all they need is."""
    bad = {e["name"] for e in entries if e["state"] != "ready"}
    roots = [e for e in entries if e["name"] in bad and not bad & set(e["needs"])]
    lines = [
        f"{e['name']} is {e['state']}: {e['detail'] or 'no reason known'}; invoke logs -s {e['name']}" for e in roots
    ]
    victims = sorted(bad - {e["name"] for e in roots})
    return (*lines, *((f"waiting for it: {', '.join(victims)}",) if victims else ())) or ("everything is ready",)


def _advice(state: str, tier: str) -> tuple[str, ...]:
    if state == "ready":
        return ("", f"ready on the {tier} tier. Next: invoke train.run, invoke env")
    if state == "stopped":
        return ("the platform is not running. Next: invoke up",)
    return ("", "Next: invoke status --why, invoke doctor")


def logs(context: Context, lines: Iterable[LogLine], follow: bool) -> Answer | None:
    """Print log lines as they come; NDJSON where the output is JSON and the log is followed."""
    from infra.readers import following

    with following(context.console.stdout) if follow else contextlib.nullcontext():
        return _printed(context, lines, follow)


def _printed(context: Context, lines: Iterable[LogLine], follow: bool) -> Answer | None:
    console = context.console
    seen = []
    for line in lines:
        text = console.mask(line.text)
        if console.output == "json" and follow:
            event = {"ts": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "type": "log", "service": line.service}
            console.line(json.dumps({**event, "state": "", "text": text}))
        elif console.output in ("json", "yaml") and not follow:
            seen.append({"service": line.service, "text": text})
        else:
            console.line(f"{console.paint(f'{line.service:<16}', 'dim', console.stdout)} {text}")
    return Answer({"lines": seen}) if console.output in ("json", "yaml") and not follow else None


def not_running(tier: str, ends: Endpoints) -> tuple[str, ...]:
    """Return a comment for each service that the tier has and whose variables are left out, since it does not run."""
    offered = {s.name: s.title for s in catalog.offered(tier)}
    lacking = {offered[name]: names for name, names in absent(ends).items() if name in offered}
    return tuple(
        f"# {title} is not running ({', '.join(names)}); start it with: invoke up --obs"
        for title, names in lacking.items()
    )


def written(context: Context, content: str, target: str, yes: bool) -> Answer:
    """Write a private file; one that is not the platform's is kept aside, and only with --yes."""
    path = Path(target).expanduser().absolute()
    if path.resolve() == (context.settings.root / ".env").resolve():
        steps = ("write it to your application's directory, e.g. invoke env --write ../app/.env",)
        raise PlatformError("USAGE", f"{path} holds this platform's own settings", steps=steps)
    lines = []
    try:
        if path.exists() and not path.read_text(encoding="utf-8", errors="replace").startswith(WRITTEN_BY_US):
            lines.append(_keep_aside(path, yes))
        write_atomic(path, f"{WRITTEN_BY_US}\n{content}", mode=0o600)
    except OSError as error:
        steps = ("name a file in a writable directory",)
        raise PlatformError("USAGE", f"{path} cannot be written", why=error.strerror or "", steps=steps) from error
    for line in (f"wrote {path}", *lines):
        context.console.say(line)
    return Answer({"path": str(path)})


def _keep_aside(path: Path, yes: bool) -> str:
    if not yes:
        steps = ("run the same command with --yes; the old file is kept beside it",)
        raise PlatformError("CONFIRMATION_NEEDED", f"{path} exists and was not written by this tool", steps=steps)
    kept = path.with_name(f"{path.name}.{time.strftime('%Y%m%dT%H%M%S')}.bak")
    path.rename(kept)
    return f"the old file is {kept}"


def versions(tier: Tier) -> Answer:
    """Return the answer of `version`."""
    import platform
    from importlib.metadata import version

    facts = {
        "platform": _own_version(tier.context.settings.root),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        **{name: version(name) for name in ("invoke", "temporalio", "psycopg", "boto3")},
        "tier": tier.name,
        **{f"engine {name}": engine for name, engine in _engines(tier).items()},
        **tier.programs(),
    }
    rows = tuple((name, text) for name, text in facts.items())
    return Answer(facts, Table(("", ""), rows), names=(facts["platform"],))


def _engines(tier: Tier) -> dict[str, str]:
    try:
        return tier.engines()
    except PlatformError:
        return {}  # a bug report is made where things fail; a missing program is reported among the programs


def _own_version(root: Path) -> str:
    import tomllib

    return str(tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"])
