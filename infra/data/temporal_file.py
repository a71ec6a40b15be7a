"""Temporal's own storage where it is one SQLite file (the development server): copied while the server writes to it."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from pathlib import Path
from typing import Any

from infra import private
from infra.errors import PlatformError
from infra.tiers.base import TemporalStorage, Tier

FILE = "temporal.db"
BUSY_LIMIT = 10.0
"""Seconds to wait for a write of the server's to end."""


def storage(tier: Tier) -> Path | None:
    """Return the path of the file; None where this machine has none (other storage, or it never ran)."""
    path = tier.home / "data" / "temporal" / FILE
    return path if tier.temporal_storage == TemporalStorage.FILE and path.is_file() else None


def copy(source: Path, target: Path) -> dict[str, Any]:
    """Copy the database as of one moment with SQLite's online backup; returns what a manifest says of it.

    Raises:
        PlatformError: BACKUP_FAILED.
    """
    began = time.monotonic()
    os.close(private.new_file(target))
    try:
        with contextlib.closing(_open(source)) as there, contextlib.closing(sqlite3.connect(target)) as here:
            there.backup(here)  # in one step: the copy is of one moment
            facts = _facts(here)
    except sqlite3.Error as error:
        raise PlatformError(
            "BACKUP_FAILED", f"Temporal's file {source} could not be copied", why=str(error), steps=("invoke status",)
        ) from error
    return {**facts, "seconds": round(time.monotonic() - began, 3)}


def _open(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=BUSY_LIMIT)


def _facts(link: sqlite3.Connection) -> dict[str, Any]:
    """Count the rows; a file from elsewhere finds none of our own functions here, and no extensions.

    `trusted_schema = off` would refuse Temporal's own schema, whose generated columns call json_extract.
    """
    names = [row[0] for row in link.execute("select name from sqlite_master where type = 'table' order by name")]
    quoted = {name: '"' + name.replace('"', '""') + '"' for name in names}
    rows = {name: link.execute(f"select count(*) from {quoted[name]}").fetchone()[0] for name in names}
    return {"sqlite": sqlite3.sqlite_version, "rows": rows}


def check(path: Path, facts: dict[str, Any]) -> int:
    """Have SQLite check a copy, and compare its rows with the manifest; returns the number of rows.

    Raises:
        PlatformError: BACKUP_DAMAGED.
    """
    try:
        with contextlib.closing(_open(path)) as link:
            said = [row[0] for row in link.execute("pragma integrity_check")]
            rows = _facts(link)["rows"]
    except sqlite3.Error as error:
        raise _damaged(path, str(error)) from error
    if said != ["ok"]:
        raise _damaged(path, "; ".join(said[:3]))
    if rows != facts["rows"]:
        raise _damaged(path, "its rows do not match its manifest")
    return sum(rows.values())


def _damaged(path: Path, why: str) -> PlatformError:
    steps = ("use another snapshot: invoke snapshot.list",)
    return PlatformError("BACKUP_DAMAGED", f"{path} is damaged", why=why, steps=steps)
