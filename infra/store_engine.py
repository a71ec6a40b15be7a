"""Moving the native tier's object stores to another engine: copied beside, verified, switched.

Objects are read while the stores still run, since rclone forgets metadata when it ends. Then the platform is stopped,
and what was written meanwhile is read from stores on other ports, where nobody writes past the copy. Until every
object is verified the old data is what `up` starts; after that a note says that the switch has begun, and `up` waits
until it is finished.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from infra import auto_ports, catalog, private
from infra.context import Context
from infra.data import trash
from infra.data.objects import backup, records, restore, upload
from infra.data.objects import login as objects_login
from infra.data.objects.client import Client
from infra.data.objects.login import STORES
from infra.data.objects.upload import Uploads
from infra.data.store import Backup
from infra.errors import PlatformError
from infra.stack import Stack, write_atomic
from infra.tiers import providers
from infra.tiers.native import object_store
from infra.tiers.native.tier import Native

THREADS = 8
SETTING = "PLATFORM_S3_SERVER"
Say = Callable[[str], None]


@dataclass(frozen=True)
class Moved:
    """The outcome of a move: objects and bytes that were copied, and the entries of the trash with the old data."""

    engine: str
    before: str
    objects: int
    size: int
    kept: tuple[str, ...]


def target(context: Context, engine: str, before: str) -> str:
    """Return the engine to move to, provided that it can be used here.

    Raises:
        PlatformError: USAGE for no engine or the present one; SETTING_INVALID where a setting asks for another one;
            PROGRAM_MISSING.
    """
    if engine not in providers.S3_ENGINES:
        steps = (f"use one of {', '.join(providers.S3_ENGINES)}",)
        raise PlatformError("USAGE", f"there is no engine {engine!r}", steps=steps)
    if object_store.layout(engine) == object_store.layout(before):
        raise PlatformError("USAGE", f"the object stores' data is already {before}'s", steps=("invoke status",))
    found = providers.s3_server(_with_engine(context, engine).settings).engine
    chosen = context.settings.text(SETTING)
    if chosen and providers.s3_server(context.settings).engine != found:
        why = f"it comes from {context.settings.origin(SETTING)}, and `up` would refuse the moved data"
        raise PlatformError("SETTING_INVALID", f"{SETTING} is {chosen}", why=why, steps=(f"remove {SETTING}",))
    return found


def _with_engine(context: Context, engine: str) -> Context:
    return context.with_values({SETTING: engine}, "minio.engine")


def move(tier: Native, engine: str, stop: Callable[[], None], say: Say = lambda text: None) -> Moved:
    """Copy both stores to another engine, verify, switch; the caller holds the stack's lock.

    Args:
        tier: the platform, running or not.
        engine: what `target` has returned.
        stop: stops everything that uses the stores, and the stores.
        say: tells people how far it is.

    Raises:
        PlatformError: DATA_INCOMPATIBLE when the engine cannot hold an object as it is (nothing is switched);
            BACKUP_FAILED when one cannot be read; and what starting the engines raises.
    """
    room, before = object_store.moving(tier.home), object_store.recorded(tier.home)
    if object_store.move_to_finish(tier.home) != engine:
        shutil.rmtree(room, ignore_errors=True)
        private.directory(room)
        if tier.running():
            say("  reading every object")
            _read(tier, room / "backup")
        stop()
        done = _copied(tier, engine, room, say)
        write_atomic(room / object_store.VERIFIED, f"{engine}\n", mode=0o600)
    else:
        stop()
        done = restore.RestoredObjects()
    return Moved(engine, before, done.written + done.same, done.size, _switched(tier, engine, room))


def _copied(tier: Native, engine: str, room: Path, say: Say) -> restore.RestoredObjects:
    old = Native(_on_other_ports(_with_engine(tier.context, object_store.recorded(tier.home))))
    beside = Stack(tier.context.stack.name, room)
    new = Native(replace(_on_other_ports(_with_engine(old.context, engine)), stack=beside))
    try:
        for side in (old, new):
            side.start(STORES, None)
        say("  reading what is new since then")
        kept = _read(old, room / "backup")
        say("  writing it to the other engine")
        done = _written(new, kept)
        say("  comparing content and metadata of every object")
        _verified(new, kept)
    finally:
        for side in (old, new):
            side.stop()
    return done


def _on_other_ports(context: Context) -> Context:
    """Return the same stores on ports that no client knows."""
    services = (catalog.service(name) for name in STORES)
    names = [p.setting for s in services for p in s.ports] + [p.setting for p in catalog.STORE_PORTS.values()]
    moved = auto_ports.moves(context.settings, [context.settings.port(name) for name in names])
    return context.with_values(moved, "minio.engine")


def _logins(side: Native) -> list[objects_login.StoreLogin]:
    ends = side.endpoints()
    return [objects_login.login_of(ends, name) for name in STORES]


def _read(side: Native, into: Path) -> Backup:
    private.directory(into)
    tally = backup.Tally()
    with backup.connected(_logins(side)) as clients:
        kept = backup.backup(clients, into, backup.sources(clients, (), []), True, tally)
    if tally.failed:
        raise PlatformError("BACKUP_FAILED", "not every object can be read; nothing was moved", why=_some(tally.failed))
    return kept


def _written(side: Native, kept: Backup) -> restore.RestoredObjects:
    done = restore.RestoredObjects()
    uploads = Uploads(kept.path.parent / restore.UPLOADS)
    with backup.connected(_logins(side)) as clients:
        plans = restore.plan(clients, kept, ())
        restore.restore(restore.Restore(clients, kept, plans, uploads, versions=True), done)
    _refuse(done.refused, side)
    return done


def _verified(side: Native, kept: Backup) -> None:
    """Read every current object back: SHA-256, size, type, headers, metadata."""
    with backup.connected(_logins(side)) as clients, ThreadPoolExecutor(THREADS) as threads:
        wanted = (r for r in records.reading(kept) if records.is_current(r))
        found = threads.map(lambda record: (restore.name_of(record), _difference(clients, record)), wanted)
        _refuse({name: f"not the same: {', '.join(what)}" for name, what in found if what}, side)


def _difference(clients: dict[str, Client], record: records.Record) -> list[str]:
    return upload.differences(clients[record["store"]], record)


def _refuse(problems: dict[str, str], side: Native) -> None:
    if not problems:
        return
    engine = next(iter(side.engines().values()))
    raise PlatformError(
        "DATA_INCOMPATIBLE",
        f"{engine} cannot hold {len(problems)} objects as they are; nothing was moved",
        why=_some([f"{name}: {why}" for name, why in problems.items()]),
        steps=("rename or delete these objects, then run it again",),
        details={"refused": problems},
    )


def _some(lines: list[str]) -> str:
    return "\n        ".join(lines[:20])


def _switched(tier: Native, engine: str, room: Path) -> tuple[str, ...]:
    """Move old data to the trash, new data into its place; goes on where a run before was cut short."""
    kept: list[trash.Entry] = []
    for name in STORES:
        made = Native(replace(tier.context, stack=Stack(tier.context.stack.name, room))).home / "data" / name
        if made.exists():
            kept += trash.put(tier, tier.removals((name,)), f"minio.engine {engine}")
            made.rename(tier.home / "data" / name)
    object_store.record(tier.home, engine)
    shutil.rmtree(room, ignore_errors=True)
    return tuple(entry.name for entry in kept)
