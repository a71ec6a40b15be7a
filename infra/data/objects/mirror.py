"""Buckets as a plain tree of files, `<directory>/<bucket>/<key>`, written or read; nothing is ever deleted.

A tree is no backup: it holds neither metadata nor versions, and keys that are no safe paths are refused by name.
"""

from __future__ import annotations

import calendar
import contextlib
import os
import re
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from infra.data import store
from infra.data.objects import backup, crew, fetch, keys
from infra.data.objects import tree as objects_tree
from infra.data.objects.backup import BucketSource
from infra.data.objects.client import Client
from infra.data.objects.fetch import Changed
from infra.data.objects.keys import Sieve
from infra.data.objects.link import S3Error
from infra.data.objects.records import ObjectItem, item_of
from infra.data.objects.tree import Tree, Way
from infra.data.objects.upload import Slice, Uploads, send
from infra.data.objects.xml import ListedObject
from infra.errors import PlatformError

THREADS = 8
WINDOWS = os.name == "nt"


@dataclass
class Mirrored:
    """The outcome of a run: `refused` gives for each key (bucket/key) that was left out the reason."""

    copied: int = 0
    same: int = 0
    size: int = 0
    refused: dict[str, str] = field(default_factory=dict)
    tick: Callable[[Mirrored], None] = lambda done: None

    def watch(self, size: int) -> None:
        """Count bytes that have gone over the network."""
        self.size += size


def export(
    clients: Mapping[str, Client], target: Path, sources: list[BucketSource], done: Mirrored, portable: bool = WINDOWS
) -> None:
    """Write every safe key of these buckets as a file; what is there with the same size and time is left alone.

    Args:
        portable: refuse keys, too, that only other systems than this one cannot have as files.

    Raises:
        PlatformError: UNREACHABLE, LOGIN_REFUSED; BACKUP_FAILED when the disk is full or takes no writes.
    """
    try:
        Tree(target).sweep()
        fold = keys.case_folded if portable else objects_tree.fold_of(target)
        with _threads(clients) as threads:
            for source in sources:
                if _usable(source.name, done):
                    _export_bucket(clients[source.store], target, source, Sieve(fold, portable), threads, done)
    except OSError as error:
        raise store.no_space_or_access(target, error) from error


def _usable(bucket: str, done: Mirrored) -> bool:
    """Return whether a bucket's name may be a directory (a server could give any)."""
    problem = keys.problem(bucket) or ("has a /" if "/" in bucket else "")
    if problem:
        done.refused[bucket] = problem
    return not problem


def _export_bucket(
    client: Client, target: Path, source: BucketSource, sieve: Sieve, threads: ThreadPoolExecutor, done: Mirrored
) -> None:
    root = target / source.name
    for entry in client.listing(source.name):
        sieve.add(entry.key)
    if root.is_symlink():
        done.refused[source.name] = "its directory is a symlink, which is not followed"
        return
    root.mkdir(mode=0o700, exist_ok=True)
    tree = Tree(root)

    def jobs() -> Iterator[tuple[str, Future[str]]]:
        for entry in client.listing(source.name):
            name = f"{source.name}/{entry.key}"
            if problem := sieve.problem(entry.key):
                done.refused[name] = problem
            else:
                item = item_of(source.store, source.name, entry)
                yield name, threads.submit(_to_file, client, tree, item, done)

    _all_of(jobs(), done)


def _to_file(client: Client, tree: Tree, item: ObjectItem, done: Mirrored) -> str:
    """Write one file; returns `same`, `copied`, or why not."""
    stamp = _seconds(item.modified)
    try:
        there = tree.stat(item.key)
        if there is not None and stamp and (there.st_size, int(there.st_mtime)) == (item.size, int(stamp)):
            return "same"
        return _copied(client, tree, item, done)
    except (Way, S3Error) as error:
        return str(error)
    except OSError as error:
        if error.errno in _OF_THE_NAME:
            return error.strerror or str(error)
        raise


# Not a directory, is a directory, name too long, illegal name: about one key, not about the disk.
_OF_THE_NAME = frozenset({20, 21, 22, 36, 63, 84, 92})


def _copied(client: Client, tree: Tree, item: ObjectItem, done: Mirrored) -> str:
    for _ in range(fetch.CHANGES):
        try:
            with tree.writing(item.key) as descriptor, os.fdopen(os.dup(descriptor), "wb", buffering=0) as file:
                fetch.download(client, item, file, done.watch)
                _set_time(file, item)
                os.fsync(file.fileno())
            _set_time_of(tree.root / item.key, item)
            return "copied"
        except Changed:
            newer = fetch.again(client, item)
            if newer is None:
                return "it was deleted in the meantime"
            item = newer
    return "it kept changing while it was being read"


def _set_time(file: IO[bytes], item: ObjectItem) -> None:
    """Set the file's time to the object's: so the next run knows what it need not copy."""
    stamp = _seconds(item.modified)
    if stamp and os.utime in os.supports_fd:
        os.utime(file.fileno(), (stamp, stamp))


def _set_time_of(path: Path, item: ObjectItem) -> None:
    """Set it by name, on systems that set no time of an open file (Windows)."""
    stamp = _seconds(item.modified)
    if stamp and os.utime not in os.supports_fd:
        os.utime(path, (stamp, stamp))


def _seconds(modified: str) -> float:
    """Return a listing's time as seconds since 1970; 0 when it cannot be read."""
    with contextlib.suppress(ValueError):
        return calendar.timegm(time.strptime(re.sub(r"\.\d+", "", modified), "%Y-%m-%dT%H:%M:%SZ"))
    return 0.0


def read_in(
    clients: Mapping[str, Client], root: Path, named: tuple[str, ...], homes: Mapping[str, str], uploads: Uploads,
    done: Mirrored,
) -> None:  # fmt: skip
    """Write the files of a tree as objects; each first directory is a bucket. Same content is not sent again.

    Args:
        homes: the store of each bucket that exists or is to be created.
        uploads: where uploads in parts are noted.

    Raises:
        PlatformError: NOT_FOUND when there is no such tree; UNREACHABLE, LOGIN_REFUSED.
    """
    if root.is_symlink() or not root.is_dir():
        raise PlatformError("NOT_FOUND", f"there is no directory {root}", steps=("invoke minio.mirror --from DIR",))
    logins = {name: client.login for name, client in clients.items()}
    uploads.clear(logins)
    try:
        with _threads(clients) as threads:
            for bucket in sorted(os.listdir(root)):
                if not named or bucket in named:
                    _import_bucket(clients, root / bucket, homes.get(bucket, ""), threads, uploads, done)
    finally:
        uploads.clear(logins)


def _import_bucket(
    clients: Mapping[str, Client], root: Path, home: str, threads: ThreadPoolExecutor, uploads: Uploads, done: Mirrored
) -> None:
    if root.is_symlink() or not root.is_dir():
        done.refused[root.name] = "is not a directory, or is a symlink; buckets are directories"
        return
    if not home:
        done.refused[root.name] = "no store has this bucket, and it is not one of the platform's"
        return
    client, tree = clients[home], Tree(root)
    client.make_bucket(root.name)
    there = {entry.key: entry for entry in client.listing(root.name)}

    def jobs() -> Iterator[tuple[str, Future[str]]]:
        for path, problem in tree.files():
            problem = problem or keys.problem(path, WINDOWS)
            if problem:
                done.refused[f"{root.name}/{path}"] = problem
            else:
                here = threads.submit(_to_object, client, home, tree, path, there.get(path), uploads, done)
                yield f"{root.name}/{path}", here

    _all_of(jobs(), done)


def _to_object(
    client: Client, home: str, tree: Tree, path: str, entry: ListedObject | None, uploads: Uploads, done: Mirrored
) -> str:
    """Write one object; returns `same`, `copied`, or why not."""
    try:
        with os.fdopen(tree.reading(path), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            sha256, md5 = Slice(file, 0, size).digests()
            if entry is not None and (entry.size, entry.etag) == (size, md5.hex()):
                return "same"
            record = {"store": home, "bucket": tree.root.name, "key": path, "size": size, "sha256": sha256}
            send(client, {**record, "type": _type(path)}, file, uploads, done.watch)
            return "copied"
    except (Way, S3Error) as error:
        return str(error)


def _type(path: str) -> str:
    import mimetypes

    return mimetypes.guess_type(path)[0] or "application/octet-stream"


@contextlib.contextmanager
def _threads(clients: Mapping[str, Client]) -> Iterator[ThreadPoolExecutor]:
    threads = ThreadPoolExecutor(THREADS)
    try:
        yield threads
    except BaseException as error:
        crew.undisturbed(error)
        raise
    finally:
        for client in clients.values():
            client.stop()
        threads.shutdown(wait=True, cancel_futures=True)


def _all_of(jobs: Iterator[tuple[str, Future[str]]], done: Mirrored) -> None:
    under_way: deque[tuple[str, Future[str]]] = deque()
    for job in jobs:
        under_way.append(job)
        while len(under_way) > backup.WINDOW:
            _end(*under_way.popleft(), done)
    while under_way:
        _end(*under_way.popleft(), done)


def _end(name: str, future: Future[str], done: Mirrored) -> None:
    while True:
        try:
            outcome = future.result(backup.TICK)
            break
        except NotYet:
            if future.done():
                raise
            done.tick(done)
    if outcome in ("same", "copied"):
        done.same += outcome == "same"
        done.copied += outcome == "copied"
    else:
        done.refused[name] = outcome
    done.tick(done)
