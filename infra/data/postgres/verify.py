"""Verify a backup: every file's SHA-256, then a real restore into scratch databases and a comparison."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infra import stack
from infra.data import maker, store
from infra.data.postgres import clients, copies, guest, needs, reasons, scratch
from infra.data.postgres import roles as postgres_roles
from infra.data.postgres.backup import Event, silent
from infra.data.postgres.children import Children
from infra.data.postgres.clients import Server
from infra.data.postgres.copies import Loaded
from infra.data.postgres.load import LoadOrder, Room
from infra.data.store import Backup
from infra.errors import PlatformError

VERIFIED = "verified.json"


@dataclass(frozen=True)
class Verified:
    """The outcome of a verification; seconds to load and to compare, and when (seconds since 1970).

    `failed`: the databases that could not be restored here, or came out different, with the reason and what helps.
    `guest`: whether a login without rights has loaded them, so that owners and rights were not compared; `unchecked`:
    what was not loaded for that reason.
    """

    at: float
    load_seconds: float
    check_seconds: float
    databases: Mapping[str, Mapping[str, Any]]
    failed: Mapping[str, str] = field(default_factory=dict)
    guest: bool = False
    unchecked: Mapping[str, Sequence[str]] = field(default_factory=dict)


def exceptions(done: Verified) -> list[str]:
    """Return in words what was not verified of databases that were."""
    if not done.guest:
        return []
    said = ["made elsewhere: loaded without the rights of a superuser; owners and rights were not compared"]
    return said + [
        f"{name} is verified except for what only a superuser can create: {', '.join(what[:10])}"
        + (f" and {len(what) - 10} more" if len(what) > 10 else "")
        for name, what in done.unchecked.items()
    ]


def check_versions(backup: Backup, server: Server) -> None:
    """Refuse data of a newer major version than the server's; nothing is opened before.

    Raises:
        PlatformError: DATA_INCOMPATIBLE with both versions, BACKUP_DAMAGED.
    """
    made_by = int(backup.facts.get("server", {}).get("number", 0))
    if made_by // 10000 <= server.number // 10000:
        _check_clients(server)
        return
    ours, theirs = clients.version_text(server.number), clients.version_text(made_by)
    raise PlatformError(
        "DATA_INCOMPATIBLE",
        f"the backup was made by PostgreSQL {theirs}, the server is PostgreSQL {ours}",
        why="data can only be restored to the same or a newer major version; nothing was changed",
        steps=(f"restore it to PostgreSQL {made_by // 10000} or newer",),
        details={"backup": theirs, "server": ours, "path": str(backup.path)},
    )


def _check_clients(server: Server) -> None:
    """Refuse pg_restore from 17 on for a server before 17: it sets a parameter that such a server does not know."""
    if server.clients.number < 170000 or server.number >= 170000:
        return
    ours, theirs = clients.version_text(server.number), clients.version_text(server.clients.number)
    raise PlatformError(
        "DATA_INCOMPATIBLE",
        f"pg_restore {theirs} cannot restore to a PostgreSQL {ours} server",
        why="since version 17 it sets transaction_timeout, which older servers do not support; nothing was changed",
        steps=(
            f"install the client programs of PostgreSQL {server.number // 10000} and make the backup with them",
            "or restore it to PostgreSQL 17 or newer",
        ),
        details={"client": theirs, "server": ours},
    )


def client_needed(backup: Backup) -> int:
    """Return the version of the client programs that can read a backup."""
    return int(backup.facts.get("client", {}).get("number", 0))


def verify(server: Server, backup: Backup, work: Path, event: Event = silent, trusted: bool = True) -> Verified:
    """Verify a backup and note the outcome beside its manifest; the caller holds the lock of its target.

    One database that cannot be restored does not end the work on the others; the backup then does not count as
    verified.

    Args:
        server: where the scratch databases are made.
        backup: a whole backup.
        work: directory for unpacked files.
        event: gets what happens.
        trusted: whether its SQL may run with the rights of the server's login; else a guest loads it.

    Raises:
        PlatformError: TRUST_NEEDED where it is not trusted and the login cannot make a guest, or a guest cannot load
            any of it; BACKUP_DAMAGED naming the file; RESTORE_DIFFERS, BACKUP_FAILED, DATA_INCOMPATIBLE when none of
            its databases can be restored; LOCKED, UNREACHABLE.
    """
    check_versions(backup, server)
    try:
        store.check_files(backup)
        event("files", {"checked": len(backup.files), "bytes": backup.size})
        if not trusted and not server.superuser:
            raise _no_guest(server, backup)
        made = _restored(server, backup, work, event, trusted)
    except PlatformError as error:
        if error.code in ("BACKUP_DAMAGED", "RESTORE_DIFFERS"):
            (backup.path / VERIFIED).unlink(missing_ok=True)
        raise
    return _noted(backup, made)


def _no_guest(server: Server, backup: Backup) -> PlatformError:
    return PlatformError(
        "TRUST_NEEDED",
        f"{backup.path} was made elsewhere, and {server.who} cannot create a login without rights to verify it with",
        why=maker.MEANS["db"],
        steps=("if you trust who made it: the same command with --trust", "see docs/backup.md, Trust"),
        details={"path": str(backup.path), "maker": maker.ELSEWHERE},
    )


@dataclass
class _Outcome:
    """The databases that were loaded, those that were not, and what a guest has left out."""

    found: dict[str, Loaded] = field(default_factory=dict)
    failed: dict[str, PlatformError] = field(default_factory=dict)
    guest: bool = False
    unchecked: dict[str, list[str]] = field(default_factory=dict)


def _restored(server: Server, backup: Backup, work: Path, event: Event, trusted: bool) -> _Outcome:
    """Fill one scratch database after the other, so that there is never more than one copy.

    Raises:
        PlatformError: the reason of the first database when none could be loaded.
    """
    entries, saved = backup.facts["databases"], postgres_roles.saved(backup)
    lacking = {name: there.missing for name, there in needs.lacking(server, entries).items() if there.missing}
    made = _Outcome(failed={name: needs.refusal({name: what}, backup.path) for name, what in lacking.items()})
    with scratch.alone(server, "db.verify") as link, scratch.workspace(work) as space:
        lent = postgres_roles.lent(link, postgres_roles.needed(saved, entries.values()), trusted)
        with lent, contextlib.nullcontext() if trusted else guest.logged_in(server, link, saved) as login:
            for database in (name for name in entries if name not in made.failed):
                name = scratch.named(database, "check", scratch.stamp())
                order = LoadOrder(server, backup, {database: name}, Room(space), Children(), guest=login)
                try:
                    _one(order, database, made, event)
                finally:
                    order.children.stop()
                    scratch.dropped(server, link, name)
            made.guest = login is not None
    if not made.found:
        raise next(iter(made.failed.values()))
    return made


def _one(order: LoadOrder, database: str, made: _Outcome, event: Event) -> None:
    try:
        found = copies.loaded(order)
    except PlatformError as error:
        if not reasons.of_one(error):
            raise
        made.failed[database] = error
        event("failed", {"database": database, "code": error.code, "why": error.why})
        return
    made.found[database] = found
    if order.guest and (left_out := guest.unchecked(order.guest, database)):
        made.unchecked[database] = left_out
    event("verified", {"database": database, "seconds": round(found.load_seconds + found.check_seconds, 3)})


def _noted(backup: Backup, outcome: _Outcome) -> Verified:
    found = outcome.found
    databases = {name: copies.contents(loaded.archives[name]) for name, loaded in found.items()}
    load = round(sum(x.load_seconds for x in found.values()), 3)
    check = round(sum(x.check_seconds for x in found.values()), 3)
    failed = {n: reasons.in_words(e) for n, e in outcome.failed.items()}
    made = Verified(time.time(), load, check, databases, failed, outcome.guest, outcome.unchecked)
    if failed:
        (backup.path / VERIFIED).unlink(missing_ok=True)
        return made
    try:
        stack.write_atomic(backup.path / VERIFIED, json.dumps(vars(made), indent=1) + "\n", mode=0o600)
    except OSError as error:
        raise store.no_space_or_access(backup.path, error) from error
    return made
