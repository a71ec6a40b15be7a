"""A database of a backup loaded into a scratch database."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infra import private
from infra.data import store
from infra.data.postgres import clients, dump, packing, reasons, scratch
from infra.data.postgres.children import Children, side_by_side
from infra.data.postgres.clients import Server
from infra.data.postgres.digest import Sink
from infra.data.postgres.facts import DatabaseFacts
from infra.data.store import Backup

AT_ONCE = 4
"""Databases, and jobs of pg_restore for each, at the most: 20 connections; by default a server takes 100."""


RESERVE = 256 << 20
"""Bytes that unpacking leaves on a disk, which databases and logs need: a backup may say too little of its sizes."""
STEP = 32 << 20
"""Bytes of one file between two looks at the disk."""


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
class LoadOrder:
    """One load: databases of a backup by name, with the scratch database of each; `room` to unpack into.

    `despite`: load what can be loaded, and say what differs.
    """

    server: Server
    backup: Backup
    names: Mapping[str, str]
    room: Room
    children: Children
    despite: bool = False

    def entry(self, database: str) -> Mapping[str, Any]:
        """Return the manifest's entry of a database."""
        entry: Mapping[str, Any] = self.backup.facts["databases"][database]
        return entry

    def size(self, database: str) -> int:
        """Return the bytes of the rows of a database as COPY text."""
        return sum(int(t["bytes"]) for t in self.entry(database)["tables"].values())

    def files(self, database: str) -> dict[str, store.File]:
        """Return the files of a database by their name in its archive."""
        prefix = f"{self.entry(database)['directory']}/"
        return {f.path[len(prefix) :]: f for f in self.backup.files if f.path.startswith(prefix)}


def fill(order: LoadOrder, database: str) -> list[str]:
    """Make a scratch database and load it; what was unpacked for it is gone afterwards.

    Returns what could not be loaded, where that is only to be said.
    """
    lacking: list[str] = []

    def make() -> None:
        with order.children.connected(order.server.endpoints) as link:
            facts = DatabaseFacts.of(order.entry(database))
            lacking.extend(scratch.create(link, order.server, facts, order.names[database], order.despite))

    with order.room.of(order.size(database), order.children), unpacked(order, database, make) as directory:
        return lacking + load(order, directory, database)


@contextlib.contextmanager
def unpacked(order: LoadOrder, database: str, meanwhile: Callable[[], None]) -> Iterator[Path]:
    """Unpack a database's files of a backup for the block, as pg_restore wants them; call `meanwhile` during it.

    Raises:
        PlatformError: BACKUP_DAMAGED naming the file, or BACKUP_FAILED when the disk is full.
    """
    target = order.room.directory / str(order.entry(database)["directory"])
    target.mkdir(mode=0o700)
    files = sorted(order.files(database).items(), key=lambda item: -item[1].size)

    def job(name: str, file: store.File) -> Callable[[], None]:
        return lambda: unpack(order, file, target / name)

    try:
        side_by_side(order.children, 2, [meanwhile, *(job(n, f) for n, f in files)])
        yield target
    finally:
        shutil.rmtree(target, ignore_errors=True)


@dataclass(frozen=True)
class _Watched:
    """A sink that takes no more once the run has been stopped."""

    sink: Sink
    children: Children

    def write(self, chunk: bytes) -> int:
        self.children.require()
        return self.sink.write(chunk)


@dataclass
class _Sparing:
    """A file on a disk of which RESERVE bytes stay free."""

    sink: Sink
    directory: Path
    fresh: int = 0

    def write(self, chunk: bytes) -> int:
        self.fresh += len(chunk)
        if self.fresh > STEP:
            self.fresh = 0
            if shutil.disk_usage(self.directory).free < RESERVE:
                raise OSError(errno.ENOSPC, "the unpacked file is larger than the disk can take")
        return self.sink.write(chunk)


def unpack(order: LoadOrder, file: store.File, target: Path) -> None:
    """Write a file of the backup as it was before it was packed, without the suffix of packed ones.

    Raises:
        PlatformError: BACKUP_DAMAGED naming the file, or BACKUP_FAILED when the disk is full.
    """
    packed = packing.is_packed(target.name)
    target = target.with_name(packing.plain_name(target.name))
    try:
        with os.fdopen(private.new_file(target), "wb") as raw:
            read_into(order, file, _Sparing(raw, order.room.directory), packed)
    except OSError as error:
        raise store.no_space_or_access(target.parent, error, file.size) from error


def read_into(order: LoadOrder, file: store.File, sink: Sink, packed: bool) -> None:
    """Give a sink what a file of the backup holds. Raises PlatformError BACKUP_DAMAGED naming the file."""
    try:
        packing.copy(store.open_file(order.backup, file), _Watched(sink, order.children), packed)
    except ValueError as error:
        raise store.damaged(order.backup, file.path, f"cannot be unpacked: {error}") from error


def load(order: LoadOrder, directory: Path, database: str) -> list[str]:
    """Fill an empty database from an unpacked archive, and gather statistics.

    A check that reads another table, which a dump knows nothing of, may fail since that one is still empty: such a
    table is then loaded last, after the others, in an empty database again.

    Returns what could not be loaded, where that is only to be said.

    Raises:
        PlatformError: BACKUP_FAILED with what pg_restore said, and what helps where that is known.
    """
    argv, last = _argv(order, directory, database), list[str]()
    result = order.children.run(argv, clients.login(order.server))
    while result.code and (table := reasons.checked(result)) and table not in last and not order.despite:
        last.append(table)
        _emptied(order, database)
        listed = directory.with_name(f"{directory.name}.list")
        listed.write_text(dump.listed_last(order.server, order.children, directory, last), encoding="utf-8")
        argv = [*_argv(order, directory, database, jobs=1), f"--use-list={listed}"]
        result = order.children.run(argv, clients.login(order.server))
    left_out = reasons.ignored(result) if order.despite else []
    if result.code and not left_out:
        raise reasons.load_failed(order.server, database, order.names[database], argv, result)
    with order.children.connected(order.server.endpoints, order.names[database]) as link:
        clients.tried(link, "analyze")  # statistics alone, which an index by a function may refuse
    return left_out


def _argv(order: LoadOrder, directory: Path, database: str, jobs: int = 0) -> list[str]:
    jobs = jobs or min(os.cpu_count() or 2, AT_ONCE)
    argv = [order.server.clients.program("pg_restore"), "--format=directory", f"--jobs={jobs}", "--no-password"]
    argv += ([] if order.despite else ["--exit-on-error"]) + _without_tablespaces(order, database)
    return [*argv, f"--dbname={dump.quoted(order.names[database])}", str(directory)]


def _emptied(order: LoadOrder, database: str) -> None:
    with order.children.connected(order.server.endpoints) as link:
        scratch.drop(order.server, link, order.names[database])
        facts = DatabaseFacts.of(order.entry(database))
        scratch.create(link, order.server, facts, order.names[database])


def _without_tablespaces(order: LoadOrder, database: str) -> list[str]:
    """Return options that put into the default tablespace what belongs into one that the server lacks."""
    wanted = set(order.entry(database).get("tablespaces", ()))
    if not wanted:
        return []
    with order.children.connected(order.server.endpoints) as link:
        there = {name for (name,) in link.execute("select spcname from pg_tablespace")}
    return ["--no-tablespaces"] if wanted - there else []
