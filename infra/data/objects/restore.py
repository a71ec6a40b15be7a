"""A backup back into the stores: everything checked first, then written, then proven; nothing deleted unless asked.

Objects that a backup does not have stay, unless `exact`. What would be overwritten or removed is backed up first.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from dataclasses import dataclass, field
from pathlib import Path

from infra.data import store
from infra.data.objects import backup as objects_backup
from infra.data.objects import crew, records
from infra.data.objects.backup import BucketSource, Tally
from infra.data.objects.client import Client
from infra.data.objects.link import S3Error
from infra.data.objects.pool import Pool
from infra.data.objects.records import Record
from infra.data.objects.upload import Uploads, restored, same
from infra.data.objects.xml import ListedObject
from infra.errors import PlatformError

THREADS = 8
UPLOADS = "restore-uploads.jsonl"


@dataclass
class BucketPlan:
    """The plan for one bucket: numbers of objects, bytes to write."""

    source: BucketSource
    new: bool
    missing: int = 0
    same: int = 0
    different: int = 0
    extra: int = 0
    size: int = 0
    sorted: bool = True

    @property
    def overwrites(self) -> bool:
        """Return whether objects that are there would be replaced."""
        return self.different > 0


@dataclass
class RestoredObjects:
    """The outcome of a restore; `refused` gives for each object (bucket/key) that is not back the reason."""

    written: int = 0
    same: int = 0
    removed: int = 0
    size: int = 0
    refused: dict[str, str] = field(default_factory=dict)
    tick: Callable[[RestoredObjects], None] = lambda done: None

    def watch(self, size: int) -> None:
        """Count bytes that were sent."""
        self.size += size


def buckets_of(backup: store.Backup, named: tuple[str, ...]) -> list[BucketSource]:
    """Return the buckets of a backup, or those named.

    Raises:
        PlatformError: NOT_FOUND for a name that the backup does not have.
    """
    held = [BucketSource(b["store"], b["name"], b.get("versioning", "")) for b in backup.facts.get("buckets", [])]
    missing = [name for name in named if name not in {s.name for s in held}]
    if missing:
        names = ", ".join(s.name for s in held)
        raise PlatformError("NOT_FOUND", f"{backup.path} has no bucket {missing[0]}", steps=(f"it has: {names}",))
    return [s for s in held if not named or s.name in named]


def plan(clients: Mapping[str, Client], backup: store.Backup, named: tuple[str, ...]) -> list[BucketPlan]:
    """Compare a backup with what is there; changes nothing.

    Raises:
        PlatformError: UNREACHABLE, LOGIN_REFUSED, NOT_FOUND, BACKUP_DAMAGED.
    """
    wanted = buckets_of(backup, named)
    unknown = {s.store for s in wanted} - set(clients)
    if unknown:
        raise PlatformError("UNREACHABLE", f"the backup needs the store {min(unknown)}, which does not exist here")
    there = {(name, bucket) for name in {s.store for s in wanted} for bucket in clients[name].buckets()}
    return [_compared(clients[s.store], backup, s, (s.store, s.name) in there) for s in wanted]


def _compared(client: Client, backup: store.Backup, source: BucketSource, there: bool) -> BucketPlan:
    made = BucketPlan(source, new=not there)
    try:
        _add_up(client, backup, made)
    except records.Unsorted:
        made = BucketPlan(source, new=not there, sorted=False)
        _add_up(client, backup, made)
    return made


def _add_up(client: Client, backup: store.Backup, made: BucketPlan) -> None:
    for record, entry in _side_by_side(client, backup, made):
        if record is None:
            made.extra += 1
        elif entry is not None and same(record, entry):
            made.same += 1
        else:
            made.missing += entry is None
            made.different += entry is not None
            made.size += record["size"]


def _side_by_side(
    client: Client, backup: store.Backup, made: BucketPlan, empty: bool = False
) -> Iterator[tuple[Record | None, ListedObject | None]]:
    source = made.source
    listed: Iterable[ListedObject] = () if made.new and not empty else client.listing(source.name)
    if not made.sorted:
        listed = records.in_order(listed)
    return records.joined(_current(backup, source), listed, source.store, source.name)


def _of(backup: store.Backup, source: BucketSource) -> Iterator[Record]:
    ours = (source.store, source.name)
    return (r for r in records.reading(backup) if (r["store"], r["bucket"]) == ours)


def _current(backup: store.Backup, source: BucketSource) -> Iterator[Record]:
    return (r for r in _of(backup, source) if records.is_current(r))


def way_back(
    clients: Mapping[str, Client], target: Path, plans: list[BucketPlan], exact: bool, tally: Tally, why: str
) -> store.Backup | None:
    """Back up the buckets of which something would be overwritten or removed; None when nothing would be.

    The caller holds the lock of the target. Raises PlatformError as `objects_backup.backup` does.
    """
    affected = [p.source for p in plans if p.overwrites or (exact and p.extra)]
    if not affected:
        return None
    found = [BucketSource(s.store, s.name, clients[s.store].versioning(s.name)) for s in affected]
    made = objects_backup.backup(clients, target, found, False, tally, reason=why)
    if tally.failed:
        what = "nothing was restored: not everything it would overwrite could be backed up first"
        raise PlatformError("BACKUP_FAILED", what, why="\n        ".join(tally.failed[:20]))
    return made


@dataclass(frozen=True)
class Restore:
    """A restore that is about to happen: what is restored and how."""

    clients: Mapping[str, Client]
    backup: store.Backup
    plans: list[BucketPlan]
    uploads: Uploads
    exact: bool = False
    versions: bool = False


def restore(order: Restore, done: RestoredObjects) -> None:
    """Write the objects of a backup, prove them, and with `exact` remove those that it does not have.

    Objects that the engine refuses are named in `done.refused`, and then nothing is removed.

    Raises:
        PlatformError: UNREACHABLE or LOGIN_REFUSED: run it again, it goes on from there.
    """
    logins = {name: client.login for name, client in order.clients.items()}
    order.uploads.clear(logins)
    threads = ThreadPoolExecutor(THREADS)
    try:
        for made in order.plans:
            _bucket(order, made, threads, done)
    except BaseException as error:
        crew.undisturbed(error)
        raise
    finally:
        for client in order.clients.values():
            client.stop()
        threads.shutdown(wait=True, cancel_futures=True)
        order.uploads.clear(logins)


def _bucket(order: Restore, made: BucketPlan, threads: ThreadPoolExecutor, done: RestoredObjects) -> None:
    client, source = order.clients[made.source.store], made.source
    if made.new and not _made(client, source, done):
        return
    pool, refused = Pool(order.backup.path.parent), len(done.refused)
    if order.versions and source.versioning and _versioned(client, source, done):
        jobs = _version_jobs(order, source, client, pool, threads, done)
    else:
        pairs = _side_by_side(client, order.backup, made)
        jobs = (
            (record, threads.submit(restored, client, pool, record, entry, order.uploads, done.watch))
            for record, entry in pairs
            if record is not None
        )
    _all_of(jobs, done)
    _prove(order, made, client, done)
    if order.exact and len(done.refused) == refused:
        _remove_extra(order, made, client, threads, done)


def _made(client: Client, source: BucketSource, done: RestoredObjects) -> bool:
    """Make a bucket, with versions where it had them; False when the engine refuses its name."""
    try:
        client.make_bucket(source.name)
    except S3Error as error:
        done.refused[source.name] = str(error)
        return False
    return True


def _versioned(client: Client, source: BucketSource, done: RestoredObjects) -> bool:
    try:
        client.set_versioning(source.name, "Enabled")
    except S3Error as error:
        done.refused[source.name] = f"only its current objects: the engine keeps no versions ({error})"
        return False
    return True


def name_of(record: Record) -> str:
    """Return the bucket and key of a record."""
    return f"{record['bucket']}/{record['key']}"


Job = tuple[Record, "Future[str]"]


def _version_jobs(
    order: Restore, source: BucketSource, client: Client, pool: Pool, threads: ThreadPoolExecutor, done: RestoredObjects
) -> Iterator[Job]:
    """Yield one job for each key: its versions and delete markers, oldest first."""

    def replay(group: list[Record]) -> str:
        for record in reversed(group):  # manifests have the newest first, as listings do
            if record.get("deleted"):
                client.delete(record["bucket"], record["key"])
            elif records.has_content(record):
                restored(client, pool, record, None, order.uploads, done.watch)
        return "written"

    for _, group in itertools.groupby(_of(order.backup, source), key=records.place_of):
        held = list(group)
        yield held[0], threads.submit(replay, held)


def _all_of(jobs: Iterable[Job], done: RestoredObjects) -> None:
    under_way: deque[Job] = deque()
    for job in jobs:
        under_way.append(job)
        while len(under_way) > objects_backup.WINDOW:
            _end(under_way.popleft(), done)
    while under_way:
        _end(under_way.popleft(), done)


def _end(job: Job, done: RestoredObjects) -> None:
    record, future = job
    while True:
        try:
            outcome = future.result(objects_backup.TICK)
            break
        except NotYet:
            if future.done():
                raise
            done.tick(done)
        except S3Error as error:
            done.refused[name_of(record)] = str(error)
            return
    done.written += outcome == "written"
    done.same += outcome == "same"
    done.tick(done)


def _prove(order: Restore, made: BucketPlan, client: Client, done: RestoredObjects) -> None:
    """List the bucket once more: an engine may take a key and file it under another one."""
    for record, entry in _side_by_side(client, order.backup, made, empty=True):
        if record is None or name_of(record) in done.refused:
            continue
        if entry is None or entry.size != record["size"]:
            done.refused[name_of(record)] = "it was written, but the server does not list it as written"


def _remove_extra(
    order: Restore, made: BucketPlan, client: Client, threads: ThreadPoolExecutor, done: RestoredObjects
) -> None:
    pairs = _side_by_side(client, order.backup, made, empty=True)
    extra = [entry.key for record, entry in pairs if record is None and entry is not None]
    for future in [threads.submit(client.delete, made.source.name, key) for key in extra]:
        future.result()
        done.removed += 1
