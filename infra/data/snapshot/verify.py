"""Verify a snapshot: databases restored and compared, objects read, keys taken by Redis, Temporal's file checked."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra import stack
from infra.data import redis_dump, store, temporal_file
from infra.data.objects import records as objects_records
from infra.data.objects import verify as objects_verify
from infra.data.postgres import backups as postgres_backups
from infra.data.postgres import clients as postgres_clients
from infra.data.postgres import verify as postgres_verify
from infra.data.postgres.backup import Event, silent
from infra.data.postgres.verify import Verified
from infra.data.store import Backup
from infra.endpoints import Endpoints
from infra.errors import PlatformError

if TYPE_CHECKING:
    from infra.context import Context


VERIFIED = "verified.json"
_POINTERS = """
select weights from public.jobs where weights is not null union select report from public.jobs where report is not null
"""


def referenced(ends: Endpoints, exported: str) -> list[str]:
    """Return the objects (bucket/key) that rows of trainings point at, as of an exported snapshot of `platform`."""
    with postgres_clients.connected(ends, "platform") as link, link.transaction():
        link.execute("set transaction isolation level repeatable read read only")
        link.execute(f"set transaction snapshot '{exported}'".encode())
        if not (link.execute("select to_regclass('public.jobs')").fetchone() or (None,))[0]:
            return []
        return sorted(row[0] for row in link.execute(_POINTERS))


def part(content: Path, name: str, listing: Callable[[Path], list[Backup]]) -> Backup:
    """Return the backup that is a part of a snapshot.

    Raises:
        PlatformError: BACKUP_DAMAGED when it is not there, or not whole.
    """
    found = listing(content / name)
    if not found:
        raise PlatformError("BACKUP_DAMAGED", f"{content} has no {name}", steps=("invoke snapshot.list",))
    store.require_whole(found[-1])
    return found[-1]


def databases(content: Path) -> Backup:
    """Return the databases of a snapshot."""
    return part(content, "databases", postgres_backups.listing)


def objects(content: Path) -> Backup:
    """Return the objects of a snapshot."""
    return part(content, "objects", objects_records.listing)


def check(content: Path, parts: Mapping[str, Mapping[str, Any]]) -> None:
    """Compare every file, and every object, with its SHA-256; needs no server.

    Raises:
        PlatformError: BACKUP_DAMAGED naming what differs.
    """
    if "databases" in parts:
        store.check_files(databases(content))
    if "objects" in parts:
        objects_verify.check(objects(content))
    if "temporal" in parts and parts["temporal"]["storage"] == "file":
        temporal_file.check(content / "temporal" / temporal_file.FILE, dict(parts["temporal"]))
    if "redis" in parts:
        _, keys = redis_dump.read(content / "redis" / redis_dump.KEYS)
        if sum(1 for _ in keys) != parts["redis"]["keys"]:
            raise PlatformError("BACKUP_DAMAGED", f"{content / 'redis'} has an unexpected number of keys")


def verify(
    context: Context,
    ends: Endpoints,
    content: Path,
    facts: Mapping[str, Any],
    event: Event = silent,
    trusted: bool = True,
) -> dict[str, Any]:
    """Verify all parts of an open snapshot; returns what was found, and as `failed` why databases were not restored.

    `trusted`: whether the SQL of its databases may run with all rights; see `postgres.verify.verify`.

    Raises:
        PlatformError: TRUST_NEEDED, BACKUP_DAMAGED, DATA_INCOMPATIBLE, UNREACHABLE, and PARTIAL naming the
            objects that rows point at and that the snapshot does not have.
    """
    began, parts = time.monotonic(), facts["parts"]
    check(content, parts)
    event("files", {"checked": True})
    found: dict[str, Any] = {"at": time.time(), "failed": {}, "unchecked": {}, "exceptions": []}
    if "databases" in parts:
        done = _databases(context, ends, content, event, trusted)
        found |= {"databases": dict(done.databases), "failed": dict(done.failed)}
        found |= {"unchecked": dict(done.unchecked), "exceptions": postgres_verify.exceptions(done)}
    if "redis" in parts:
        found["redis"] = {"keys": parts["redis"]["keys"], "taken": trusted}
        if trusted:
            redis_dump.verify(ends, content / "redis" / redis_dump.KEYS)
        else:  # a server trusts the inner form of what it restores
            found["exceptions"].append("made elsewhere: the keys of Redis were read, but given to no server")
    if "objects" in parts:
        found["objects"] = {"objects": parts["objects"]["objects"], "dangling": dangling(content)}
    context.console.say(f"  verified in {time.monotonic() - began:.1f} s")
    return {**found, "seconds": round(time.monotonic() - began, 3)}


def _databases(context: Context, ends: Endpoints, content: Path, event: Event, trusted: bool) -> Verified:
    saved = databases(content)
    needed = postgres_verify.client_needed(saved)
    server = postgres_clients.find_server(ends, context.settings, needed)
    return postgres_verify.verify(server, saved, context.stack.scratch, event, trusted)


def dangling(content: Path) -> list[str]:
    """Return the objects that rows of trainings point at and that the snapshot does not have."""
    path = content / "references.json"
    wanted = set(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else set()
    if wanted:
        for record in objects_records.reading(objects(content)):
            if objects_records.is_current(record):
                wanted.discard(f"{record['bucket']}/{record['key']}")
    return sorted(wanted)


def mark(backup: Backup, found: Mapping[str, Any]) -> None:
    """Note the outcome beside the manifest."""
    try:
        stack.write_atomic(backup.path / VERIFIED, json.dumps(found, indent=1) + "\n", mode=0o600)
    except OSError as error:
        raise store.no_space_or_access(backup.path, error) from error


def unmark(backup: Backup) -> None:
    """Take the mark away: it was found damaged."""
    path = backup.path / VERIFIED
    if path.is_file():
        os.unlink(path)
