"""Scratch databases filled side by side from a backup, then compared with what its manifest says."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from infra.data.postgres import compare, load
from infra.data.postgres.backup import Event, silent
from infra.data.postgres.children import Done, side_by_side
from infra.data.postgres.dump import Archive
from infra.data.postgres.load import AT_ONCE, Order


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
    databases = sorted(order.names, key=order.size, reverse=True)
    began = time.monotonic()
    _each(order, databases, load.fill, event, "loaded")
    middle = time.monotonic()
    archives = _each(order, databases, compare.compare, event, "compared")
    return Loaded(archives, middle - began, time.monotonic() - middle)


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


def contents(archive: Archive) -> dict[str, Any]:
    """Return the tables and rows of a loaded database."""
    return {"tables": len(archive.tables), "rows": sum(c.rows for c in archive.tables.values())}
