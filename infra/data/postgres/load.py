"""A database of a backup loaded into a scratch database."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra import private, shell
from infra.data import store
from infra.data.postgres import clients, dump, guest, packing, reasons, scratch
from infra.data.postgres.children import Children, side_by_side
from infra.data.postgres.clients import Server
from infra.data.postgres.digest import Sink
from infra.data.postgres.facts import DatabaseFacts
from infra.data.postgres.guest import Guest
from infra.data.store import Backup

if TYPE_CHECKING:
    import psycopg

AT_ONCE = 4
"""Databases, and jobs of pg_restore for each, at the most: 20 connections; by default a server takes 100."""


RESERVE = 256 << 20
"""Bytes that unpacking leaves on a disk, which databases and logs need: others fill it meanwhile."""
SLACK = 1 << 20
"""Bytes of a database's files that its manifest does not count, at the most: ends of tables, lists of large objects."""
_END_OF_TABLE = 64
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

    `despite`: load what can be loaded, and say what differs. `guest`: who loads what is not trusted.
    """

    server: Server
    backup: Backup
    names: Mapping[str, str]
    room: Room
    children: Children
    despite: bool = False
    guest: Guest | None = None

    @property
    def loader(self) -> Server:
        """Return the server as the one who loads and reads the scratch databases sees it."""
        return self.guest.server if self.guest else self.server

    def entry(self, database: str) -> Mapping[str, Any]:
        """Return the manifest's entry of a database."""
        entry: Mapping[str, Any] = self.backup.facts["databases"][database]
        return entry

    def size(self, database: str) -> int:
        """Return the bytes of the rows of a database as COPY text."""
        return sum(int(t["bytes"]) for t in self.entry(database)["tables"].values())

    def budget(self, database: str) -> Budget:
        """Return the bytes that a database's files may have when they are unpacked: its rows, and what is plain."""
        plain = sum(file.size for name, file in self.files(database).items() if not packing.is_packed(name))
        ends = _END_OF_TABLE * len(self.entry(database)["tables"])
        return Budget(self.size(database) + plain + ends + SLACK)

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
            lacking.extend(_created(link, order, database))

    with order.room.of(order.size(database), order.children), unpacked(order, database, make) as directory:
        lacking += load(order, directory, database)
    if order.guest:
        guest.require_rows(order.guest, database)
    return lacking


def _created(link: psycopg.Connection[Any], order: LoadOrder, database: str) -> list[str]:
    facts = DatabaseFacts.of(order.entry(database))
    lacking = scratch.create(link, order.server, facts, order.names[database], order.despite)
    if order.guest:
        guest.own(link, order.guest, order.names[database])
    return lacking


@contextlib.contextmanager
def unpacked(order: LoadOrder, database: str, meanwhile: Callable[[], None]) -> Iterator[Path]:
    """Unpack a database's files of a backup for the block, as pg_restore wants them; call `meanwhile` during it.

    Raises:
        PlatformError: BACKUP_DAMAGED naming the file, or BACKUP_FAILED when the disk is full.
    """
    target = order.room.directory / str(order.entry(database)["directory"])
    target.mkdir(mode=0o700)
    files = sorted(order.files(database).items(), key=lambda item: -item[1].size)
    budget = order.budget(database)

    def job(name: str, file: store.File) -> Callable[[], None]:
        return lambda: unpack(order, file, target / name, budget)

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
class Budget:
    """The bytes to which files may unpack together; a kilobyte of zstd can stand for gigabytes."""

    left: int
    guard: threading.Lock = field(default_factory=threading.Lock)

    def take(self, size: int) -> None:
        """Take some of them. Raises ValueError when there are not so many."""
        with self.guard:
            self.left -= size
            if self.left < 0:
                raise ValueError("it unpacks to more than the manifest says")


@dataclass
class _Sparing:
    """A file within a budget, on a disk of which RESERVE bytes stay free."""

    sink: Sink
    directory: Path
    budget: Budget
    fresh: int = 0

    def write(self, chunk: bytes) -> int:
        self.budget.take(len(chunk))
        self.fresh += len(chunk)
        if self.fresh > STEP:
            self.fresh = 0
            if shutil.disk_usage(self.directory).free < RESERVE:
                raise OSError(errno.ENOSPC, "the unpacked file is larger than the disk can take")
        return self.sink.write(chunk)


def unpack(order: LoadOrder, file: store.File, target: Path, budget: Budget) -> None:
    """Write a file of the backup as it was before it was packed, without the suffix of packed ones.

    Raises:
        PlatformError: BACKUP_DAMAGED naming the file, also where it unpacks to more than the budget has left, or
            BACKUP_FAILED when the disk is full.
    """
    packed = packing.is_packed(target.name)
    target = target.with_name(packing.plain_name(target.name))
    try:
        with os.fdopen(private.new_file(target), "wb") as raw:
            read_into(order, file, _Sparing(raw, order.room.directory, budget), packed)
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
    listed = _Listed(order, directory, database)
    result = _restored(listed)
    while result.code and not order.despite and listed.changed(result):
        _emptied(order, database)
        result = _restored(listed)
    left_out = reasons.ignored(result) if order.despite else []
    if result.code and not left_out:
        said = guest.failures(result) if order.guest else result
        raise reasons.load_failed(order.loader, database, order.names[database], _argv(listed), said)
    with order.children.connected(order.loader.endpoints, order.names[database]) as link:
        clients.tried(link, "analyze")  # statistics alone, which an index by a function may refuse
    return left_out


@dataclass
class _Listed:
    """The entries of an archive that are loaded: without those that the guest may not create, some rows last."""

    order: LoadOrder
    directory: Path
    database: str
    last: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.order.guest:
            self._leave_out(guest.to_leave_out(self.entries))

    @functools.cached_property
    def entries(self) -> Mapping[str, dump.ArchiveEntry]:
        return dump.read_entries(self.order.loader, self.order.children, self.directory)

    def changed(self, result: shell.Result) -> bool:
        """Tell whether other entries, or another order, may help against a failure."""
        table = reasons.checked(result)
        if table and table not in self.last:
            self.last.append(table)
            return True
        denied = guest.denied(result, self.entries) if self.order.guest else {}
        return self._leave_out(denied)

    def _leave_out(self, more: Mapping[str, str]) -> bool:
        fresh = {number: why for number, why in more.items() if number not in self.left_out}
        self.left_out |= fresh
        if self.order.guest:
            skipped = self.order.guest.skipped.setdefault(self.database, {})
            skipped |= {self.entries[number].label: why for number, why in fresh.items()}
        return bool(fresh)

    def options(self) -> list[str]:
        """Return the options that make pg_restore follow it."""
        if not self.last and not self.order.guest:
            return []
        path = self.directory.with_name(f"{self.directory.name}.list")
        labels = {number: entry.label for number, entry in self.entries.items()}
        path.write_text(dump.listing(labels, self.last, self.left_out), encoding="utf-8")
        return [f"--use-list={path}"]


def _restored(listed: _Listed) -> shell.Result:
    return listed.order.children.run(_argv(listed), clients.login(listed.order.loader))


def _argv(listed: _Listed) -> list[str]:
    order, database = listed.order, listed.database
    jobs = 1 if listed.last else min(os.cpu_count() or 2, AT_ONCE)
    argv = [order.server.clients.program("pg_restore"), "--format=directory", f"--jobs={jobs}", "--no-password"]
    argv += [] if order.despite else ["--exit-on-error"]
    argv += guest.OPTIONS if order.guest else _without_tablespaces(order, database)
    return [*argv, *listed.options(), f"--dbname={dump.quoted(order.names[database])}", str(listed.directory)]


def _emptied(order: LoadOrder, database: str) -> None:
    with order.children.connected(order.server.endpoints) as link:
        scratch.drop(order.server, link, order.names[database])
        _created(link, order, database)


def _without_tablespaces(order: LoadOrder, database: str) -> list[str]:
    """Return options that put into the default tablespace what belongs into one that the server lacks."""
    wanted = set(order.entry(database).get("tablespaces", ()))
    if not wanted:
        return []
    with order.children.connected(order.server.endpoints) as link:
        there = {name for (name,) in link.execute("select spcname from pg_tablespace")}
    return ["--no-tablespaces"] if wanted - there else []
