"""A scratch database compared with what the manifest of its backup says."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from infra.data import store
from infra.data.postgres import digest, dump
from infra.data.postgres.digest import Content
from infra.data.postgres.dump import Archive
from infra.data.postgres.load import Order, read_into, unpack
from infra.data.store import Backup
from infra.errors import PlatformError


def compare(order: Order, database: str) -> Archive:
    """Compare a filled database with the manifest: objects, rows and digest of every table.

    The copy is dumped again; where a table's text differs, its rows may have another order, which is looked into.

    Raises:
        PlatformError: BACKUP_DAMAGED with what differs.
    """
    saved = dump.from_summary(order.entry(database))
    found = _dumped(order, database, digest.measure)
    same_version = order.backup.facts["client"]["number"] // 10000 == order.server.clients.number // 10000
    wrong = dump.other_objects(saved, found, same_version)
    labels = dump.different(saved, found)
    alike = {label: found.files[label] for label in labels if _alike(saved.tables.get(label), found.tables.get(label))}
    same = _same_rows(order, database, alike) if alike else set()
    wrong += [f"other content: {label}" for label in labels if label not in same]
    if wrong:
        raise _not_the_same(order.backup, database, wrong)
    return found


def _alike(saved: Content | None, found: Content | None) -> bool:
    """Whether it may be the order of the rows alone that differs."""
    if saved is None or found is None or saved.digest == found.digest:
        return False
    return (saved.rows, saved.size) == (found.rows, found.size)


def _dumped(order: Order, database: str, take: dump.Take) -> Archive:
    raw = order.room.directory / f"{order.entry(database)['directory']}.again"
    try:
        return dump.dump(order.server, order.children, order.names[database], raw, take)
    finally:
        shutil.rmtree(raw, ignore_errors=True)


def _same_rows(order: Order, database: str, alike: Mapping[str, str]) -> set[str]:
    """Which tables (with their files in a dump of the copy) have the same rows as the backup, in whatever order.

    What was measured of the copy is gone: it is dumped once more.
    """
    sums = _sums(order, database, alike.values())
    files = _files(order, database)
    return {n for n, file in alike.items() if n in files and _saved_sum(order, files[n]) == sums.get(file)}


def _sums(order: Order, database: str, wanted: Iterable[str]) -> dict[str, tuple[int, int]]:
    rows = {name: digest.Rows() for name in wanted}

    def take(path: Path, growing: Callable[[], bool]) -> Content:
        return digest.measure(path, growing, *filter(None, [rows.get(path.name)]))

    _dumped(order, database, take)
    return {name: r.sum for name, r in rows.items()}


def _files(order: Order, database: str) -> dict[str, store.File]:
    """The files of the backup's tables by the entry of the table."""
    directory, files = order.room.directory / f"{order.entry(database)['directory']}.toc", order.files(database)
    directory.mkdir(mode=0o700)
    if dump.TOC in files:
        unpack(order, files[dump.TOC], directory / dump.TOC)
    entries = dump.list_entries(order.server, order.children, directory)
    named = {label: f"{number}.dat{digest.SUFFIX}" for number, label in entries.items()}
    return {label: files[name] for label, name in named.items() if name in files}


def _saved_sum(order: Order, file: store.File) -> tuple[int, int]:
    rows = digest.Rows()
    read_into(order, file, rows, packed=True)
    return rows.sum


def _not_the_same(backup: Backup, database: str, differences: Sequence[str]) -> PlatformError:
    error = store.damaged(backup, database, "is not the same once it is restored")
    return PlatformError(
        error.code,
        error.what,
        why="; ".join(differences[:5]),
        steps=error.steps,
        details={**error.details, "differences": list(differences)},
    )
