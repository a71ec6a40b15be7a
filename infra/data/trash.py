"""The trash: storage that was to be removed, kept for a week: `<state>/trash/<utc>-<tier>-<service>/`.

Each entry is a directory with `entry.json` (what it is, where it belongs, when it expires) and one numbered directory
for each storage in it, which the tier fills and empties. `entry.json` is there before anything is moved.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra import private, stack
from infra.errors import PlatformError
from infra.stack import Stack
from infra.tiers.base import ELSEWHERE, Removal, Tier

DIRECTORY, NOTE = "trash", "entry.json"
DAYS = 7
"""Minimum time for which removed data is kept."""
_FORMAT = 1


@dataclass(frozen=True)
class Entry:
    """Storage in the trash; times in seconds since 1970, size in bytes; `problem` says why it cannot be read."""

    path: Path
    tier: str = ""
    service: str = ""
    created: float = 0.0
    expires: float = 0.0
    what: str = ""
    whole: bool = False
    items: tuple[Removal, ...] = ()
    problem: str = ""

    @property
    def name(self) -> str:
        """Return its name: the directory's."""
        return self.path.name

    @property
    def size(self) -> int:
        """Bytes of all its storage."""
        return sum(item.size for item in self.items)

    @property
    def expired(self) -> bool:
        """Return whether it need not be kept any longer."""
        return not self.problem and self.expires <= time.time()

    def data(self) -> dict[str, Any]:
        """Return it for programs."""
        shown = {"name": self.name, "path": str(self.path), "tier": self.tier, "service": self.service}
        when = {"created": utc(self.created), "expires": utc(self.expires), "expired": self.expired}
        return {**shown, **when, "bytes": self.size, "what": self.what, "problem": self.problem or None}


def utc(when: float) -> str:
    """Return the seconds since 1970 as ISO 8601."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(when))


def home(of: Stack) -> Path:
    """Return the trash of a stack."""
    return of.home / DIRECTORY


def put(tier: Tier, removals: Sequence[Removal], what: str) -> list[Entry]:
    """Move storage into the trash, one entry for each service; the caller holds the stack's lock, nothing runs.

    Args:
        removals: what to move.
        what: why it is there, for people, e.g. `reset`.

    Raises:
        PlatformError: what the tier raises, STATE_UNWRITABLE; what was not moved is in its place.
    """
    made = []
    for service in dict.fromkeys(r.service for r in removals):
        items = tuple(r for r in removals if r.service == service)
        made.append(_put(tier, service, items, what))
    return made


def _put(tier: Tier, service: str, items: tuple[Removal, ...], what: str) -> Entry:
    now = time.time()
    try:
        path = _directory(home(tier.context.stack), tier.name, service, now)
        entry = Entry(path, tier.name, service, now, now + DAYS * 86400, what, False, items)
        _write(entry)
        for number, item in enumerate(items):
            (path / str(number)).mkdir(mode=0o700)
            tier.stash(item, path / str(number))
        return _write(Entry(**{**vars(entry), "whole": True}))
    except OSError as error:
        raise stack.unwritable(home(tier.context.stack), error) from error


def _directory(trash: Path, tier: str, service: str, now: float) -> Path:
    """Create a directory; two removals within one second get different ones."""
    private.directory(trash)
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
    for number in range(1, 1000):
        path = trash / (f"{stamp}-{tier}-{service}" + (f"-{number}" if number > 1 else ""))
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o700)
            return path
    raise FileExistsError(17, "too many entries within one second", str(trash))


def _write(entry: Entry) -> Entry:
    items = [{**vars(i), "path": str(i.path) if i.path else None} for i in entry.items]
    facts = {k: getattr(entry, k) for k in ("tier", "service", "created", "expires", "what", "whole")}
    text = json.dumps({"format": _FORMAT, **facts, "size": entry.size, "items": items}, indent=1)
    stack.write_atomic(entry.path / NOTE, text + "\n", mode=0o600)
    return entry


def entries(of: Stack) -> list[Entry]:
    """List what is in the trash, oldest first; also what cannot be read, with its problem."""
    trash = home(of)
    if trash.is_symlink() or not trash.is_dir():
        return []
    found = [p for p in trash.iterdir() if p.is_dir() and not p.is_symlink() and not p.name.startswith(".")]
    return [_read(path) for path in sorted(found)]


def _read(path: Path) -> Entry:
    body = stack.read_json(path / NOTE)
    try:
        if body is None:
            return Entry(path, problem=f"its {NOTE} cannot be read")
        if body["format"] > _FORMAT:
            return Entry(path, problem="it was created by a newer version of this tool")
        items = tuple(Removal(i["service"], _path(i["path"]), int(i["size"]), i["volume"]) for i in body["items"])
        when = float(body["created"]), float(body["expires"])
        return Entry(path, body["tier"], body["service"], *when, body["what"], bool(body["whole"]), items)
    except (KeyError, TypeError, ValueError) as error:
        return Entry(path, problem=f"its {NOTE} is damaged ({type(error).__name__})")


def _path(text: str | None) -> Path | None:
    return Path(text) if text else None


def find(of: Stack, name: str) -> Entry:
    """Return an entry by its name; by a service's name the newest of that service.

    Raises:
        PlatformError: NOT_FOUND; BACKUP_DAMAGED when its note cannot be read.
    """
    found = [e for e in entries(of) if name in (e.name, e.service)]
    if not found:
        raise PlatformError("NOT_FOUND", f"there is no {name!r} in the trash", steps=("invoke trash.list",))
    if found[-1].problem:
        steps = (f"look into {found[-1].path} yourself: the data may be intact",)
        raise PlatformError("BACKUP_DAMAGED", f"{found[-1].name}: {found[-1].problem}", steps=steps)
    return found[-1]


def bring_back(tier: Tier, entry: Entry) -> list[Entry]:
    """Put an entry's storage back; what is in its place is moved to the trash and returned.

    The caller holds the stack's lock, and nothing runs.

    Raises:
        PlatformError: what the tier raises; the entry is still there then, and so is what was in its place.
    """
    away = put(tier, tier.removals((entry.service,)), f"in the way of {entry.name}")
    try:
        for number, item in enumerate(entry.items):
            _unstash(tier, entry, item, entry.path / str(number))
    except PlatformError:
        if not tier.removals((entry.service,)):
            for other in away:
                bring_back(tier, other)
        raise
    remove(entry)
    return away


def _unstash(tier: Tier, entry: Entry, item: Removal, kept: Path) -> None:
    try:
        tier.unstash(item, kept)
    except PlatformError as error:
        if error.code != "NOT_FOUND" or entry.whole:
            raise  # else the run was cut short before this item was moved


def remove(entry: Entry) -> None:
    """Delete an entry permanently; renamed first, so that one that is cut short is no longer listed."""
    doomed = entry.path.with_name(f".{entry.path.name}-{time.time_ns()}")
    os.rename(entry.path, doomed)
    for note in doomed.glob(f"*/{ELSEWHERE}"):
        beside = Path(note.read_text(encoding="utf-8").rstrip("\n"))
        if "-trash-" in beside.name and not beside.is_symlink():
            shutil.rmtree(beside, ignore_errors=True)
    shutil.rmtree(doomed, ignore_errors=True)


def sweep(of: Stack) -> list[Entry]:
    """Remove what has expired, and what removals that were cut short have left; returns the former."""
    gone = [e for e in entries(of) if e.expired]
    for entry in gone:
        remove(entry)
    for left in home(of).glob(".*"):
        shutil.rmtree(left, ignore_errors=True)
    return gone
