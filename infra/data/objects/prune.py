"""The choice of object backups that may be removed, and of contents that no other needs then."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from infra.data import store
from infra.data.objects import records, verify
from infra.data.objects.pool import Pool
from infra.errors import PlatformError


@dataclass(frozen=True)
class PrunePlan:
    """Backups to remove, files of contents and their bytes; `why` tells why no more."""

    backups: tuple[store.Backup, ...]
    contents: tuple[Path, ...]
    size: int
    why: str = ""


def plan(target: Path, keep: int) -> PrunePlan:
    """Plan what to remove so that of every bucket `keep` verified backups stay; the caller holds the lock.

    Contents stay for every backup that can be read, also for broken ones. A backup that lacks contents loses its mark.

    Raises:
        PlatformError: BACKUP_DAMAGED when a manifest cannot be read: then nothing at all may be removed.
    """
    for backup in store.catalogue(target, records.KIND):
        _complete(backup, Pool(target))
    doomed, why = prunable(records.listing(target), keep)
    contents = tuple(_needed_by_none(target, {b.path for b in doomed}))
    return PrunePlan(tuple(doomed), contents, sum(path.lstat().st_size for path in contents), why)


def prune(made: PrunePlan) -> None:
    """Remove what a plan says, backups before what they refer to; the caller has held the lock since."""
    for backup in made.backups:
        store.remove(backup)
    for path in made.contents:
        os.unlink(path)


def prunable(found: list[store.Backup], keep: int) -> tuple[list[store.Backup], str]:
    """Choose which of these (oldest first) may be removed, and tell why the others of the old ones stay.

    A backup may hold some buckets only. So one goes only when for each of its buckets `keep` newer ones are verified.
    """
    doomed, why = [], ""
    for number, backup in enumerate(found[:-1]):
        newer = [b for b in found[number + 1 :] if b.verified and not b.facts.get("failed")]
        lacking = [name for name, count in _covered(backup, newer).items() if count < keep]
        if len(newer) >= keep and not lacking:
            doomed.append(backup)
        elif not why and len(found) > keep:
            of = f" of the bucket {lacking[0]}" if lacking else ""
            why = f"{backup.path.name} is kept: fewer than {keep} newer backups{of} are verified and complete"
    return doomed, why


def _covered(backup: store.Backup, newer: list[store.Backup]) -> dict[str, int]:
    """Count for each bucket of a backup how many of the newer ones hold as much of it."""
    count: dict[str, int] = {}
    for bucket in backup.facts.get("buckets", []):
        wanted = (bucket["store"], bucket["name"])
        holders = [b for n in newer for b in n.facts.get("buckets", []) if (b["store"], b["name"]) == wanted]
        enough = [b for b in holders if b.get("all_versions") or not bucket.get("all_versions")]
        count[bucket["name"]] = min(len(enough), count.get(bucket["name"], len(enough)))
    return count


def _complete(backup: store.Backup, pool: Pool) -> None:
    """Take the mark `verified` off a backup that lacks contents: such a one must not count as kept."""
    _readable(backup)
    if not backup.verified:
        return
    if not all(pool.has(r["sha256"], r["size"]) for r in records.reading(backup) if records.has_content(r)):
        verify.unmark_verified(backup)


def _readable(backup: store.Backup) -> None:
    """Refuse to go on without knowing what a backup refers to. Raises PlatformError BACKUP_DAMAGED."""
    try:
        store.check_files(backup)
    except PlatformError as error:
        raise PlatformError(
            "BACKUP_DAMAGED",
            f"nothing was removed: what {backup.path} refers to cannot be read",
            why=error.what,
            steps=(f"move {backup.path} away if it is not needed, then run minio.prune again",),
            details={"path": str(backup.path)},
        ) from error


def _needed_by_none(target: Path, doomed: Collection[Path]) -> Iterator[Path]:
    needed: set[bytes] = set()
    for backup in store.catalogue(target, records.KIND):
        if backup.path not in doomed:
            needed.update(bytes.fromhex(r["sha256"]) for r in records.reading(backup) if records.has_content(r))
    return (path for path in Pool(target).contents() if bytes.fromhex(path.name) not in needed)
