"""A backup of buckets: list, read what is new into the pool, write one line for each object, publish.

Incremental: what a listing shows unchanged since an earlier backup is not read again. A run that was interrupted
leaves its journal, from which the next one goes on.
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from infra import catalog, private
from infra.data import store
from infra.data.objects import records
from infra.data.objects.client import Client
from infra.data.objects.crew import Crew, crew
from infra.data.objects.login import StoreLogin
from infra.data.objects.pool import Pool
from infra.data.objects.records import Earlier, ObjectItem, Record
from infra.data.objects.xml import ListedObject
from infra.errors import PlatformError

JOURNAL = ".objects-journal"
"""The file that a run writes while it works; it becomes the backup's manifest.jsonl, or helps the next run."""
WINDOW = 256
"""Objects that may be in flight at once: bounds the memory and keeps the order of the listing."""
TICK = 0.5


@dataclass(frozen=True)
class BucketSource:
    """A bucket: its store, its name, its versioning (`Enabled`, `Suspended` or '')."""

    store: str
    name: str
    versioning: str = ""


@dataclass
class Tally:
    """The figures of a run so far; `size` and `read` are bytes, `read` those that came over the network."""

    objects: int = 0
    size: int = 0
    new: int = 0
    read: int = 0
    gone: int = 0
    failed: list[str] = field(default_factory=list)
    tick: Callable[[Tally], None] = lambda tally: None

    def watch(self, size: int) -> None:
        """Count bytes that have arrived."""
        self.read += size


@contextlib.contextmanager
def connected(logins: Iterable[StoreLogin]) -> Iterator[dict[str, Client]]:
    """Open clients by the names of their stores, for the block."""
    clients = {login.name: Client(login) for login in logins}
    try:
        yield clients
    finally:
        for client in clients.values():
            client.close()


def sources(clients: Mapping[str, Client], named: tuple[str, ...], missing: list[str]) -> list[BucketSource]:
    """Return the buckets to back up: all, or those named; names that no store has go to `missing`.

    Raises:
        PlatformError: UNREACHABLE or LOGIN_REFUSED; PARTIAL when none of those named is there.
    """
    there = everything(clients)
    missing += [name for name in named if name not in {bucket for _, bucket in there}]
    wanted = [(name, bucket) for name, bucket in there if not named or bucket in named]
    if named and not wanted:
        raise PlatformError(
            "PARTIAL",
            f"there is no bucket {', '.join(named)}; nothing was changed",
            steps=("invoke minio.buckets", "invoke minio.init makes the platform's buckets again"),
            details={"missing": list(named)},
        )
    return [BucketSource(name, bucket, clients[name].versioning(bucket)) for name, bucket in wanted]


def everything(clients: Mapping[str, Client]) -> list[tuple[str, str]]:
    """Return every bucket with its store, once each: on some tiers both stores are one server.

    Raises:
        PlatformError: UNREACHABLE or LOGIN_REFUSED.
    """
    homes = {b.name: b.store for b in catalog.BUCKETS + catalog.OBS_BUCKETS}
    found: dict[tuple[str, int, str], str] = {}
    for name, client in sorted(clients.items()):
        for bucket in client.buckets():
            server = (client.login.host, client.login.port, bucket)
            if server not in found or homes.get(bucket) == name:
                found[server] = name
    return sorted((name, bucket) for (_, _, bucket), name in found.items())


def backup(
    clients: Mapping[str, Client],
    target: Path,
    found: list[BucketSource],
    versions: bool,
    tally: Tally,
    seeds: Sequence[Path] = (),
    **facts: object,
) -> store.Backup:
    """Make and publish a backup; the caller holds the lock of the target.

    Args:
        versions: whether every version and delete marker is kept where a bucket has versions.
        seeds: other targets whose contents are taken over (by a hard link where that can be) instead of being read
            from the store once more.
        facts: further entries of the manifest.

    Raises:
        PlatformError: UNREACHABLE or LOGIN_REFUSED (nothing published), BACKUP_FAILED.
    """
    journal = _journal(target)
    with store.publishing(target, records.KIND) as (draft, said):
        scratch = draft.directory / "tmp"
        scratch.mkdir(mode=0o700)
        with _known(target, found, seeds) as known, crew(clients, target, scratch, tally.watch) as workers:
            counted = _write(journal, clients, workers, found, versions, known, tally)
        scratch.rmdir()
        os.rename(journal, draft.path(records.MANIFEST))
        draft.add(records.MANIFEST)
        said |= {"buckets": counted, "objects": tally.objects, "bytes": tally.size, "versions": versions, **facts}
        said |= {"gone": tally.gone, "failed": tally.failed}
        name = said["name"]
    return store.load(target / name)


def _journal(target: Path) -> Path:
    """Prepare a place for the new journal; one left by an interrupted run is set aside for reading."""
    journal = target / JOURNAL
    with contextlib.suppress(FileNotFoundError):
        os.replace(journal, target / f"{JOURNAL}-old")
    return journal


@contextlib.contextmanager
def _known(target: Path, found: list[BucketSource], seeds: Sequence[Path]) -> Iterator[_Known]:
    """Look up everything that earlier runs wrote down about these buckets."""
    with contextlib.ExitStack() as stack:
        known = _Known(Pool(target), seeds=[Pool(seed) for seed in seeds])
        targets = (target, *seeds)
        newest = [b for t in targets for b in reversed(records.listing(t)) if not b.problem]
        opened: dict[Path, Earlier] = {}
        for source in found:
            holder = next((b for b in newest if _holds(b, source)), None)
            if holder is not None and holder.path not in opened and (past := _open(holder)):
                opened[holder.path] = past
                stack.callback(past.file.close)
            if holder is not None and holder.path in opened:
                known.by_bucket[source.store, source.name] = opened[holder.path]
        known.interrupted = records.earlier(target / f"{JOURNAL}-old")
        if known.interrupted:
            stack.callback(known.interrupted.file.close)
        yield known
    with contextlib.suppress(FileNotFoundError):
        (target / f"{JOURNAL}-old").unlink()


def _holds(backup: store.Backup, source: BucketSource) -> bool:
    return any((b["store"], b["name"]) == (source.store, source.name) for b in backup.facts.get("buckets", []))


def _open(backup: store.Backup) -> Earlier | None:
    """Open an earlier manifest if it is the one that was published: a damaged line must not be taken over."""
    try:
        store.check_files(backup)
    except PlatformError:
        return None
    return records.earlier(backup.path / records.MANIFEST)


@dataclass
class _Known:
    pool: Pool
    by_bucket: dict[tuple[str, str], Earlier] = field(default_factory=dict)
    interrupted: Earlier | None = None
    seeds: list[Pool] = field(default_factory=list)

    def line(self, item: ObjectItem) -> tuple[Record, str]:
        """Return the earlier record of an object that need not be read again."""
        for past in (self.by_bucket.get((item.store, item.bucket)), self.interrupted):
            record, line = past.find(item) if past else ({}, "")
            if record and self._has(record["sha256"], record["size"]):
                return record, line
        return {}, ""

    def _has(self, sha256: str, size: int) -> bool:
        return self.pool.has(sha256, size) or any(self.pool.take_over(seed, sha256, size) for seed in self.seeds)


def _write(
    journal: Path,
    clients: Mapping[str, Client],
    workers: Crew,
    found: list[BucketSource],
    versions: bool,
    known: _Known,
    tally: Tally,
) -> list[dict[str, Any]]:
    """Fill the journal; returns what the manifest says about each bucket."""
    counted, touched = [], set[str]()
    descriptor = private.new_file(journal)
    with os.fdopen(descriptor, "w", encoding="ascii", newline="\n") as file:
        for source in found:
            before = (tally.objects, tally.size)
            all_of_it = versions and source.versioning != ""
            listed = clients[source.store].listing(source.name, versions=all_of_it)
            _bucket(file, workers, source, listed, known, tally, touched)
            sums = {"objects": tally.objects - before[0], "bytes": tally.size - before[1]}
            counted.append({**vars(source), "all_versions": all_of_it, **sums})
    Pool(workers.target).sync(touched)
    return counted


def _bucket(
    file: IO[str],
    workers: Crew,
    source: BucketSource,
    listed: Iterator[ListedObject],
    known: _Known,
    tally: Tally,
    touched: set[str],
) -> None:
    """Write one line for each entry of a listing, in its order, while later ones are being read."""
    under_way: deque[Future[Record] | tuple[Record, str]] = deque()
    for entry in listed:
        item = records.item_of(source.store, source.name, entry)
        under_way.append(_begun(workers, item, entry, known))
        while len(under_way) > WINDOW:
            _end(file, under_way.popleft(), tally, touched)
    while under_way:
        _end(file, under_way.popleft(), tally, touched)


def _begun(workers: Crew, item: ObjectItem, entry: ListedObject, known: _Known) -> Future[Record] | tuple[Record, str]:
    if entry.deleted:
        facts = {"version": entry.version, "latest": entry.latest, "modified": entry.modified, "deleted": True}
        record = {"store": item.store, "bucket": item.bucket, "key": item.key, **facts}
        return record, records.line_of(record)
    record, line = known.line(item)
    if not record:
        return workers.read(item)
    if bool(record.get("latest", True)) != item.latest:
        record = {**{k: v for k, v in record.items() if k != "latest"}, **({} if item.latest else {"latest": False})}
        line = records.line_of(record)
    return record, line


def _end(file: IO[str], begun: Future[Record] | tuple[Record, str], tally: Tally, touched: set[str]) -> None:
    if isinstance(begun, tuple):
        record, line = begun
    else:
        record = _awaited(begun, tally)
        line = records.line_of(record)
        if records.has_content(record):
            touched.add(record["sha256"][:2])
            tally.new += 1
    file.write(line)
    _count(record, tally)


def _awaited(future: Future[Record], tally: Tally) -> Record:
    while True:
        try:
            return future.result(TICK)
        except NotYet:
            if future.done():
                raise  # a time-out of the work itself, not of the waiting
            tally.tick(tally)


def _count(record: Record, tally: Tally) -> None:
    if records.has_content(record):
        tally.objects += 1
        tally.size += record["size"]
    if record.get("gone"):
        tally.gone += 1
    if "failed" in record:
        tally.failed.append(f"{record['bucket']}/{record['key']}: {record['failed']}")
    if tally.objects % WINDOW == 0:
        tally.tick(tally)
