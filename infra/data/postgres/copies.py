"""Scratch databases filled side by side from a backup, then compared with what its manifest says."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from infra.data.postgres import compare, load, reasons
from infra.data.postgres.backup import Event, silent
from infra.data.postgres.children import Done, side_by_side
from infra.data.postgres.dump import Archive
from infra.data.postgres.load import AT_ONCE, LoadOrder
from infra.errors import PlatformError


@dataclass(frozen=True)
class Loaded:
    """The contents of the scratch databases; seconds for loading all of them, and for comparing all of them.

    `failed`: why others could not be loaded, or are not the same; `differences`: in what those differ that were to be
    loaded all the same.
    """

    archives: Mapping[str, Archive]
    load_seconds: float
    check_seconds: float
    failed: Mapping[str, PlatformError] = field(default_factory=dict)
    differences: Mapping[str, Sequence[str]] = field(default_factory=dict)


def loaded(order: LoadOrder, event: Event = silent) -> Loaded:
    """Make, fill and compare scratch databases, the largest first; one that fails does not end the work on others.

    Raises:
        PlatformError: RESTORE_DIFFERS, BACKUP_FAILED or DATA_INCOMPATIBLE when all of them fail; others at once.
    """
    databases = sorted(order.names, key=order.size, reverse=True)
    began = time.monotonic()
    filled, failed = _each(order, databases, load.fill, event, "loaded")
    middle = time.monotonic()
    compared, different = _each(order, list(filled), compare.compare, event, "compared")
    if not compared:
        raise next(iter({**failed, **different}.values()))
    differences = {name: (*filled[name], *found.differences) for name, found in compared.items()}
    return Loaded(
        {name: found.archive for name, found in compared.items()},
        middle - began,
        time.monotonic() - middle,
        {**failed, **different},
        {name: found for name, found in differences.items() if found},
    )


def _each(
    order: LoadOrder, databases: Sequence[str], work: Callable[[LoadOrder, str], Done], event: Event, done: str
) -> tuple[dict[str, Done], dict[str, PlatformError]]:
    def job(database: str) -> Callable[[], Done | PlatformError]:
        def run() -> Done | PlatformError:
            began = time.monotonic()
            try:
                result = work(order, database)
            except PlatformError as error:
                if order.children.stopped or not reasons.of_one(error):
                    raise
                event("failed", {"database": database, "code": error.code, "why": error.why})
                return error
            event(done, {"database": database, "seconds": round(time.monotonic() - began, 3)})
            return result

        return run

    limit = min(os.cpu_count() or 2, AT_ONCE)
    found = dict(zip(databases, side_by_side(order.children, limit, [job(d) for d in databases]), strict=True))
    failed = {name: result for name, result in found.items() if isinstance(result, PlatformError)}
    return {name: result for name, result in found.items() if not isinstance(result, PlatformError)}, failed


def contents(archive: Archive) -> dict[str, Any]:
    """Return the tables and rows of a loaded database."""
    return {"tables": len(archive.tables), "rows": sum(c.rows for c in archive.tables.values())}
