"""Bring a snapshot back, on the tier that it is of or on another; what is there is kept first."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from infra import private, shell
from infra.console import human_bytes
from infra.context import Context
from infra.data import redis_dump, store, temporal_file, trash
from infra.data.objects import backup as objects_backup
from infra.data.objects import login as objects_login
from infra.data.objects import records as objects_records
from infra.data.objects import restore as objects_restore
from infra.data.objects.upload import Uploads
from infra.data.postgres import clients as postgres_clients
from infra.data.postgres import needs as postgres_needs
from infra.data.postgres import restore as postgres_restore
from infra.data.postgres import restore_plan as postgres_restore_plan
from infra.data.postgres import scratch as postgres_scratch
from infra.data.postgres import verify as postgres_verify
from infra.data.postgres.backup import Event, silent
from infra.data.postgres.clients import Server
from infra.data.postgres.needs import Needs
from infra.data.snapshot import age, create, manifest, verify
from infra.data.store import Backup
from infra.endpoints import Endpoints
from infra.errors import PlatformError
from infra.tiers.base import TemporalStorage, Tier


@dataclass(frozen=True)
class SnapshotPlan:
    """The plan of a restore: the parts it brings back, and those that it leaves out with the reason.

    `despite`: load what can be loaded of the databases, and take what differs.
    """

    backup: Backup
    tier: str
    parts: tuple[str, ...]
    left_out: Mapping[str, str]
    despite: bool = False

    def lines(self) -> list[str]:
        """Return the plan for people."""
        facts = self.backup.facts
        words = manifest.summary(facts["parts"])
        name = facts.get("label") or self.backup.path.name
        lines = [f"This restores the snapshot {name} of {self.backup.created} (tier {facts['tier']}) on {self.tier}:"]
        lines += [f"  {part:<10} {words[part]}; {_KEPT[part]}" for part in self.parts]
        lines += [f"  {part:<10} LEFT OUT: {reason}" for part, reason in self.left_out.items()]
        return lines


_KEPT = {
    "databases": "the current ones are kept as <name>_old_<time>",
    "objects": "what is overwritten is backed up first, other objects are kept",
    "redis": "the current keys are saved to a snapshot of their own first",
    "temporal": "the current storage is kept",
}


@dataclass
class RestoredSnapshot:
    """The outcome of a restore, by part; `way_back` names what was kept.

    `differences`: what is not as in the snapshot, by database.
    """

    parts: dict[str, Any] = field(default_factory=dict)
    way_back: dict[str, Any] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    differences: dict[str, list[str]] = field(default_factory=dict)
    seconds: float = 0.0


def plan(
    backup: Backup, tier: Tier, skip: Sequence[str] = (), only: Sequence[str] = (), despite: bool = False
) -> SnapshotPlan:
    """Decide what a restore does; nothing is touched.

    Raises:
        PlatformError: USAGE for unknown parts; NOT_FOUND for parts that the snapshot lacks; DATA_INCOMPATIBLE when a
            part cannot cross to that tier and is not skipped.
    """
    held = tuple(p for p in create.PARTS if p in backup.facts["parts"])
    unknown = [name for name in (*skip, *only) if name not in create.PARTS]
    if unknown:
        steps = (f"the parts are: {', '.join(create.PARTS)}",)
        raise PlatformError("USAGE", f"{unknown[0]!r} is not a part of a snapshot", steps=steps)
    missing = [name for name in only if name not in held]
    if missing:
        raise PlatformError(
            "NOT_FOUND", f"the snapshot has no {missing[0]}", steps=(f"it contains: {', '.join(held)}",)
        )
    wanted = [p for p in held if not only or p in only]
    stuck = {p: why for p in wanted if (why := _cannot_cross(p, backup.facts, tier))}
    if set(stuck) - set(skip):
        raise _stuck(backup, tier.name, {p: why for p, why in stuck.items() if p not in skip})
    left = {p: stuck.get(p, "skipped as requested") for p in wanted if p in skip}
    return SnapshotPlan(backup, tier.name, tuple(p for p in wanted if p not in skip), left, despite)


_PLACES = {
    TemporalStorage.FILE: "a file of its development server (SQLite)",
    TemporalStorage.INSIDE: "a file of its development server (SQLite) inside a container",
    TemporalStorage.DATABASES: "databases of PostgreSQL",
}


def _cannot_cross(part: str, facts: Mapping[str, Any], tier: Tier) -> str:
    """Tell why a part cannot be restored on a tier; '' when it can."""
    if part != "temporal":
        return ""
    here, there = tier.temporal_storage, facts["parts"]["temporal"]["storage"]
    if here == there:
        return ""
    shown = f"{tier.name} (light)" if here == TemporalStorage.INSIDE else tier.name
    return f"Temporal's storage is {_PLACES[there]} in the snapshot of {facts['tier']}, and {_PLACES[here]} on {shown}"


@dataclass(frozen=True)
class SnapshotNeeds:
    """The needs of the databases of a snapshot, against what the server of a tier has.

    `left_out` are databases that it cannot take, with what it lacks; `notes` is what will be different.
    """

    left_out: Mapping[str, Sequence[str]] = field(default_factory=dict)
    notes: Sequence[str] = ()

    def lines(self, tier: str) -> list[str]:
        """Return it for people."""
        left_out = [f"the database {n} is LEFT OUT: {tier} lacks {', '.join(w)}" for n, w in self.left_out.items()]
        return [f"  {text}" for text in (*left_out, *self.notes)]

    def data(self) -> dict[str, Any]:
        """Return it for programs."""
        return {"leftOut": {name: list(what) for name, what in self.left_out.items()}, "notes": list(self.notes)}


def compared(tier: Tier, made: SnapshotPlan) -> SnapshotNeeds:
    """Compare what the databases ask of a server with what the tier's one has; nothing is touched.

    A tier that does not run is compared once it does, before anything of it is touched.

    Raises:
        PlatformError: DATA_INCOMPATIBLE when the server is of an older major version, or can take none of them.
    """
    held = made.backup.facts["parts"].get("databases", {})
    entries = {name: entry for name, entry in held.get("databases", {}).items() if "encoding" in entry}
    if "databases" not in made.parts or not entries:
        return SnapshotNeeds()
    if not tier.running():
        asked = {name: ", ".join(Needs.of(entry).lines()) for name, entry in entries.items()}
        return SnapshotNeeds(
            notes=[f"{n} needs {what}: compared once {tier.name} runs" for n, what in asked.items() if what]
        )
    server = postgres_clients.find_server(tier.endpoints(), tier.context.settings)
    postgres_verify.check_versions(replace(made.backup, facts=held), server)
    found = postgres_needs.lacking(server, entries)
    notes = [f"{name}: {text}" for name, f in found.items() for text in f.other]
    stuck = {name: f.missing for name, f in found.items() if f.missing}
    if made.despite:
        return SnapshotNeeds(
            notes=notes + [f"{name}: {tier.name} lacks {', '.join(what)}" for name, what in stuck.items()]
        )
    if len(stuck) == len(entries):
        raise postgres_needs.refusal(stuck, made.backup.path)
    return SnapshotNeeds(stuck, notes)


def _stuck(backup: Backup, tier: str, stuck: Mapping[str, str]) -> PlatformError:
    return PlatformError(
        "DATA_INCOMPATIBLE",
        f"{', '.join(stuck)} of the snapshot cannot be restored to the {tier} tier; nothing was changed",
        why="; ".join(stuck.values()),
        steps=(f"leave it out: add --skip {','.join(stuck)} (workflows that are running now will be gone)",),
        details={"path": str(backup.path), "stuck": dict(stuck)},
    )


@contextlib.contextmanager
def opened(context: Context, backup: Backup, identity: str) -> Iterator[Path]:
    """Open the content of a snapshot, decrypted for the block where it is encrypted; every file was checked.

    Raises:
        PlatformError: USAGE without the identity that is needed; LOGIN_REFUSED, BACKUP_DAMAGED.
    """
    store.check_files(backup)
    if not create.encrypted(backup):
        yield backup.path / create.CONTENT
        return
    if not identity:
        names = ", ".join(backup.facts["recipients"])
        steps = ("give the file with the private key: --identity FILE",)
        raise PlatformError("USAGE", "the snapshot is encrypted", why=f"for {names}", steps=steps)
    keys = age.identities(Path(identity).expanduser())
    with postgres_scratch.workspace(context.stack.scratch) as space:
        sealed = next(f for f in backup.files if f.path == create.SEALED)
        try:
            with open(store.open_file(backup, sealed), "rb") as source:
                age.unseal(source, space / create.CONTENT, keys, sealed.size)
        except OSError as error:
            raise store.no_space_or_access(space, error, backup.size) from error
        yield space / create.CONTENT


def restore(tier: Tier, made: SnapshotPlan, content: Path, event: Event = silent) -> RestoredSnapshot:
    """Carry out a plan on a running tier, whose training worker is stopped; the caller holds the stack's lock.

    Raises:
        PlatformError: what the parts raise. Each part is as before or as in the snapshot then.
    """
    began, done = time.monotonic(), RestoredSnapshot()
    verify.check(content, {p: made.backup.facts["parts"][p] for p in made.parts})
    ends = tier.endpoints()
    databases = _planned(tier.context, ends, made, content) if "databases" in made.parts else None
    if "redis" in made.parts:
        redis_dump.verify(ends, content / "redis" / redis_dump.KEYS)
        _keep_redis(tier, made, done)
    if databases:
        _databases(tier.context, *databases, done, event)
    if "redis" in made.parts:
        written, removed = redis_dump.restore(ends, content / "redis" / redis_dump.KEYS)
        done.parts["redis"] = {"keys": written, "removed": removed}
        event("restored", {"part": "redis", **done.parts["redis"]})
    _temporal(tier, made, content, done)
    if "objects" in made.parts:  # last, since the above may restart the stores, and rclone forgets metadata then
        _objects(tier.context, ends, made, content, done, event)
    done.seconds = round(time.monotonic() - began, 3)
    return done


def _keep_redis(tier: Tier, made: SnapshotPlan, done: RestoredSnapshot) -> None:
    """Make a snapshot of the present keys, from which they can be restored."""
    target = create.default_target(tier.context.stack)
    why = f"before a restore of {made.backup.path.name}"
    kept = create.create(tier, create.SnapshotOrder(target, "", ("redis",), why=why))
    done.way_back["redis"] = f"invoke snapshot.restore {kept.path.name} --yes"


def _planned(
    context: Context, ends: Endpoints, made: SnapshotPlan, content: Path
) -> tuple[Server, postgres_restore_plan.RestorePlan]:
    """Plan what is done about the databases, after a look at what the server has for them."""
    saved = verify.databases(content)
    server = postgres_clients.find_server(ends, context.settings, postgres_verify.client_needed(saved))
    skipped = () if "temporal" in made.parts else create.TEMPORAL_DATABASES
    order = postgres_restore_plan.RestoreOrder(despite=made.despite, skipped=skipped)
    todo = postgres_restore_plan.plan(server, saved, order)
    for note in (*todo.notes, *(f"{name} is left out: {why}" for name, why in todo.left_out.items())):
        context.console.warn(note)
    return server, todo


def _databases(
    context: Context, server: Server, todo: postgres_restore_plan.RestorePlan, done: RestoredSnapshot, event: Event
) -> None:
    context.console.say(f"  databases: {', '.join(item.source for item in todo.items)}")
    result = postgres_restore.restore(server, todo, context.stack.scratch, event)
    done.refused |= {f"database {name}": why for name, why in result.left_out.items()} | dict(result.refused)
    done.differences = {name: list(found) for name, found in result.differences.items()}
    for name, subscription in result.disabled:
        context.console.warn(f"the subscription {subscription} of {name} is disabled")
    done.parts["databases"] = vars(result)
    done.way_back["databases"] = {n: d["old"] for n, d in result.databases.items() if d["old"]}


def _objects(
    context: Context, ends: Endpoints, made: SnapshotPlan, content: Path, done: RestoredSnapshot, event: Event
) -> None:
    saved = verify.objects(content)
    logins = [objects_login.login_of(ends, name) for name in objects_login.STORES]
    target = objects_records.default_target(context.stack)
    why = f"before a restore of {made.backup.path.name}"
    with objects_backup.connected(logins) as clients:
        plans = objects_restore.plan(clients, saved, ())
        context.console.say(f"  objects: {sum(p.missing + p.different for p in plans)} to write")
        with store.locked(target, "snapshot.restore"), objects_backup.connected(logins) as others:
            kept = objects_restore.way_back(others, target, plans, False, objects_backup.Tally(), why)
        said = objects_restore.RestoredObjects(tick=_ticking(context))
        uploads = Uploads(context.stack.home / objects_restore.UPLOADS)
        objects_restore.restore(objects_restore.Restore(clients, saved, plans, uploads), said)
    if kept is not None:
        done.way_back["objects"] = shell.typed("invoke", "minio.restore", "--from", str(kept.path), "--yes")
    done.refused |= {f"object {name}": why for name, why in said.refused.items()}
    done.parts["objects"] = {"written": said.written, "unchanged": said.same, "bytes": said.size}
    event("restored", {"part": "objects", **done.parts["objects"]})


def _ticking(context: Context) -> Any:
    spoke = [time.monotonic()]

    def tick(said: objects_restore.RestoredObjects) -> None:
        if time.monotonic() - spoke[0] > 5:
            spoke[0] = time.monotonic()
            context.console.say(f"  objects: {said.written + said.same} done, {human_bytes(said.size)}")

    return tick


def _temporal(tier: Tier, made: SnapshotPlan, content: Path, done: RestoredSnapshot) -> None:
    """Put Temporal's file into its place while the platform is stopped; where it is databases, check them again."""
    if "temporal" not in made.parts:
        return
    if made.backup.facts["parts"]["temporal"]["storage"] == TemporalStorage.FILE:
        _file(tier, content, done)
    else:
        tier.restart(("temporal",))  # it holds what it has read of its databases in memory
        done.parts["temporal"] = {"storage": "databases"}


def _file(tier: Tier, content: Path, done: RestoredSnapshot) -> None:
    names = [s.name for s in tier.status()]
    tier.stop()
    try:
        kept = trash.put(tier, tier.removals(("temporal",)), "restore of a snapshot")
        done.way_back["temporal"] = [f"invoke trash.restore {e.name} --yes" for e in kept]
        place = _place(tier, kept)
        private.directory(place)
        part = place / f".{temporal_file.FILE}.part"
        shutil.copyfile(content / "temporal" / temporal_file.FILE, part)
        part.chmod(0o600)
        part.replace(place / temporal_file.FILE)
    finally:
        tier.start(names, None)
    done.parts["temporal"] = {"storage": "file"}


def _place(tier: Tier, kept: Sequence[trash.Entry]) -> Path:
    """Return the directory of Temporal's file."""
    paths = [item.path for entry in kept for item in entry.items if item.path]
    return paths[0] if paths else tier.home / "data" / "temporal"
