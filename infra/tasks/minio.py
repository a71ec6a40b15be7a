"""Objects: buckets and keys, verified backups, restores, plain trees."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.console import Answer, Table, human_bytes, printable
from infra.context import Context
from infra.errors import ExitCode, PlatformError
from infra.tasks import minio_backups, objects
from infra.tasks.command import ANY, command, confirm, words
from infra.tasks.events import STREAM, ended, events

if TYPE_CHECKING:
    from infra.data.objects.client import Client
    from infra.tiers.native.tier import Native


@command(
    tier=ANY,
    help={
        "to": "write the objects as plain files to this directory",
        "from_": "read plain files from this directory; its top-level directories are the buckets",
        "bucket": objects.BUCKET,
        "portable": "leave out keys that Windows or macOS cannot have as files, too (with --to; always so on Windows)",
        "json_stream": STREAM,
    },
    iterable=("bucket",),
)
def mirror(
    context: Context,
    bucket: list[str],
    to: str = "",
    from_: str = "",
    portable: bool = False,
    json_stream: bool = False,
) -> Answer:
    """Write the buckets as plain files, or read such files in; reports unsafe keys, deletes nothing.

    Example: invoke minio.mirror --to /data/export --bucket model-weights
    """
    from infra.data.objects import mirror as objects_mirror

    if bool(to) == bool(from_):
        raise PlatformError(
            "USAGE",
            "minio.mirror needs either --to DIR or --from DIR",
            steps=("invoke minio.mirror --to DIR writes files", "invoke minio.mirror --from DIR reads them"),
        )
    path, missing, began = Path(to or from_).expanduser().absolute(), list[str](), time.monotonic()
    with events(context, json_stream) as event, objects.clients(context) as clients:
        progress = objects.ObjectProgress(context.console, "copied", event)
        done = objects_mirror.Mirrored(tick=lambda d: progress(d.copied + d.same, d.size))
        if to:
            _export(clients, path, words(bucket), portable, missing, done)
        else:
            _import(context, clients, path, words(bucket), done)
        return ended(context, event, _mirrored(context, path, done, missing, time.monotonic() - began))


def _export(
    clients: dict[str, Client], path: Path, named: tuple[str, ...], portable: bool, missing: list[str], done: Any
) -> None:
    from infra.data import store
    from infra.data.objects import backup as objects_backup
    from infra.data.objects import mirror as objects_mirror

    with store.locked(path, "minio.mirror"):
        sources = objects_backup.sources(clients, named, missing)
        objects_mirror.export(clients, path, sources, done, portable or objects_mirror.WINDOWS)


def _import(context: Context, clients: dict[str, Client], path: Path, named: tuple[str, ...], done: Any) -> None:
    from infra import catalog
    from infra.data.objects import backup as objects_backup
    from infra.data.objects import mirror as objects_mirror
    from infra.data.objects import restore as objects_restore
    from infra.data.objects.upload import Uploads

    homes = {b.name: b.store for b in catalog.BUCKETS + catalog.OBS_BUCKETS}
    homes |= {bucket: name for name, bucket in objects_backup.everything(clients)}
    uploads = Uploads(context.stack.home / objects_restore.UPLOADS)
    objects_mirror.read_in(clients, path, named, homes, uploads, done)


def _mirrored(context: Context, path: Path, done: Any, missing: list[str], seconds: float) -> Answer:
    gone = [f"{name}: no such bucket" for name in missing]
    partial = objects.named(context, gone + [f"{key} {why}" for key, why in done.refused.items()], "left out")
    data = {
        "path": str(path),
        "copied": done.copied,
        "unchanged": done.same,
        "bytes": done.size,
        "refused": done.refused,
        "missing": missing,
        "seconds": round(seconds, 3),
    }
    text = f"{path}: {done.copied} copied ({human_bytes(done.size)}), {done.same} already present"
    return Answer(data, lines=(text,), exit=int(ExitCode.PARTIAL if partial else ExitCode.OK))


@command(
    tier=ANY,
    log=False,
    help={
        "bucket": "bucket to list; default: list the buckets themselves",
        "prefix": "only keys with this prefix",
        "limit": "maximum number of keys",
    },
)
def ls(context: Context, bucket: str = "", prefix: str = "", limit: int = 1000) -> Answer:
    """List the objects of a bucket, or the buckets.

    Example: invoke minio.ls --bucket training-checkpoints --prefix digits
    """
    import itertools

    from infra.data.objects import backup as objects_backup

    with objects.clients(context) as clients:
        if not bucket:
            return _buckets(clients)
        known = [name for _, name in objects_backup.everything(clients)]
        if bucket not in known:
            steps = (f"the buckets are: {', '.join(known)}", "invoke minio.init makes the platform's buckets again")
            raise PlatformError("NOT_FOUND", f"there is no bucket {bucket!r}", steps=steps)
        where = objects_backup.sources(clients, (bucket,), [])[0]
        listing = clients[where.store].listing(bucket, prefix)
        found = list(itertools.islice(listing, max(limit, 1) + 1))
    more = len(found) > limit
    rows = tuple((printable(e.key), human_bytes(e.size), e.modified) for e in found[:limit])
    data = [{"key": e.key, "size": e.size, "etag": e.etag, "modified": e.modified} for e in found[:limit]]
    lines = (f"there are more; show them with --limit {limit * 10}",) if more else ()
    return Answer(data, Table(("KEY", "SIZE", "MODIFIED"), rows), lines, names=tuple(e.key for e in found[:limit]))


@command(tier=ANY, log=False)
def buckets(context: Context) -> Answer:
    """List the buckets of both stores.

    Example: invoke minio.buckets
    """
    with objects.clients(context) as clients:
        return _buckets(clients)


def _buckets(clients: dict[str, Client]) -> Answer:
    from infra.data.objects import backup as objects_backup

    found = [(bucket, name) for name, bucket in objects_backup.everything(clients)]
    data = [{"bucket": bucket, "store": name} for bucket, name in found]
    return Answer(data, Table(("BUCKET", "STORE"), tuple(found)), names=tuple(bucket for bucket, _ in found))


@command(tier=ANY)
def init(context: Context) -> Answer:
    """Create the platform's missing buckets; existing ones are not changed.

    Example: invoke minio.init
    """
    from infra import tier_choice
    from infra.provision import ensure

    made = ensure.buckets(tier_choice.running_endpoints(context))
    text = f"created: {', '.join(made)}" if made else "all buckets exist"
    return Answer({"made": made}, lines=(text,), names=tuple(made))


@command(tier=ANY, log=False)
def url(context: Context) -> Answer:
    """Print the addresses of the stores' APIs and consoles.

    Example: invoke minio.url
    """
    from infra import tier_choice
    from infra.data.objects.login import STORES

    ends = tier_choice.running_endpoints(context)
    data = {
        name: {"api": ends.url(name, "api"), "console": "" if name in ends.elsewhere else ends.url(name, "console")}
        for name in STORES
    }
    rows = tuple((name, found["api"], found["console"]) for name, found in data.items())
    lines = ("the console is available only if the engine has one: invoke status",)
    return Answer(data, Table(("STORE", "API", "CONSOLE"), rows), lines, names=tuple(f["api"] for f in data.values()))


@command(tier=ANY, log=False, help={"store": "minio-datasets or minio-results"})
def console(context: Context, store: str = "minio-results") -> Answer:
    """Open the web console of a store in the browser, and print its address.

    Example: invoke minio.console --store minio-datasets
    """
    from infra import catalog, tier_choice
    from infra.data.objects.login import STORES

    if store not in STORES:
        raise PlatformError("USAGE", f"no store {store!r}", steps=(f"use one of {', '.join(STORES)}",))
    active = tier_choice.require_running(tier_choice.choose(context))
    engine = active.engines().get(store, "")
    gap = next((g for g in catalog.gaps(engine) if g.feature == "s3-console"), None)
    if gap:
        raise PlatformError("NOT_FOUND", f"{store} has no console", why=gap.reason, steps=(gap.instead,))
    address = active.endpoints().url(store, "console")
    if context.console.live:
        import webbrowser

        webbrowser.open(address)
    return Answer({"store": store, "url": address}, lines=(address,), names=(address,))


@command(help={"to": "the engine to move to, e.g. weed (SeaweedFS)", "yes": "skip the confirmation prompt"})
def engine(context: Context, to: str = "", yes: bool = False) -> Answer:
    """Show which program serves the object stores, or move them to another one: copied, verified, switched.

    The platform is stopped meanwhile; the old data is kept in the trash for a week.

    Example: invoke minio.engine --to weed --yes
    """
    from infra import lifecycle, stack, store_engine, tier_choice
    from infra.tiers.native import object_store
    from infra.tiers.native.tier import Native

    with stack.lock(context.stack, "minio.engine"):
        native = Native(context)
        now = object_store.recorded(native.home)
        if not to:
            return Answer({"engine": now}, lines=(now or "no object store has written data yet: invoke up",))
        if not now:
            raise PlatformError("NOT_FOUND", "there is no data to move", steps=("invoke up",))
        wanted, ran = store_engine.target(context, to, now), native.running()
        confirm(context, _engine_plan(native, now, wanted), yes)

        def stop() -> None:
            lifecycle.stop_others(context.stack)
            native.stop()

        moved = store_engine.move(native, wanted, stop, context.console.say)
    if ran:
        lifecycle.up(tier_choice.Choice(Native(context), "it ran before", named=False), None, None)
    data = {"engine": moved.engine, "before": moved.before, "objects": moved.objects, "bytes": moved.size}
    text = f"{moved.objects} objects ({human_bytes(moved.size)}) moved from {moved.before} to {moved.engine}"
    back = f"the old data is in the trash for a week: {', '.join(moved.kept)}"
    return Answer({**data, "trash": list(moved.kept)}, lines=(text, back, *(() if ran else ("Next: invoke up",))))


def _engine_plan(native: Native, now: str, wanted: str) -> list[str]:
    from infra.data.objects.login import STORES

    found = native.removals(STORES)
    size = human_bytes(sum(r.size for r in found))
    return [
        f"This moves the object stores from {now} to {wanted}:",
        *(f"  {r.service:<16} {human_bytes(r.size):>8}  {r.place}" for r in found),
        f"It stops the platform and needs about twice {size} of free disk space; the old data is moved to the trash.",
    ]


TASKS = (*minio_backups.TASKS, mirror, ls, buckets, init, url, console, engine)
