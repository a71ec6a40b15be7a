"""Databases of a backup loaded into scratch databases side by side, then compared with what its manifest says."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from infra.data import postgres_clients as clients
from infra.data import postgres_digest as digest
from infra.data import postgres_dump, postgres_scratch, store
from infra.data.postgres_backup import Event, silent
from infra.data.postgres_children import Children, Done, side_by_side
from infra.data.postgres_clients import Server
from infra.data.postgres_dump import Archive, Content
from infra.data.postgres_facts import DatabaseFacts
from infra.data.store import Backup
from infra.errors import PlatformError

AT_ONCE = 4
"""Databases, and jobs of pg_restore for each, at the most: 20 connections; by default a server takes 100."""


@dataclass
class Room:
    """The free space of a directory, shared by those who unpack into it at the same time."""

    directory: Path
    taken: int = 0
    changed: threading.Condition = field(default_factory=threading.Condition)

    @contextlib.contextmanager
    def of(self, size: int, children: Children) -> Iterator[None]:
        """Have `size` bytes for the block; waits while others have what is missing.

        Raises:
            PlatformError: BACKUP_FAILED when it does not fit although nobody else has any.
        """
        with self.changed:
            while shutil.disk_usage(self.directory).free < size + self.taken:
                children.require()
                if not self.taken:
                    raise store.no_space_or_access(self.directory, OSError(28, "the unpacked files do not fit"), size)
                self.changed.wait(0.2)
            self.taken += size
        try:
            yield
        finally:
            with self.changed:
                self.taken -= size
                self.changed.notify_all()


@dataclass(frozen=True)
class Order:
    """What is loaded: databases of a backup by name, with the scratch database of each; `room` to unpack into."""

    server: Server
    backup: Backup
    names: Mapping[str, str]
    room: Room
    children: Children

    def entry(self, database: str) -> Mapping[str, Any]:
        """What the manifest says of a database."""
        entry: Mapping[str, Any] = self.backup.facts["databases"][database]
        return entry

    def files(self, database: str) -> dict[str, store.File]:
        """The files of a database by their name in its archive."""
        prefix = f"{self.entry(database)['directory']}/"
        return {f.path[len(prefix) :]: f for f in self.backup.files if f.path.startswith(prefix)}


@dataclass(frozen=True)
class Loaded:
    """What was found in the scratch databases; seconds for loading all of them, and for comparing all of them."""

    archives: Mapping[str, Archive]
    load_seconds: float
    check_seconds: float


def loaded(order: Order, event: Event = silent) -> Loaded:
    """Make, fill and compare scratch databases, the largest first; the first failure ends the work on all.

    Raises:
        PlatformError: BACKUP_DAMAGED (also when a copy is not what was backed up), BACKUP_FAILED, DATA_INCOMPATIBLE.
    """
    databases = sorted(order.names, key=lambda name: -_size(order.entry(name)))
    began = time.monotonic()
    _each(order, databases, fill, event, "loaded")
    middle = time.monotonic()
    archives = _each(order, databases, compare, event, "compared")
    return Loaded(archives, middle - began, time.monotonic() - middle)


def _size(entry: Mapping[str, Any]) -> int:
    return sum(int(t["bytes"]) for t in entry["tables"].values())


def _each(
    order: Order, databases: Sequence[str], work: Callable[[Order, str], Done], event: Event, done: str
) -> dict[str, Done]:
    def job(database: str) -> Callable[[], Done]:
        def run() -> Done:
            began = time.monotonic()
            result = work(order, database)
            event(done, {"database": database, "seconds": round(time.monotonic() - began, 3)})
            return result

        return run

    limit = min(os.cpu_count() or 2, AT_ONCE)
    return dict(zip(databases, side_by_side(order.children, limit, [job(d) for d in databases]), strict=True))


def fill(order: Order, database: str) -> None:
    """Make a scratch database and load it; what was unpacked for it is gone afterwards."""
    entry = order.entry(database)
    with order.children.connected(order.server.endpoints) as link:
        postgres_scratch.create(link, order.server, DatabaseFacts.of(entry), order.names[database])
    with order.room.of(_size(entry), order.children), unpacked(order, database) as directory:
        load(order, directory, order.names[database])


@contextlib.contextmanager
def unpacked(order: Order, database: str) -> Iterator[Path]:
    """A database's files of a backup for the block, as pg_restore wants them.

    Raises:
        PlatformError: BACKUP_DAMAGED naming the file, or BACKUP_FAILED when the disk is full.
    """
    target = order.room.directory / str(order.entry(database)["directory"])
    target.mkdir(mode=0o700)
    files = sorted(order.files(database).items(), key=lambda item: -item[1].size)

    def job(name: str, file: store.File) -> Callable[[], None]:
        return lambda: _unpack(order, file, target / name)

    try:
        side_by_side(order.children, 2, [job(n, f) for n, f in files])
        yield target
    finally:
        shutil.rmtree(target, ignore_errors=True)


@dataclass(frozen=True)
class _Watched:
    """A file that takes no more once the run has been stopped."""

    file: BinaryIO
    children: Children

    def write(self, chunk: bytes) -> int:
        self.children.require()
        return self.file.write(chunk)


def _unpack(order: Order, file: store.File, target: Path) -> None:
    packed = target.name.endswith(digest.SUFFIX)
    target = target.with_name(target.name.removesuffix(digest.SUFFIX))
    try:
        with digest.private(target) as raw:
            digest.copy(store.open_file(order.backup, file), _Watched(raw, order.children), packed)
    except ValueError as error:
        raise store.damaged(order.backup, file.path, f"cannot be unpacked: {error}") from error
    except OSError as error:
        raise store.no_space_or_access(target.parent, error, file.size) from error


def load(order: Order, directory: Path, name: str) -> None:
    """Fill an empty database from an unpacked archive, and gather statistics.

    Raises:
        PlatformError: BACKUP_FAILED with what pg_restore said.
    """
    jobs = min(os.cpu_count() or 2, AT_ONCE)
    argv = [order.server.clients.program("pg_restore"), "--format=directory", f"--jobs={jobs}", "--exit-on-error"]
    argv += ["--no-password", f"--dbname={postgres_dump.quoted(name)}", str(directory)]
    result = order.children.run(argv, clients.login(order.server.endpoints))
    if result.code:
        raise clients.failure("BACKUP_FAILED", argv, result, f"{name} could not be filled")
    with order.children.connected(order.server.endpoints, name) as link:
        link.execute("analyze")


def compare(order: Order, database: str) -> Archive:
    """Compare a filled database with the manifest: objects, rows and digest of every table.

    The copy is dumped again; where a table's text differs, its rows may have another order, which is looked into.

    Raises:
        PlatformError: BACKUP_DAMAGED with what differs.
    """
    saved = postgres_dump.from_summary(order.entry(database))
    found, sums = _dumped(order, database, {c.digest for c in saved.tables.values()})
    same_version = order.backup.facts["client"]["number"] // 10000 == order.server.clients.number // 10000
    wrong = postgres_dump.other_objects(saved, found, same_version)
    labels = postgres_dump.different(saved, found)
    wrong += _other_rows(order, database, {label: sums.get(label) for label in labels}) if labels else []
    if wrong:
        raise _not_the_same(order.backup, database, wrong)
    return found


def _dumped(order: Order, database: str, known: set[str]) -> tuple[Archive, dict[str, tuple[int, int]]]:
    """What is in a filled database, and sums without regard to order for the tables of no known digest."""
    raw = order.room.directory / f"{order.entry(database)['directory']}.again"
    sums: dict[Content, tuple[int, int]] = {}

    def take(path: Path, growing: Callable[[], bool]) -> Content:
        content = digest.measure(path, growing)
        if content.digest not in known:
            sums[content] = digest.unordered(path, order.children.require)
        return content

    found = postgres_dump.dump(order.server, order.children, order.names[database], raw, take)
    shutil.rmtree(raw, ignore_errors=True)
    return found, {label: sums[content] for label, content in found.tables.items() if content in sums}


def _other_rows(order: Order, database: str, sums: Mapping[str, tuple[int, int] | None]) -> list[str]:
    """Which of these tables have other rows than the backup, whatever their order; in words."""
    directory, files = order.room.directory / f"{order.entry(database)['directory']}.toc", order.files(database)
    directory.mkdir(mode=0o700)
    if postgres_dump.TOC in files:
        _unpack(order, files[postgres_dump.TOC], directory / postgres_dump.TOC)
    numbers = {label: n for n, label in postgres_dump.list_entries(order.server, order.children, directory).items()}
    wrong = []
    for label, found in sums.items():
        file = files.get(f"{numbers.get(label, '')}.dat{digest.SUFFIX}")
        if found is None or file is None or _rows(order, order.entry(database)["tables"][label], file) != found:
            wrong.append(f"other content: {label}")
    return wrong


def _rows(order: Order, table: Mapping[str, Any], file: store.File) -> tuple[int, int]:
    target = order.room.directory / file.path.replace("/", "-")
    with order.room.of(int(table["bytes"]), order.children):
        _unpack(order, file, target)
        target = target.with_name(target.name.removesuffix(digest.SUFFIX))
        try:
            return digest.unordered(target, order.children.require)
        finally:
            target.unlink()


def _not_the_same(backup: Backup, database: str, differences: Sequence[str]) -> PlatformError:
    error = store.damaged(backup, database, "is not the same once it is restored")
    return PlatformError(
        error.code,
        error.what,
        why="; ".join(differences[:5]),
        steps=error.steps,
        details={**error.details, "differences": list(differences)},
    )


def contents(archive: Archive) -> dict[str, Any]:
    """Tables and rows of a loaded database."""
    return {"tables": len(archive.tables), "rows": sum(c.rows for c in archive.tables.values())}
