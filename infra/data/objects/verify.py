"""The check that object backups are complete and undamaged."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from dataclasses import dataclass
from pathlib import Path

from infra.console import printable
from infra.data import store
from infra.data.objects import backup as objects_backup
from infra.data.objects import records
from infra.data.objects.pool import Pool
from infra.errors import PlatformError

THREADS = 4
NAMED = 20
"""Damaged files (and keys of each) that a message lists; the JSON has as many."""
VERIFIED = "verified.json"

Tick = Callable[[int, int], None]
"""Called with the number of contents read, and their bytes."""


def _quiet(objects: int, size: int) -> None:
    """Tell nobody."""


@dataclass(frozen=True)
class Bad:
    """A content that is not as its backup needs it: file below the target, what is wrong, the keys it is for."""

    file: str
    problem: str
    keys: tuple[str, ...]


def located(target: Path, name: str) -> store.Backup:
    """Return the backup that `--from` names: a directory, or `latest` for the newest whole one of the target.

    Raises:
        PlatformError: NOT_FOUND; BACKUP_DAMAGED for one that is no object backup or not whole.
    """
    if name in ("", "latest"):
        # Those that a restore has made of what it replaced are no state that anybody wants by default.
        whole = [b for b in records.listing(target) if not b.problem and not b.facts.get("reason")]
        if not whole:
            raise PlatformError("NOT_FOUND", f"there is no complete backup in {target}", steps=("invoke minio.backup",))
        return whole[-1]
    path = Path(name).expanduser()
    path = target / name if not path.exists() and (target / name).exists() else path
    if path.is_symlink():
        raise PlatformError("BACKUP_DAMAGED", f"{path} is a symlink, which is not followed", steps=_OTHER)
    store.require_directory(path, "invoke minio.list")
    found = store.load(path.absolute())
    store.require_whole(found)
    if found.kind != records.KIND:
        raise PlatformError("BACKUP_DAMAGED", f"{path} is a backup of {found.kind}, not of objects", steps=_OTHER)
    store.require_whole(records.judged(found))
    return found


_OTHER = ("invoke minio.list shows the backups",)


def check(backup: store.Backup, buckets: tuple[str, ...] = (), tick: Tick = _quiet) -> None:
    """Read everything that a backup refers to and compare it with its SHA-256.

    Args:
        buckets: only what these need; empty: all.

    Raises:
        PlatformError: BACKUP_DAMAGED naming the files that are bad and the keys that they are for.
    """
    store.check_files(backup)
    bad = _bad(backup, buckets, tick)
    if not bad:
        return
    lines = [f"{b.file} {b.problem}; it contains {', '.join(b.keys)}" for b in bad]
    raise PlatformError(
        "BACKUP_DAMAGED",
        f"{backup.path}: {lines[0]}" + (f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""),
        why="\n        ".join(lines[1:NAMED]),
        steps=(
            "remove the damaged files and run minio.backup again: it reads missing ones again while the objects exist",
            "or use another backup: invoke minio.list",
        ),
        details={"path": str(backup.path), "bad": [vars(b) for b in bad[:NAMED]]},
    )


def _bad(backup: store.Backup, buckets: tuple[str, ...], tick: Tick) -> list[Bad]:
    pool = Pool(backup.path.parent)
    problems: dict[bytes, str] = {}
    seen, size = set[bytes](), 0

    def look(sha256: str, length: int) -> None:
        if problem := pool.problem(sha256, length):
            problems[bytes.fromhex(sha256)] = problem

    threads = ThreadPoolExecutor(THREADS)
    try:
        jobs = set[Future[None]]()
        for record in _contents(backup, buckets):
            name = bytes.fromhex(record["sha256"])
            if name in seen:
                continue
            seen.add(name)
            jobs.add(threads.submit(look, record["sha256"], record["size"]))
            size += record["size"]
            if len(jobs) > objects_backup.WINDOW:
                jobs = _some_done(jobs)
                tick(len(seen), size)
        while jobs:
            jobs = _some_done(jobs)
            tick(len(seen), size)
    finally:
        threads.shutdown(wait=False, cancel_futures=True)
    return _named(backup, buckets, pool, problems) if problems else []


def _contents(backup: store.Backup, buckets: tuple[str, ...]) -> Iterable[records.Record]:
    """Yield the records that refer to a content; one whose reference is none stops here. Raises BACKUP_DAMAGED."""
    named = {(b["store"], b["name"]) for b in backup.facts.get("buckets", ())}
    for record in records.selected(records.reading(backup), buckets):
        if records.has_content(record):
            if (record["store"], record["bucket"]) not in named:  # a restore would pass it over
                raise store.damaged(
                    backup, records.MANIFEST, f"has an object of {record['bucket']!r}, which is not one of its buckets"
                )
            try:
                Pool(backup.path).path(record["sha256"])
                if not isinstance(record["size"], int):
                    raise ValueError("no size")
            except (ValueError, KeyError, TypeError) as error:
                raise store.damaged(backup, records.MANIFEST, f"refers to no content: {error}") from error
            yield record


def _some_done(jobs: set[Future[None]]) -> set[Future[None]]:
    done, rest = wait_for(jobs, timeout=objects_backup.TICK, return_when="FIRST_COMPLETED")
    for job in done:
        job.result()
    return rest


def _named(backup: store.Backup, buckets: tuple[str, ...], pool: Pool, problems: dict[bytes, str]) -> list[Bad]:
    """Return the bad contents with the keys that need them, which takes a second look at the lines."""
    keys: dict[bytes, list[str]] = {name: [] for name in problems}
    for record in _contents(backup, buckets):
        held = keys.get(bytes.fromhex(record["sha256"]))
        if held is not None and len(held) < NAMED:
            held.append(printable(f"{record['bucket']}/{record['key']}"))
    files = {name: str(pool.path(name.hex()).relative_to(pool.target)) for name in problems}
    return [Bad(files[name], problem, tuple(keys[name])) for name, problem in sorted(problems.items())]


def mark_verified(backup: store.Backup) -> None:
    """Note beside the manifest that every content was read and was right."""
    path = backup.path / VERIFIED
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    store.write_private(path, json.dumps({"verified": now, "how": "SHA-256 of every content"}) + "\n")


def unmark_verified(backup: store.Backup) -> None:
    """Take the note away: the backup was found damaged."""
    with contextlib.suppress(OSError):
        (backup.path / VERIFIED).unlink()
