"""Verify a backup: every file's SHA-256, then a real restore into scratch databases and a comparison."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infra import stack
from infra.data import store
from infra.data.postgres import clients, copies, needs, reasons, scratch
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
    """

    at: float
    load_seconds: float
    check_seconds: float
    databases: Mapping[str, Mapping[str, Any]]
    failed: Mapping[str, str] = field(default_factory=dict)


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


def _anybody() -> None:
    """Allow it without a question: it was made by this run."""


def verify(
    server: Server, backup: Backup, work: Path, event: Event = silent, permit: Callable[[], None] = _anybody
) -> Verified:
    """Verify a backup and note the outcome beside its manifest; the caller holds the lock of its target.

    One database that cannot be restored does not end the work on the others; the backup then does not count as
    verified.

    Args:
        server: where the scratch databases are made.
        backup: a whole backup.
        work: directory for unpacked files.
        event: gets what happens.
        permit: is asked once the files are whole, before any of them is run; raises where it must not be.

    Raises:
        PlatformError: what `permit` raises; BACKUP_DAMAGED naming the file; RESTORE_DIFFERS,
            BACKUP_FAILED, DATA_INCOMPATIBLE when none of its databases can be restored; LOCKED, UNREACHABLE.
    """
    check_versions(backup, server)
    try:
        store.check_files(backup)
        event("files", {"checked": len(backup.files), "bytes": backup.size})
        permit()
        found, failed = _restored(server, backup, work, event)
        if not found:
            raise next(iter(failed.values()))
    except PlatformError as error:
        if error.code in ("BACKUP_DAMAGED", "RESTORE_DIFFERS"):
            (backup.path / VERIFIED).unlink(missing_ok=True)
        raise
    return _noted(backup, found, failed)


def _restored(
    server: Server, backup: Backup, work: Path, event: Event
) -> tuple[dict[str, Loaded], dict[str, PlatformError]]:
    """Fill one scratch database after the other, so that there is never more than one copy."""
    entries, when = backup.facts["databases"], scratch.stamp()
    roles = postgres_roles.needed(postgres_roles.saved(backup), entries.values())
    found: dict[str, Loaded] = {}
    lacking = {name: there.missing for name, there in needs.lacking(server, entries).items() if there.missing}
    failed = {name: needs.refusal({name: what}, backup.path) for name, what in lacking.items()}
    with scratch.alone(server, "db.verify") as link, scratch.workspace(work) as space, postgres_roles.lent(link, roles):
        for database in (name for name in entries if name not in failed):
            name, children = scratch.named(database, "check", when), Children()
            try:
                order = LoadOrder(server, backup, {database: name}, Room(space), children)
                found[database] = copies.loaded(order)
            except PlatformError as error:
                if not reasons.of_one(error):
                    raise
                failed[database] = error
                event("failed", {"database": database, "code": error.code, "why": error.why})
                continue
            finally:
                children.stop()
                scratch.dropped(server, link, name)
            seconds = found[database].load_seconds + found[database].check_seconds
            event("verified", {"database": database, "seconds": round(seconds, 3)})
    return found, failed


def _noted(backup: Backup, found: Mapping[str, Loaded], failed: Mapping[str, PlatformError]) -> Verified:
    databases = {name: copies.contents(loaded.archives[name]) for name, loaded in found.items()}
    load = round(sum(x.load_seconds for x in found.values()), 3)
    check = round(sum(x.check_seconds for x in found.values()), 3)
    made = Verified(time.time(), load, check, databases, {n: reasons.in_words(e) for n, e in failed.items()})
    if failed:
        (backup.path / VERIFIED).unlink(missing_ok=True)
        return made
    try:
        stack.write_atomic(backup.path / VERIFIED, json.dumps(vars(made), indent=1) + "\n", mode=0o600)
    except OSError as error:
        raise store.no_space_or_access(backup.path, error) from error
    return made
