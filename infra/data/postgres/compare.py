"""A scratch database compared with what the manifest of its backup says."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from infra import shell
from infra.data import store
from infra.data.postgres import digest, dump, packing
from infra.data.postgres.digest import Content
from infra.data.postgres.dump import Archive
from infra.data.postgres.guest import Guest
from infra.data.postgres.load import LoadOrder, read_into, unpack
from infra.data.store import Backup
from infra.errors import PlatformError


@dataclass(frozen=True)
class Group:
    """Tables between which a restore may move rows: one alone, or all partitions of a table.

    A dump loads partitions by hash of an enum through the table at the top, since the hash is of numbers that the
    server gives to the labels. `columns` says for each table in which order its fields are to be read, empty for as
    they are: partitions of one table may have them in different orders.
    """

    columns: Mapping[str, tuple[int, ...]]

    def content(self, archive: Archive) -> tuple[int, int] | None:
        """Return the rows and bytes of all of them; None where one is missing."""
        found = [archive.tables.get(label) for label in self.columns]
        there = [content for content in found if content is not None]
        return (sum(c.rows for c in there), sum(c.size for c in there)) if len(there) == len(found) else None


@dataclass(frozen=True)
class Compared:
    """The content of a copy, and its differences from the backup that are only reported."""

    archive: Archive
    differences: tuple[str, ...] = ()


def compare(order: LoadOrder, database: str) -> Compared:
    """Compare a filled database with the manifest: objects, rows and digest of every table.

    The copy is dumped again; where a table's text differs, its rows may have another order, or lie in another
    partition of the same table, which is looked into.

    Raises:
        PlatformError: RESTORE_DIFFERS with what differs.
    """
    saved = _expected(order, database)
    found = _dumped(order, database, digest.measure, saved)
    same_version = order.backup.facts["client"]["number"] // 10000 == order.server.clients.number // 10000
    wrong = dump.other_objects(saved, found, same_version)
    labels = dump.different(saved, found)
    groups = [g for g in _groups(order, database, labels, saved) if (g.content(saved) or ()) == g.content(found)]
    same = _same_rows(order, database, found, groups) if groups else set()
    wrong += [f"different content: {label}" for label in labels if label not in same]
    if wrong and not order.despite:
        raise _not_the_same(order.backup, database, wrong)
    return Compared(found, tuple(wrong))


def _expected(order: LoadOrder, database: str) -> Archive:
    """Return what the copy must have of what the manifest says: less where a guest has loaded it."""
    saved = dump.from_summary(order.entry(database))
    if order.guest is None:
        return saved
    objects = order.guest.compared(database, saved.objects)
    return replace(saved, objects=tuple(label for label in objects if not label.startswith(_PUBLIC)))


_PUBLIC = "SCHEMA - public "
"""Every database has it; a dump only lists it where it belongs to somebody else."""


def _named(order: LoadOrder, saved: Archive) -> Callable[[str], str]:
    """Return what gives an entry of the copy the name that it has in the backup."""
    guest = order.guest
    if guest is None:
        return lambda label: label
    there = {*saved.objects, *saved.tables}
    return lambda label: guest.label(label, there)


_PARTITIONS = """
select pg_partition_root(c.oid)::oid,
  'TABLE DATA ' || n.nspname || ' ' || c.relname || ' ' || pg_get_userbyid(c.relowner),
  array(select attname::text from pg_attribute
        where attrelid = c.oid and attnum > 0 and not attisdropped and attgenerated = '' order by attnum)
from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.relispartition and c.relkind = 'r'
"""


def _groups(order: LoadOrder, database: str, labels: Sequence[str], saved: Archive) -> list[Group]:
    """Return the groups that the tables which differ belong to."""
    tables, named = [label for label in labels if label.startswith("TABLE DATA ")], _named(order, saved)
    with order.children.connected(order.loader.endpoints, order.names[database]) as link:
        rows = link.execute(_PARTITIONS).fetchall() if tables else []
    trees: dict[int, dict[str, list[str]]] = {}
    for root, label, columns in rows:
        trees.setdefault(root, {})[named(dump.in_one_line(label))] = columns
    partitioned = [tree for tree in trees.values() if tree.keys() & set(tables)]
    alone = set(tables) - {label for tree in partitioned for label in tree}
    return [*(Group({label: ()}) for label in sorted(alone)), *(Group(_orders(tree)) for tree in partitioned)]


def _orders(tree: Mapping[str, Sequence[str]]) -> dict[str, tuple[int, ...]]:
    """Return where each table of a tree has the columns of the first one; () where all have them in one order."""
    first = next(iter(tree.values()))
    if all(columns == first for columns in tree.values()):
        return dict.fromkeys(tree, ())
    return {label: tuple(columns.index(name) for name in first) for label, columns in tree.items()}


def _dumped(order: LoadOrder, database: str, take: dump.Take, saved: Archive) -> Archive:
    raw = order.room.directory / f"{order.entry(database)['directory']}.again"
    try:
        found = dump.dump(order.loader, order.children, order.names[database], raw, take)
    finally:
        shutil.rmtree(raw, ignore_errors=True)
    return found if order.guest is None else _renamed(order.guest, database, found, _named(order, saved))


def _renamed(guest: Guest, database: str, found: Archive, named: Callable[[str], str]) -> Archive:
    objects = guest.compared(database, (label for label in map(named, found.objects) if not label.startswith(_PUBLIC)))
    tables = {named(label): content for label, content in found.tables.items()}
    return Archive(tuple(objects), tables, {named(label): file for label, file in found.files.items()})


def _same_rows(order: LoadOrder, database: str, found: Archive, groups: Sequence[Group]) -> set[str]:
    """Return the tables of the groups that have the same rows as the backup, in whatever order and partition.

    What was measured of the copy is gone: it is dumped once more.
    """
    columns = {label: order_ for group in groups for label, order_ in group.columns.items()}
    there = _sums(order, database, {found.files[label]: order_ for label, order_ in columns.items()})
    files = _files(order, database)
    saved = {n: _saved_sum(order, files[n], order_) for n, order_ in columns.items() if n in files}
    same: set[str] = set()
    for group in groups:
        if group.columns.keys() <= saved.keys() and _total(saved[n] for n in group.columns) == _total(
            there[found.files[n]] for n in group.columns
        ):
            same |= group.columns.keys()
    return same


def _total(sums: Iterable[tuple[int, int]]) -> tuple[int, int]:
    numbers, totals = zip(*sums, strict=True)
    return sum(numbers), sum(totals)


def _sums(order: LoadOrder, database: str, wanted: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, int]]:
    rows = {name: digest.Rows(columns=columns) for name, columns in wanted.items()}

    def take(path: Path, growing: Callable[[], bool]) -> Content:
        return digest.measure(path, growing, *filter(None, [rows.get(path.name)]))

    _dumped(order, database, take, dump.from_summary(order.entry(database)))
    return {name: r.sum for name, r in rows.items()}


def _files(order: LoadOrder, database: str) -> dict[str, store.File]:
    """Return the files of the backup's tables by the entry of the table."""
    directory, files = order.room.directory / f"{order.entry(database)['directory']}.toc", order.files(database)
    directory.mkdir(mode=0o700)
    if dump.TOC in files:
        unpack(order, files[dump.TOC], directory / dump.TOC, order.budget(database))
    entries = dump.list_entries(order.loader, order.children, directory)
    named = {label: packing.packed_name(f"{number}.dat") for number, label in entries.items()}
    return {label: files[name] for label, name in named.items() if name in files}


def _saved_sum(order: LoadOrder, file: store.File, columns: tuple[int, ...]) -> tuple[int, int]:
    rows = digest.Rows(columns=columns)
    read_into(order, file, rows, packed=True)
    return rows.sum


def _not_the_same(backup: Backup, database: str, differences: Sequence[str]) -> PlatformError:
    steps = (
        "look at what differs: a function or trigger of the database may make it so",
        f"to take it over all the same: invoke db.restore ... --database {shell.typed(database)} --despite-differences",
    )
    return PlatformError(
        "RESTORE_DIFFERS",
        f"{backup.path}: {database} is not the same after being restored; the files are whole",
        why="; ".join(differences[:5]),
        steps=steps,
        details={"path": str(backup.path), "database": database, "differences": list(differences)},
    )
