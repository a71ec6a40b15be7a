"""Objects: buckets and keys, verified backups, restores, plain trees."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.console import Answer, Console, Table, human_bytes, human_seconds, printable
from infra.errors import ExitCode, PlatformError
from infra.tasks.command import Run, command, confirm, words
from infra.tasks.events import STREAM, Event, ended, events, silent

if TYPE_CHECKING:
    from infra.data import objects_prune, store
    from infra.data.objects_client import Client
    from infra.data.objects_restore import BucketPlan

HEARTBEAT = 15.0
"""Seconds between lines of progress where nobody watches; a terminal gets one each second."""
NAMED = 20
"""Items that a message names; the JSON has them all."""

TO = "directory of the backups (default: backups/objects in the stack's state directory)"
FROM = "a backup's directory or name, or `latest`"
BUCKET = "only this bucket; give it several times or with commas for more"
TIER = "tier to use"


@dataclass
class Progress:
    """Says every now and then how far a run is."""

    console: Console
    verb: str
    event: Event = silent
    began: float = field(default_factory=time.monotonic)
    last: float = field(default_factory=time.monotonic)

    def __call__(self, objects: int, size: int) -> None:
        """So many objects and bytes are done; says so when it is time."""
        now = time.monotonic()
        if now - self.last < (1.0 if self.event is not silent or self.console.live else HEARTBEAT):
            return
        self.last = now
        rate = size / max(now - self.began, 1e-6)
        self.event("progress", {"what": self.verb, "objects": objects, "bytes": size, "rate": round(rate)})
        took = human_seconds(now - self.began)
        self.console.say(f"  {self.verb}: {objects} objects, {human_bytes(size)}, {human_bytes(rate)}/s, {took}", "dim")


def _target(run: Run, to: str) -> Path:
    return Path(to).expanduser().absolute() if to else run.stack.home / "backups" / "objects"


@contextlib.contextmanager
def _clients(run: Run) -> Iterator[dict[str, Client]]:
    """Clients of both stores of the running platform."""
    from infra import lifecycle
    from infra.data import objects_backup, objects_client

    ends = lifecycle.running_endpoints(run)
    with objects_backup.connected(objects_client.login_of(ends, name) for name in objects_client.STORES) as clients:
        yield clients


@command(
    help={
        "to": TO,
        "bucket": BUCKET,
        "versions": "every version and delete marker, not only what is current",
        "keep": "afterwards verify it and remove old backups, so that N verified ones stay",
        "json_stream": STREAM,
        "tier": TIER,
    },
    iterable=("bucket",),
)
def backup(
    run: Run,
    bucket: list[str],
    to: str = "",
    versions: bool = False,
    keep: int = 0,
    json_stream: bool = False,
    tier: str = "",
) -> Answer:
    """Back up all buckets, or those named; what has not changed since the last backup is not read again.

    Example: invoke minio.backup --keep 7
    """
    from infra.data import objects_backup, store

    if keep < 0:
        raise PlatformError("USAGE", f"--keep {keep} is less than 0", steps=("invoke minio.backup --keep 7",))
    target, missing, began = _target(run, to), list[str](), time.monotonic()
    with events(run, json_stream) as event, store.locked(target, "minio.backup"), _clients(run) as clients:
        progress = Progress(run.console, "read", event)
        tally = objects_backup.Tally(tick=lambda t: progress(t.objects, t.read))
        found = objects_backup.sources(clients, words(bucket), missing)
        made = objects_backup.backup(clients, target, found, versions, tally)
        kept = _keep(run, target, made, keep, event) if keep else {}
        return ended(run, event, _backed_up(run, made, tally, missing, kept, time.monotonic() - began))


def _keep(run: Run, target: Path, made: store.Backup, keep: int, event: Event) -> dict[str, Any]:
    """Verify the new backup and let old ones go. What hinders that is said; the backup itself stays."""
    from infra.data import objects_prune, objects_verify

    objects_verify.check(made, tick=Progress(run.console, "verified", event))
    objects_verify.mark_verified(made)
    try:
        gone = objects_prune.plan(target, keep)
        objects_prune.prune(gone)
    except PlatformError as error:
        run.console.warn(f"{error.what}: {error.why}")
        return {"verified": True, "pruned": [], "why": error.what, "incomplete": True}
    if gone.why:
        run.console.say(f"  {gone.why}", "dim")
    return {"verified": True, "pruned": [b.path.name for b in gone.backups], "freed": gone.size, "why": gone.why}


def _backed_up(
    run: Run, made: store.Backup, tally: Any, missing: list[str], kept: dict[str, Any], seconds: float
) -> Answer:
    partial = _named(run, tally.failed + [f"{name}: there is no such bucket" for name in missing], "not backed up")
    data = {
        "path": str(made.path),
        "objects": tally.objects,
        "bytes": tally.size,
        "read": tally.new,
        "bytesRead": tally.read,
        "vanished": tally.gone,
        "buckets": made.facts["buckets"],
        "missing": missing,
        "failed": tally.failed,
        "seconds": round(seconds, 3),
        **kept,
    }
    rate = human_bytes(tally.read / max(seconds, 1e-6))
    lines = (
        f"{made.path}",
        f"{tally.objects} objects, {human_bytes(tally.size)}; {tally.new} of them read anew"
        f" ({human_bytes(tally.read)}, {rate}/s) in {human_seconds(seconds)}",
        f"Next: invoke minio.verify --from {made.path}",
    )
    code = ExitCode.PARTIAL if partial or kept.get("incomplete") else ExitCode.OK
    return Answer(data, lines=lines, names=(str(made.path),), exit=int(code))


def _named(run: Run, items: list[str], what: str) -> bool:
    """Name items that are left out as a warning; whether there are any."""
    for item in items[:NAMED]:
        run.console.warn(f"{what}: {printable(item)}")
    if len(items) > NAMED:
        run.console.warn(f"{what}: {len(items) - NAMED} more (--json has them all)")
    return bool(items)


@command("list", log=False, help={"to": TO})
def list_(run: Run, to: str = "") -> Answer:
    """List the backups, oldest first; broken ones with what is wrong.

    Example: invoke minio.list --json
    """
    from infra.data import objects_records, store

    target = _target(run, to)
    if to:
        store.require_place(target)
    found = objects_records.listing(target)
    rows = tuple(_row(b) for b in found)
    heading = ("BACKUP", "CREATED", "BUCKETS", "OBJECTS", "SIZE", "STATE")
    lines = () if found else ("no backup yet; make one: invoke minio.backup",)
    return Answer(
        [_backup_data(b) for b in found], Table(heading, rows), lines, names=tuple(str(b.path) for b in found)
    )


def _row(backup: store.Backup) -> tuple[str, ...]:
    state = backup.problem or ("verified" if backup.verified else "complete")
    facts = backup.facts
    if backup.problem:
        return backup.path.name, backup.created, "", "", "", f"broken: {state}"
    size = human_bytes(facts.get("bytes", 0))
    return (
        backup.path.name, backup.created, str(len(facts.get("buckets", []))), str(facts.get("objects", "")), size, state
    )  # fmt: skip


def _backup_data(backup: store.Backup) -> dict[str, Any]:
    known = {"path": str(backup.path), "created": backup.created, "sequence": backup.sequence}
    return {**known, "verified": backup.verified, "problem": backup.problem, **backup.facts}


@command(help={"from_": FROM, "to": TO, "json_stream": STREAM})
def verify(run: Run, from_: str = "latest", to: str = "", json_stream: bool = False) -> Answer:
    """Read every object of a backup and compare it with its SHA-256; exit 10 naming what is damaged.

    Example: invoke minio.verify --from latest
    """
    from infra.data import objects_verify

    with events(run, json_stream) as event:
        began, found = time.monotonic(), objects_verify.located(_target(run, to), from_)
        try:
            objects_verify.check(found, tick=Progress(run.console, "verified", event))
        except PlatformError:
            objects_verify.unmark_verified(found)
            raise
        with contextlib.suppress(OSError):  # a backup on a read-only disk is whole, too
            objects_verify.mark_verified(found)
        seconds = time.monotonic() - began
        data = {"path": str(found.path), "objects": found.facts.get("objects"), "bytes": found.facts.get("bytes")}
        text = f"{found.path}: {data['objects']} objects are whole ({human_seconds(seconds)})"
        return ended(run, event, Answer({**data, "seconds": round(seconds, 3)}, lines=(text,)))


@command(
    help={
        "from_": FROM,
        "bucket": BUCKET,
        "to": TO,
        "exact": "also remove objects that the backup does not have (they are backed up first)",
        "versions": "all versions and delete markers that the backup has",
        "dry_run": "show the plan and change nothing",
        "yes": "do not ask",
        "json_stream": STREAM,
        "tier": TIER,
    },
    iterable=("bucket",),
)
def restore(
    run: Run,
    bucket: list[str],
    from_: str = "",
    to: str = "",
    exact: bool = False,
    versions: bool = False,
    dry_run: bool = False,
    yes: bool = False,
    json_stream: bool = False,
    tier: str = "",
) -> Answer:
    """Bring the objects of a backup back; what it would overwrite is backed up first, the rest stays.

    Example: invoke minio.restore --from latest --bucket model-weights --yes
    """
    from infra.data import objects_restore, objects_verify, store

    if not from_:
        raise PlatformError("USAGE", "--from is missing", steps=("invoke minio.restore --from latest --yes", _LIST))
    with events(run, json_stream) as event, contextlib.ExitStack() as stack:
        found = objects_verify.located(_target(run, to), from_)
        objects_verify.check(found, words(bucket), Progress(run.console, "checked", event))
        clients = stack.enter_context(_clients(run))
        plans = objects_restore.plan(clients, found, words(bucket))
        if dry_run:
            return ended(run, event, Answer(_plan_data(found, plans), lines=tuple(_plan(found, plans, exact))))
        confirm(run, _plan(found, plans, exact), yes)
        # From a disk that takes no writes nobody can prune, and the way back needs another place.
        beside = found.path.parent if os.access(found.path.parent, os.W_OK) else _target(run, "")
        with store.locked(beside, "minio.restore"):
            answer = _restored(run, clients, found, plans, beside, exact, versions, event)
        return ended(run, event, answer)


_LIST = "invoke minio.list shows the backups"


def _plan(found: store.Backup, plans: list[BucketPlan], exact: bool) -> list[str]:
    lines = [f"This restores {found.path}:"]
    for p in plans:
        extra = f", {p.extra} {'REMOVED' if exact else 'others stay'}" if p.extra else ""
        what = f"{p.missing} missing, {p.different} OVERWRITTEN" if p.different else f"{p.missing} missing"
        made = " (the bucket is made)" if p.new else ""
        lines.append(f"  {p.source.name:<24} {what}, {p.same} there{extra}; {human_bytes(p.size)}{made}")
    if any(p.overwrites or (exact and p.extra) for p in plans):
        lines.append("What is overwritten or removed is backed up first.")
    return lines


def _plan_data(found: store.Backup, plans: list[BucketPlan]) -> dict[str, Any]:
    named = [{**vars(p), "source": p.source.name, "store": p.source.store} for p in plans]
    return {"path": str(found.path), "dryRun": True, "plan": named}


def _restored(
    run: Run,
    clients: dict[str, Client],
    found: store.Backup,
    plans: list[BucketPlan],
    beside: Path,
    exact: bool,
    versions: bool,
    event: Event,
) -> Answer:
    from infra.data import objects_backup, objects_restore
    from infra.data.objects_upload import Uploads

    began, progress = time.monotonic(), Progress(run.console, "restored", event)
    tally = objects_backup.Tally(tick=lambda t: Progress(run.console, "kept", event)(t.objects, t.read))
    why = f"before a restore of {found.path.name}"
    # A crew stops its clients when it is done, so it gets some of its own.
    with objects_backup.connected(client.login for client in clients.values()) as others:
        back = objects_restore.way_back(others, beside, plans, exact, tally, why)
    if back:
        run.console.say(f"  the way back: invoke minio.restore --from {back.path} --yes")
    done = objects_restore.Done(tick=lambda d: progress(d.written + d.same, d.size))
    uploads = Uploads(run.stack.home / objects_restore.UPLOADS)
    order = objects_restore.Restore(clients, found, plans, uploads, exact, versions)
    objects_restore.restore(order, done)
    partial = _named(run, [f"{name}: {why}" for name, why in done.refused.items()], "not restored")
    data = {
        "path": str(found.path),
        "written": done.written,
        "unchanged": done.same,
        "removed": done.removed,
        "bytes": done.size,
        "refused": done.refused,
        "wayBack": str(back.path) if back else "",
        "seconds": round(time.monotonic() - began, 3),
    }
    text = f"{done.written} objects restored ({human_bytes(done.size)}), {done.same} were there"
    text += f", {done.removed} removed" if done.removed else ""
    return Answer(data, lines=(text,), exit=int(ExitCode.PARTIAL if partial else ExitCode.OK))


@command(help={"keep": "verified backups that stay", "to": TO, "yes": "do not ask"})
def prune(run: Run, keep: int = 0, to: str = "", yes: bool = False) -> Answer:
    """Remove old backups, so that N verified ones stay, and the objects that no backup needs any more.

    Example: invoke minio.prune --keep 7 --yes
    """
    from infra.data import objects_prune, store

    if keep < 1:
        raise PlatformError("USAGE", "--keep N is missing or less than 1", steps=("invoke minio.prune --keep 7 --yes",))
    target = _target(run, to)
    if not target.is_dir():
        raise PlatformError("NOT_FOUND", f"there is no backup in {target}", steps=("invoke minio.backup",))
    with store.locked(target, "minio.prune"):
        plan = objects_prune.plan(target, keep)
        names = [b.path.name for b in plan.backups]
        if names or plan.contents:
            confirm(run, _pruning(names, plan), yes)
            objects_prune.prune(plan)
    data = {"removed": names, "contents": len(plan.contents), "freed": plan.size, "why": plan.why}
    text = f"removed {len(names)} backups and {len(plan.contents)} objects ({human_bytes(plan.size)})"
    said = text if names or plan.contents else "there is nothing to remove"
    return Answer(data, lines=(said, *((plan.why,) if plan.why else ())), names=tuple(names))


def _pruning(names: list[str], plan: objects_prune.Plan) -> list[str]:
    objects = f"{len(plan.contents)} objects that no backup needs then ({human_bytes(plan.size)})"
    return ["This removes for ever:", *(f"  {name}" for name in names), f"  {objects}"]


@command(
    help={
        "to": "write a plain tree to this directory",
        "from_": "read a plain tree from this directory; its first directories are the buckets",
        "bucket": BUCKET,
        "json_stream": STREAM,
        "tier": TIER,
    },
    iterable=("bucket",),
)
def mirror(
    run: Run, bucket: list[str], to: str = "", from_: str = "", json_stream: bool = False, tier: str = ""
) -> Answer:
    """Write the buckets as a plain tree of files, or read one in; unsafe keys are named, nothing is deleted.

    Example: invoke minio.mirror --to /data/export --bucket model-weights
    """
    from infra.data import objects_mirror

    if bool(to) == bool(from_):
        raise PlatformError(
            "USAGE",
            "minio.mirror needs either --to DIR or --from DIR",
            steps=("invoke minio.mirror --to DIR writes files", "invoke minio.mirror --from DIR reads them"),
        )
    path, missing, began = Path(to or from_).expanduser().absolute(), list[str](), time.monotonic()
    with events(run, json_stream) as event, _clients(run) as clients:
        progress = Progress(run.console, "copied", event)
        done = objects_mirror.Mirrored(tick=lambda d: progress(d.copied + d.same, d.size))
        if to:
            _export(clients, path, words(bucket), missing, done)
        else:
            _import(run, clients, path, words(bucket), done)
        return ended(run, event, _mirrored(run, path, done, missing, time.monotonic() - began))


def _export(clients: dict[str, Client], path: Path, named: tuple[str, ...], missing: list[str], done: Any) -> None:
    from infra.data import objects_backup, objects_mirror, store

    with store.locked(path, "minio.mirror"):
        objects_mirror.export(clients, path, objects_backup.sources(clients, named, missing), done)


def _import(run: Run, clients: dict[str, Client], path: Path, named: tuple[str, ...], done: Any) -> None:
    from infra import catalog
    from infra.data import objects_backup, objects_mirror, objects_restore
    from infra.data.objects_upload import Uploads

    homes = {b.name: b.store for b in catalog.BUCKETS + catalog.OBS_BUCKETS}
    homes |= {bucket: name for name, bucket in objects_backup.everything(clients)}
    uploads = Uploads(run.stack.home / objects_restore.UPLOADS)
    objects_mirror.read_in(clients, path, named, homes, uploads, done)


def _mirrored(run: Run, path: Path, done: Any, missing: list[str], seconds: float) -> Answer:
    gone = [f"{name}: there is no such bucket" for name in missing]
    partial = _named(run, gone + [f"{key} {why}" for key, why in done.refused.items()], "left out")
    data = {
        "path": str(path),
        "copied": done.copied,
        "unchanged": done.same,
        "bytes": done.size,
        "refused": done.refused,
        "missing": missing,
        "seconds": round(seconds, 3),
    }
    text = f"{path}: {done.copied} copied ({human_bytes(done.size)}), {done.same} were there"
    return Answer(data, lines=(text,), exit=int(ExitCode.PARTIAL if partial else ExitCode.OK))


@command(
    log=False,
    help={
        "bucket": "the bucket; without it all buckets are listed",
        "prefix": "only keys that begin so",
        "limit": "how many keys at most",
        "tier": TIER,
    },
)
def ls(run: Run, bucket: str = "", prefix: str = "", limit: int = 1000, tier: str = "") -> Answer:
    """List the objects of a bucket, or the buckets.

    Example: invoke minio.ls --bucket training-checkpoints --prefix digits
    """
    import itertools

    from infra.data import objects_backup

    with _clients(run) as clients:
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
    lines = (f"there are more; see them with --limit {limit * 10}",) if more else ()
    return Answer(data, Table(("KEY", "SIZE", "MODIFIED"), rows), lines, names=tuple(e.key for e in found[:limit]))


@command(log=False, help={"tier": TIER})
def buckets(run: Run, tier: str = "") -> Answer:
    """List the buckets of both stores.

    Example: invoke minio.buckets
    """
    with _clients(run) as clients:
        return _buckets(clients)


def _buckets(clients: dict[str, Client]) -> Answer:
    from infra.data import objects_backup

    found = [(bucket, name) for name, bucket in objects_backup.everything(clients)]
    data = [{"bucket": bucket, "store": name} for bucket, name in found]
    return Answer(data, Table(("BUCKET", "STORE"), tuple(found)), names=tuple(bucket for bucket, _ in found))


@command(help={"tier": TIER})
def init(run: Run, tier: str = "") -> Answer:
    """Make the platform's buckets that are missing; the others stay as they are.

    Example: invoke minio.init
    """
    from infra import lifecycle
    from infra.provision import ensure

    made = ensure.buckets(lifecycle.running_endpoints(run))
    text = f"made: {', '.join(made)}" if made else "all buckets are there"
    return Answer({"made": made}, lines=(text,), names=tuple(made))


@command(log=False, help={"tier": TIER})
def url(run: Run, tier: str = "") -> Answer:
    """Print the addresses of the stores' APIs and consoles.

    Example: invoke minio.url
    """
    from infra import lifecycle
    from infra.data.objects_client import STORES

    ends = lifecycle.running_endpoints(run)
    data = {
        name: {"api": ends.url(name, "api"), "console": "" if name in ends.elsewhere else ends.url(name, "console")}
        for name in STORES
    }
    rows = tuple((name, found["api"], found["console"]) for name, found in data.items())
    lines = ("the console answers where the engine has one: invoke status",)
    return Answer(data, Table(("STORE", "API", "CONSOLE"), rows), lines, names=tuple(f["api"] for f in data.values()))


@command(log=False, help={"store": "minio-datasets or minio-results", "tier": TIER})
def console(run: Run, store: str = "minio-results", tier: str = "") -> Answer:
    """Open the web console of a store in the browser, and print its address.

    Example: invoke minio.console --store minio-datasets
    """
    from infra import catalog, lifecycle
    from infra.data.objects_client import STORES

    if store not in STORES:
        raise PlatformError("USAGE", f"no store {store!r}", steps=(f"use one of {', '.join(STORES)}",))
    active = lifecycle.require_running(run.context, lifecycle.choose(run.context))
    engine = active.engines(run.context).get(store, "")
    gap = next((g for g in catalog.gaps(engine) if g.feature == "s3-console"), None)
    if gap:
        raise PlatformError("NOT_FOUND", f"{store} has no console", why=gap.reason, steps=(gap.instead,))
    address = active.endpoints(run.context).url(store, "console")
    if run.console.live:
        import webbrowser

        webbrowser.open(address)
    return Answer({"store": store, "url": address}, lines=(address,), names=(address,))


TASKS = (backup, list_, verify, restore, prune, mirror, ls, buckets, init, url, console)
