"""The backups of databases in a target: found, judged, dated."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from pathlib import Path

from infra.data import store
from infra.data.postgres import manifest
from infra.data.store import Backup
from infra.errors import PlatformError
from infra.stack import Stack

KIND = "db"


def default_target(home: Stack) -> Path:
    """Return the default directory for backups."""
    return home.backups / "db"


def listing(target: Path) -> list[Backup]:
    """Return every backup of databases in a target, oldest first, broken ones with their problem."""
    return [manifest.judged(b) for b in store.catalogue(target, KIND)]


def find(target: Path, wanted: str) -> Backup:
    """Return a backup by path, by name below the target, or `latest` (the newest whole one).

    Raises:
        PlatformError: NOT_FOUND, or BACKUP_DAMAGED when it is broken or no backup of databases.
    """
    if wanted in ("", "latest"):
        whole = [b for b in listing(target) if not b.problem]
        if not whole:
            raise PlatformError("NOT_FOUND", f"there is no backup in {target}", steps=("invoke db.backup",))
        return whole[-1]
    path = Path(wanted).expanduser()
    path = path if path.is_absolute() or path.exists() else target / wanted
    if path.is_symlink():
        raise store.damaged(Backup(path, KIND, 0, ""), "it", "is a link")
    store.require_directory(path, "invoke db.list")
    found = store.load(path.absolute())
    store.require_whole(found)
    if found.kind != KIND:
        raise store.damaged(found, store.MANIFEST, f"is of the kind {found.kind!r}, not a backup of databases")
    store.require_whole(manifest.judged(found))
    return found


def created(found: Backup) -> float:
    """Return when a backup was made, in seconds since 1970; 0 when its manifest does not say."""
    with contextlib.suppress(ValueError):
        return datetime.strptime(found.created, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp()
    return 0.0


def last_verified(home: Stack) -> float | None:
    """Return when the stack's newest verified backup was made, in seconds since 1970; None when there is none."""
    verified = [b for b in listing(default_target(home)) if b.verified]
    return created(verified[-1]) if verified else None
