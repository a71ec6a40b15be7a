"""The native tier's data directories on their way into the trash and back: renamed, never copied."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

from infra import catalog, private, stack
from infra.errors import PlatformError
from infra.tiers.base import ELSEWHERE, Removal
from infra.tiers.native import object_store, postgres

DATA, ENGINE = "data", "store-engine"
STORES = frozenset(s.name for s in catalog.SERVICES if s.login == catalog.STORE_LOGIN)


def directory(removal: Removal) -> Path:
    """Return the directory of a removal. Raises ValueError for a volume, which this tier has none of."""
    if removal.path is None:
        raise ValueError(f"{removal.place} is not a directory")
    return removal.path


def stash(home: Path, removal: Removal, into: Path) -> None:
    """Move a data directory into the trash; beside itself where the trash is on another disk.

    Raises:
        PlatformError: STATE_UNWRITABLE; the directory is in its place then.
    """
    data = directory(removal)
    engine = object_store.recorded(home) if removal.service in STORES else ""
    try:
        if engine:
            stack.write_atomic(into / ENGINE, f"{engine}\n")
        _rename(data, into)
    except OSError as error:
        raise stack.unwritable(into, error) from error


def _rename(data: Path, into: Path) -> None:
    try:
        os.rename(data, into / DATA)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        beside = data.with_name(f".{data.name}-trash-{time.time_ns()}")
        stack.write_atomic(into / ELSEWHERE, f"{beside}\n", mode=0o600)
        os.rename(data, beside)


def _kept(kept: Path) -> Path:
    """Return the directory with the data of an entry."""
    note = kept / ELSEWHERE
    return Path(note.read_text(encoding="utf-8").rstrip("\n")) if note.is_file() else kept / DATA


def unstash(home: Path, removal: Removal, kept: Path) -> None:
    """Move a data directory back to its place, which must be free.

    Raises:
        PlatformError: NOT_FOUND when it is not kept any more; DATA_INCOMPATIBLE when the other store's data is of
            another engine by now; STATE_UNWRITABLE.
    """
    data, there = directory(removal), _kept(kept)
    if not there.is_dir() or there.is_symlink():
        raise PlatformError("NOT_FOUND", f"{there} no longer exists", steps=("invoke trash.list",))
    engine = _engine(home, removal, kept)
    try:
        private.directory(data.parent, private.way())
        if data.exists():
            raise FileExistsError(errno.EEXIST, "its original place has data", str(data))
        if removal.service == "postgres" and postgres.is_root():
            stack.write_atomic(home / "postgres-data", f"{data}\n")
        os.rename(there, data)
        if engine:
            object_store.record(home, engine)
    except OSError as error:
        raise stack.unwritable(data, error) from error


def _engine(home: Path, removal: Removal, kept: Path) -> str:
    """Return the engine that wrote what is kept ('' when that does not matter)."""
    note = kept / ENGINE
    if removal.service not in STORES or not note.is_file():
        return ""
    engine, now = note.read_text(encoding="utf-8").strip(), object_store.recorded(home)
    if now and object_store.layout(now) != object_store.layout(engine):
        raise PlatformError(
            "DATA_INCOMPATIBLE",
            f"the kept data of {removal.service} was written by {engine}, the current data by {now}",
            why="engines cannot read each other's data; nothing was changed",
            steps=(
                "first move the current data of both stores to the trash: invoke reset -s minio-datasets,minio-results",
            ),
        )
    return engine
