"""Databases: back up, list, verify, restore, prune, a shell, the way to a new major version."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.console import Answer, Table, human_bytes, human_seconds, printable
from infra.context import Context
from infra.errors import ExitCode, PlatformError
from infra.tasks import db_restore, db_upgrade
from infra.tasks.command import ANY, command, confirm, directory, named, words
from infra.tasks.events import STREAM, TRUST_VERIFIED, ended, events

if TYPE_CHECKING:
    from infra.data.postgres.clients import Server
    from infra.data.store import Backup

TARGET = "backup directory (default: backups/db in the state directory)"
FROM = "path or name of a backup, or latest"
SKIP = "leave out this database; repeatable, or comma-separated"
DATABASE = "database; repeatable, or comma-separated"


def _server(context: Context, at_least: int = 0) -> Server:
    from infra import tier_choice
    from infra.data.postgres import clients as postgres_clients

    return postgres_clients.find_server(tier_choice.running_endpoints(context), context.settings, at_least)


def _warn_of_left_over(context: Context, server: Server) -> None:
    """Name the scratch databases that this run, too, could not drop."""
    from infra.data.postgres import scratch

    for text in scratch.warnings(server.endpoints):
        context.console.warn(printable(text))


def _target(context: Context, to: str) -> Path:
    from infra.data.postgres import backups as postgres_backups

    return directory(to, postgres_backups.default_target(context.stack))


@command(
    tier=ANY,
    iterable=("database", "skip_database"),
    help={
        "to": TARGET,
        "database": DATABASE,
        "skip_database": SKIP,
        "fence": "pause writers briefly, so that all databases are captured at the same moment",
        "verify": "verify it right away: restore it into scratch databases and compare",
        "keep": "afterwards remove older backups, keeping this many verified ones",
        "json_stream": STREAM,
    },
)
def backup(
    context: Context,
    database: list[str],
    skip_database: list[str],
    to: str = "",
    fence: bool = False,
    verify: bool = False,
    keep: int = 0,
    json_stream: bool = False,
) -> Answer:
    """Back up all databases, or those named, as one consistent set.

    Example: invoke db.backup --verify --keep 7
    """
    from infra.data import store
    from infra.data.postgres import backup as postgres_backup
    from infra.data.postgres import backups as postgres_backups
    from infra.data.postgres import metrics as postgres_metrics
    from infra.data.postgres import verify as postgres_verify

    if keep < 0:
        raise PlatformError("USAGE", f"--keep {keep} is less than 0", steps=("invoke db.backup --keep 7",))
    server, target = _server(context), _target(context, to)
    with events(context, json_stream) as event, store.locked(target, context.console.command):
        order = postgres_backup.BackupOrder(target, words(database), fence, words(skip_database))
        made = postgres_backup.backup(server, context.console, order, event)
        event("published", {"path": str(made.path)})
        checked = postgres_verify.verify(server, made, context.stack.scratch, event) if verify else None
        removed, why = store.prune(postgres_backups.listing(target), keep) if keep else ([], "")
        postgres_metrics.write(context, target)
        _warn_of_left_over(context, server)
        if why:
            context.console.say(f"  {why}")
        return ended(context, event, _made(context, made, checked, [str(b.path) for b in removed]))


def _elsewhere(context: Context, target: Path) -> tuple[str, ...]:
    return () if target == _target(context, "") else ("--to", str(target))


def _made(context: Context, made: Backup, checked: Any, removed: list[str]) -> Answer:
    from infra.shell import typed

    facts = made.facts
    fence = facts["snapshots"]["fence"]
    missed = fence["asked"] and not fence["held"]
    if missed:
        context.console.warn(
            f"no fence: {fence['why_not']}; the snapshots are {facts['snapshots']['window_ms']} ms apart"
        )
    partial = _warn_of_missing(context, made, checked) or missed
    if not facts["role_passwords"]:
        context.console.warn("the roles are saved without passwords: only a superuser can read them")
    data = {
        "path": str(made.path),
        "bytes": made.size,
        "seconds": facts["seconds"],
        "databases": _rows(made),
        "leftOut": facts["left_out"],
        "absent": facts["absent"],
        "snapshots": facts["snapshots"],
        "verified": vars(checked) if checked else None,
        "removed": removed,
    }
    raw = sum(int(t["bytes"]) for d in facts["databases"].values() for t in d["tables"].values())
    seconds = max(float(facts["seconds"]), 1e-3)
    lines = [
        f"{made.path}",
        f"{human_bytes(raw)} of rows in {human_seconds(seconds)} ({human_bytes(raw / seconds)}/s), "
        f"{human_bytes(made.size)} on disk",
        _words(checked),
        *(f"removed: {path}" for path in removed),
        f"Next: {typed('invoke', 'db.list' if checked else 'db.verify', *_elsewhere(context, made.path.parent))}",
    ]
    code = ExitCode.PARTIAL if partial else ExitCode.OK
    said = tuple(line for line in lines if line)
    return Answer(data, _contents(data["databases"]), said, names=(str(made.path),), exit=int(code))


def _warn_of_missing(context: Context, made: Backup, checked: Any) -> bool:
    """Name what is not in a backup, or could not be restored from it; whether there is any that nobody asked for."""
    from infra.data.postgres.facts import SKIPPED

    said = [f"{name} is not in the backup: {why}" for name, why in made.facts["left_out"].items() if why != SKIPPED]
    said += [f"the platform's database {name} is not there: invoke db.init makes it" for name in made.facts["absent"]]
    said += [
        f"{name} is in the backup, but not verified: {why}" for name, why in (checked.failed if checked else {}).items()
    ]
    for text in said:
        context.console.warn(printable(text))
    return bool(said)


def _contents(databases: Mapping[str, Mapping[str, Any]]) -> Table:
    rows = tuple((printable(name), str(d["tables"]), str(d["rows"])) for name, d in databases.items())
    return Table(("DATABASE", "TABLES", "ROWS"), rows)


def _words(checked: Any) -> str:
    if not checked:
        return ""
    spent = f"loaded in {human_seconds(checked.load_seconds)}, compared in {human_seconds(checked.check_seconds)}"
    return f"verified{', but for ' + printable(', '.join(checked.failed)) if checked.failed else ''}: {spent}"


def _rows(made: Backup) -> dict[str, Any]:
    return {
        name: {"tables": len(d["tables"]), "rows": sum(int(t["rows"]) for t in d["tables"].values())}
        for name, d in made.facts["databases"].items()
    }


@command("list", log=False, help={"to": TARGET})
def list_(context: Context, to: str = "") -> Answer:
    """List the backups, newest last; broken ones are marked.

    Example: invoke db.list
    """
    from infra.data import store
    from infra.data.postgres import backups as postgres_backups

    target = _target(context, to)
    if to:
        store.require_place(target)
    found = postgres_backups.listing(target)
    data = [_listed(context, b) for b in found]
    rows = tuple(
        (b.path.name, _age(b), human_bytes(b.size), _state(b), d["maker"] or "", printable(", ".join(d["databases"])))
        for b, d in zip(found, data, strict=True)
    )
    broken = tuple(f"{b.path.name}: {printable(b.problem)}" for b in found if b.problem)
    lines = broken if found else (f"no backups in {target}; create one: invoke db.backup --verify",)
    heading = ("BACKUP", "AGE", "SIZE", "STATE", "MADE", "DATABASES")
    return Answer(data, Table(heading, rows), lines, names=tuple(b.path.name for b in found if not b.problem))


def _listed(context: Context, found: Backup) -> dict[str, Any]:
    from infra.data import maker

    return {
        "path": str(found.path),
        "sequence": found.sequence,
        "created": found.created,
        "bytes": found.size,
        "verified": found.verified,
        "problem": found.problem or None,
        "maker": None if found.problem else maker.of(context.stack.home, found),
        "databases": [] if found.problem else list(found.facts["databases"]),
    }


def _state(found: Backup) -> str:
    return "BROKEN" if found.problem else "verified" if found.verified else "not verified"


def _age(found: Backup) -> str:
    from infra.data.postgres import backups as postgres_backups

    made = postgres_backups.created(found)
    return human_seconds(max(0.0, time.time() - made)) if made and not found.problem else "?"


@command(tier=ANY, help={"from_": FROM, "to": TARGET, "trust": TRUST_VERIFIED, "json_stream": STREAM})
def verify(
    context: Context, from_: str = "latest", to: str = "", trust: bool = False, json_stream: bool = False
) -> Answer:
    """Check the files of a backup, restore it into scratch databases and compare.

    Example: invoke db.verify --from latest
    """
    from infra.data import maker, store
    from infra.data.postgres import backups as postgres_backups
    from infra.data.postgres import metrics as postgres_metrics
    from infra.data.postgres import verify as postgres_verify
    from infra.shell import typed

    found = postgres_backups.find(_target(context, to), from_)
    server = _server(context, postgres_verify.client_needed(found))
    with events(context, json_stream) as event, store.locked(found.path.parent, context.console.command):
        trusted = trust or maker.of(context.stack.home, found) == maker.HERE
        done = postgres_verify.verify(server, found, context.stack.scratch, event, trusted)
        postgres_metrics.write(context, found.path.parent)
        _warn_of_left_over(context, server)
        name = named(found.path, _target(context, ""))
        lines = (str(found.path), _words(done), f"Next: {typed('invoke', 'db.restore', '--from', name)}")
        for database, why in done.failed.items():
            context.console.warn(printable(f"{database} could not be verified: {why}"))
        for text in postgres_verify.exceptions(done):
            context.console.warn(printable(text))
        code = ExitCode.PARTIAL if done.failed or done.unchecked else ExitCode.OK
        answer = Answer({"path": str(found.path), **vars(done)}, _contents(done.databases), lines, exit=int(code))
        return ended(context, event, answer)


@command(help={"keep": "number of verified backups to keep", "to": TARGET, "yes": "skip the confirmation prompt"})
def prune(context: Context, keep: int = 7, to: str = "", yes: bool = False) -> Answer:
    """Remove old backups, keeping the given number of verified ones.

    Example: invoke db.prune --keep 7 --yes
    """
    from infra.data import store
    from infra.data.postgres import backups as postgres_backups
    from infra.data.postgres import metrics as postgres_metrics

    if keep < 1:
        raise PlatformError("USAGE", f"--keep {keep} is less than 1", steps=("invoke db.prune --keep 7",))
    target = _target(context, to)
    with store.locked(target, context.console.command):
        doomed, why = store.prunable(postgres_backups.listing(target), keep)
        if not doomed:
            return Answer({"removed": [], "why": why}, lines=(why or "nothing to remove",))
        plan = ["This permanently deletes:", *(f"  {b.path.name}  {human_bytes(b.size)}" for b in doomed)]
        confirm(context, plan, yes)
        removed, _ = store.prune(postgres_backups.listing(target), keep)
        postgres_metrics.write(context, target)
    names = tuple(b.path.name for b in removed)
    return Answer({"removed": [str(b.path) for b in removed], "why": why}, lines=(f"removed: {', '.join(names)}",))


@command(tier=ANY, log=False, help={"database": "database to open"})
def shell(context: Context, database: str = "platform") -> Answer | None:
    """Open psql on a database.

    Example: invoke db.shell --database users
    """
    from infra.data.postgres import clients as postgres_clients
    from infra.data.postgres import dump as postgres_dump

    server = _server(context)
    program = server.clients.program("psql")
    if not os.path.isfile(program):
        raise PlatformError("PROGRAM_MISSING", f"there is no psql in {server.clients.directory}")
    env = {k: v for k, v in postgres_clients.login(server).items() if k not in ("PGOPTIONS", "LC_ALL")}
    code = subprocess.call([program, postgres_dump.quoted(database)], env=env)
    return Answer(None, exit=code) if code else None


@command(tier=ANY)
def init(context: Context) -> Answer:
    """Create the platform's missing databases; existing ones are not changed.

    Example: invoke db.init
    """
    from infra import tier_choice
    from infra.provision import ensure

    made = ensure.databases(tier_choice.running_endpoints(context))
    text = f"created: {', '.join(made)}" if made else "all databases exist"
    return Answer({"made": made}, lines=(text,), names=tuple(made))


@command(tier=ANY, log=False)
def databases(context: Context) -> Answer:
    """List the databases of the server, with their sizes.

    Example: invoke db.databases
    """
    from infra import database, tier_choice

    ends = tier_choice.running_endpoints(context)
    query = "select datname, pg_database_size(oid) from pg_database where not datistemplate order by datname"
    with database.session(ends.database_url("postgres"), "list the databases", name="platform-db") as link:
        found = [(str(name), int(size)) for name, size in link.execute(query)]
    data = [{"database": name, "size": size} for name, size in found]
    rows = tuple((name, human_bytes(size)) for name, size in found)
    return Answer(data, Table(("DATABASE", "SIZE"), rows), names=tuple(name for name, _ in found))


TASKS = (backup, list_, verify, db_restore.restore, prune, shell, init, databases, db_upgrade.upgrade)
