"""Snapshots of the whole platform: databases, objects, Redis and Temporal below one manifest.

`<target>/<sequence>-<utc>/content/` holds each part as the part's own backup: `databases/` (as `db.backup` makes it),
`objects/` (as `minio.backup`), `redis/` (an RDB and each key), `temporal/` (its file, where that is its storage).
An encrypted snapshot has one file instead, `content.tar.age`. The manifest lists every file with its SHA-256, or the
file that lists it: objects stand in their own `manifest.jsonl`. The databases come first, and the objects after them,
so that no row points at an object that is not there.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from infra import catalog
from infra.context import Context
from infra.data import redis_dump, store, temporal_file
from infra.data.objects import backup as objects_backup
from infra.data.objects import login as objects_login
from infra.data.objects import records as objects_records
from infra.data.objects.client import Client
from infra.data.postgres import backup as postgres_backup
from infra.data.postgres import backups as postgres_backups
from infra.data.postgres import clients as postgres_clients
from infra.data.postgres import needs as postgres_needs
from infra.data.postgres.backup import Event, silent
from infra.data.postgres.snapshot import Snapshots
from infra.data.snapshot import age, manifest
from infra.data.snapshot import verify as snapshot_verify
from infra.data.store import Backup, Draft, File
from infra.endpoints import Endpoints
from infra.errors import PlatformError
from infra.stack import Stack
from infra.tiers.base import TemporalStorage, Tier

KIND = "snapshot"
COPIED: Mapping[str, str] = {
    "postgres": "databases",
    **dict.fromkeys(catalog.EXTERNAL_STORES, "objects"),
    "redis": "redis",
    "temporal": "temporal",
}
"""Service of the catalogue -> the part of a snapshot that holds its data."""
PARTS = tuple(dict.fromkeys(COPIED.values()))
CONTENT, SEALED = "content", "content.tar.age"
REFERENCES = "references.json"
TEMPORAL_DATABASES = ("temporal", "temporal_visibility")


@dataclass(frozen=True)
class SnapshotOrder:
    """The parts and options of a snapshot to make.

    `label` is its name for people ('' for none), `recipients` those whom it is encrypted for (age or SSH public keys;
    none: not encrypted), `why` is noted when it was made on the way to something else; `skipped` are databases that
    are left out.
    """

    target: Path
    label: str = ""
    parts: tuple[str, ...] = PARTS
    fence: bool = False
    verify: bool = True
    recipients: tuple[str, ...] = ()
    why: str = ""
    skipped: tuple[str, ...] = ()


@dataclass
class _Making:
    """A snapshot while it is made."""

    tier: Tier
    ends: Endpoints
    order: SnapshotOrder
    content: Path
    event: Event
    parts: dict[str, dict[str, Any]] = field(default_factory=dict)
    quiesce: list[dict[str, Any]] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)

    @property
    def context(self) -> Context:
        """Settings, directories, console."""
        return self.tier.context

    def mark(self, part: str, **facts: object) -> None:
        """Note as of when a part is."""
        self.quiesce.append({"part": part, "at": now(), **facts})
        self.event("part", {"part": part, **facts})
        self.context.console.say(f"  {part}: as of {self.quiesce[-1]['at']}")

    def directory(self, part: str) -> Path:
        """Create a private directory for a part."""
        path = self.content / part
        path.mkdir(mode=0o700)
        return path


def now() -> str:
    """Return the current time, UTC to the millisecond."""
    seconds = time.time()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{int(seconds * 1000) % 1000:03d}Z"


def default_target(home: Stack) -> Path:
    """Return the default directory for snapshots."""
    return home.home / "snapshots"


def keep(tier: Tier, label: str, why: str, parts: Sequence[str] = PARTS) -> Backup:
    """Snapshot a running platform, verified, before something of it is removed; `snapshot.restore` brings it back.

    Where the label is taken it gets a number.

    Raises:
        PlatformError: whatever kept it from being made; then nothing must be removed.
    """
    target = default_target(tier.context.stack)
    taken = {b.facts.get("label") for b in listing(target)}
    free = next(name for n in itertools.count(1) if (name := label if n == 1 else f"{label}-{n}") not in taken)
    order = SnapshotOrder(target, free, tuple(parts), why=why)
    made = create(tier, order)
    missing = manifest.missing(made.facts)
    if missing:
        steps = (f"see to it; what is in the snapshot: invoke snapshot.show {made.path.name}",)
        raise PlatformError("PARTIAL", "the snapshot does not have everything", why="; ".join(missing), steps=steps)
    return made


def create(tier: Tier, order: SnapshotOrder, event: Event = silent) -> Backup:
    """Make a snapshot, verify it, publish it.

    Args:
        tier: a tier that runs.
        order: what it is to hold.
        event: gets what happens.

    Raises:
        PlatformError: LOCKED, USAGE for a label that is taken, and what its parts raise; nothing is published then.
    """
    began, ends = time.monotonic(), tier.endpoints()
    recipients = age.recipients(order.recipients)
    with store.locked(order.target, "snapshot.create"):
        refuse_taken(order)
        with store.publishing(order.target, KIND) as (draft, facts):
            making = _Making(tier, ends, order, draft.directory / CONTENT, event)
            making.content.mkdir(mode=0o700)
            _fill(making)
            facts |= _facts(making)
            if order.verify:
                facts["verified"] = snapshot_verify.verify(tier.context, ends, making.content, facts, event)
            seal(draft, making.content, recipients)
            facts |= {"recipients": list(order.recipients), "seconds": round(time.monotonic() - began, 3)}
        made = store.load(Path(facts["path"]))
        if order.verify and not facts["verified"]["failed"]:
            snapshot_verify.mark(made, facts["verified"])
    return made


def refuse_taken(order: SnapshotOrder) -> None:
    """Refuse a label that another snapshot has, or that would be taken for something else."""
    taken = {b.facts.get("label") for b in listing(order.target)} | {"latest"}
    if order.label and (order.label in taken or "/" in order.label or order.label.startswith((".", "-"))):
        raise PlatformError(
            "USAGE",
            f"a snapshot cannot be named {order.label!r}",
            why="the name is taken, or is not a plain name",
            steps=("choose another name", "invoke snapshot.list"),
        )


def _fill(making: _Making) -> None:
    """Make all parts: first the databases; Redis and Temporal while their snapshots are held; then the objects."""
    if "databases" in making.order.parts:
        _databases(making)
    else:
        _while_held(making)
    if "objects" in making.order.parts:
        _objects(making)
    if "temporal" in making.order.parts and "temporal" not in making.parts and "temporal" in making.ends.services:
        making.left_out["temporal"] = "its storage is a file in a container, which cannot be reached over the network"


def _databases(making: _Making) -> None:
    server = postgres_clients.find_server(making.ends, making.context.settings)
    target = making.directory("databases")

    def held(taken: Snapshots) -> None:
        facts = taken.facts(making.order.fence)
        making.mark("databases", lsn={name: s.lsn for name, s in taken.of.items()}, **facts)
        note_references(making.ends, making.content, taken)
        _while_held(making)

    order = postgres_backup.BackupOrder(target, (), making.order.fence, making.order.skipped, held=held)
    made = postgres_backup.backup(server, making.context.console, order, making.event)
    making.parts["databases"] = databases_part(made)
    databases = making.parts["databases"]["databases"]
    if "temporal" in making.order.parts and TEMPORAL_DATABASES[0] in databases and _in_databases(making):
        making.parts["temporal"] = {"storage": "databases"}


def databases_part(made: Backup) -> dict[str, Any]:
    """Return what a snapshot's manifest says of the databases in it."""
    databases = {
        name: {"tables": len(d["tables"]), "rows": sum(int(t["rows"]) for t in d["tables"].values())}
        | {key: d[key] for key in postgres_needs.IN_A_SNAPSHOT}
        for name, d in made.facts["databases"].items()
    }
    facts = {k: made.facts[k] for k in ("server", "client", "snapshots", "left_out", "absent")}
    return {"databases": databases, "bytes": made.size, **facts}


def _in_databases(making: _Making) -> bool:
    """Return whether Temporal uses its databases: with the development server they exist, too, but stay empty."""
    return making.tier.temporal_storage == TemporalStorage.DATABASES


def note_references(ends: Endpoints, content: Path, taken: Snapshots) -> None:
    """Note the objects that rows point at, as of the snapshot of the database."""
    found = snapshot_verify.referenced(ends, taken.of["platform"].id) if "platform" in taken.of else []
    store.write_private(content / REFERENCES, json.dumps(found) + "\n")


def _while_held(making: _Making) -> None:
    if "redis" in making.order.parts:
        facts = redis_dump.save(making.ends, making.directory("redis"))
        making.parts["redis"] = facts
        making.mark("redis", offset=facts["offset"], keys=facts["keys"])
    source = temporal_file.storage(making.tier)
    if "temporal" in making.order.parts and source is not None:
        facts = temporal_file.copy(source, making.directory("temporal") / temporal_file.FILE)
        making.parts["temporal"] = {"storage": "file", **facts}
        making.mark("temporal", rows=sum(facts["rows"].values()))


def _objects(making: _Making) -> None:
    logins = [objects_login.login_of(making.ends, name) for name in objects_login.STORES]
    tally = objects_backup.Tally(tick=_ticking(making))
    with objects_backup.connected(logins) as clients:
        known = seeds(making.context.stack, making.order)
        making.parts["objects"] = objects_part(clients, making.directory("objects"), tally, known)
    making.mark("objects", objects=tally.objects)


def objects_part(
    clients: Mapping[str, Client], target: Path, tally: objects_backup.Tally, known: Sequence[Path]
) -> dict[str, Any]:
    """Copy all buckets into a new directory; what a snapshot's manifest says of them.

    Args:
        known: backups whose contents need not be read again.

    Raises:
        PlatformError: BACKUP_FAILED, UNREACHABLE, LOGIN_REFUSED.
    """
    found = objects_backup.sources(clients, (), [])
    made = objects_backup.backup(clients, target, found, False, tally, known)
    if tally.failed:
        what = f"{len(tally.failed)} objects could not be read"
        raise PlatformError("BACKUP_FAILED", what, why="\n        ".join(tally.failed[:20]), steps=("invoke status",))
    return {**{k: made.facts[k] for k in ("buckets", "objects", "bytes", "gone")}, "read": tally.new}


def _ticking(making: _Making) -> Any:
    progress = postgres_backup.ByteProgress(making.context.console, making.event, "objects")

    def tick(tally: objects_backup.Tally) -> None:
        progress.add(tally.read - progress.done)

    return tick


def seeds(home: Stack, order: SnapshotOrder) -> list[Path]:
    """Return backups whose contents need not be read again: the newest unencrypted snapshot, and `minio.backup`."""
    past = [b.path / CONTENT / "objects" for b in reversed(listing(order.target)) if not b.problem]
    opened = [path for path in past if path.is_dir()][:1]
    plain = objects_records.default_target(home)
    return [*opened, *([plain] if plain.is_dir() else [])]


def _facts(making: _Making) -> dict[str, Any]:
    order = making.order
    head = {"label": order.label, "why": order.why, "tier": making.tier.name, "stack": making.context.stack.name}
    return {**head, "parts": making.parts, "leftOut": making.left_out, "quiesce": making.quiesce}


def seal(draft: Draft, content: Path, recipients: Sequence[Any]) -> None:
    """Note every file of the content, or put all of it into one encrypted file."""
    if recipients:
        age.seal(content, draft.directory / SEALED, recipients)
        draft.add(SEALED)
        shutil.rmtree(content)
        return
    for path, known in _files(content):
        name = path.relative_to(draft.directory).as_posix()
        if known is None:
            draft.add(name)
        else:
            draft.files.append(replace(known, path=name))


def _files(content: Path) -> Iterator[tuple[Path, File | None]]:
    """Yield every file of a content, but for objects' contents; with what its own manifest says of it."""
    known: dict[Path, File] = {}
    for kind, part in ((postgres_backups.KIND, "databases"), (objects_records.KIND, "objects")):
        for backup in store.catalogue(content / part, kind):
            known |= {backup.path / file.path: file for file in backup.files}
    pool = content / "objects" / "objects"
    for directory, names, files in os.walk(content):
        if Path(directory) == pool:
            names.clear()
            continue
        for name in sorted(files):
            if name != snapshot_verify.VERIFIED:
                yield Path(directory) / name, known.get(Path(directory) / name)


def listing(target: Path) -> list[Backup]:
    """Return every snapshot in a target, oldest first, broken ones with their problem."""
    return [manifest.judged(b) for b in store.catalogue(target, KIND)]


def find(target: Path, wanted: str) -> Backup:
    """Return a snapshot by its name, its directory's name or path, or `latest` (of those that were asked for).

    Raises:
        PlatformError: NOT_FOUND, or BACKUP_DAMAGED when it is broken.
    """
    found = listing(target)
    if wanted in ("", "latest"):
        matching = [b for b in found if not b.problem and not b.facts.get("why")]
    else:
        matching = [b for b in found if wanted in (b.path.name, b.facts.get("label"))]
        path = Path(wanted).expanduser()
        if not matching and path.is_dir() and not path.is_symlink():
            matching = [store.load(path.absolute())]
    matching = [manifest.judged(b) if b.kind == KIND else b for b in matching]
    if not matching:
        raise PlatformError(
            "NOT_FOUND", f"there is no snapshot {wanted!r} in {target}", steps=("invoke snapshot.list",)
        )
    store.require_whole(matching[-1])
    if matching[-1].kind != KIND:
        raise store.damaged(matching[-1], store.MANIFEST, f"is of the kind {matching[-1].kind!r}, not a snapshot")
    return matching[-1]


def encrypted(backup: Backup) -> bool:
    """Return whether an identity is needed to read it."""
    return bool(backup.facts.get("recipients"))
