"""Backups on disk: a directory is a backup once its manifest is there, and the manifest is written last.

Layout of a target: `<target>/<sequence>-<utc>/` with the files of the backup and `manifest.json`. A backup that is
being written has a name that begins with `.part-`. All is private (0600 in 0700) and never reached over a link.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from infra import private
from infra.data import maker
from infra.errors import PlatformError
from infra.locks import try_lock

MANIFEST = "manifest.json"
LARGEST_MANIFEST = 256 << 20
"""Bytes; one of 100,000 tables has about 30 MB."""
LOCK = ".lock"
SIGNATURE = "signature"
"""A file beside the manifest, which earlier versions of this tool do not look at."""
PART = ".part-"
FORMAT = 1
"""Version of the layout; a newer one is refused."""
CHUNK = 1 << 20
_NAME = re.compile(r"^(\d{6})-(\d{8}T\d{6}Z)$")
_CREATED = re.compile(r"^[0-9TZ:-]+$")


@dataclass(frozen=True)
class File:
    """A file of a backup: path below its directory, size in bytes, SHA-256 in hex."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Backup:
    """A published backup; `problem` says why it cannot be used ('' when its manifest is whole)."""

    path: Path
    kind: str
    sequence: int
    created: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    files: tuple[File, ...] = ()
    problem: str = ""
    digest: str = ""
    signature: str = ""

    @property
    def verified(self) -> bool:
        """Return whether it was restored into a scratch place and compared."""
        return not self.problem and (self.path / "verified.json").is_file()

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


@dataclass
class Draft:
    """A backup that is being written; nothing of it counts before `publish`."""

    directory: Path
    files: list[File] = field(default_factory=list)

    def path(self, name: str) -> Path:
        """Return the path of a file of the backup; its directory is created."""
        target = self.directory / name
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return target

    def add(self, name: str) -> File:
        """Hash, sync and record a file that has been written."""
        target = self.directory / name
        os.chmod(target, 0o600)
        with open(target, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            os.fsync(file.fileno())
        noted = File(name, target.stat().st_size, digest)
        self.files.append(noted)
        return noted


@contextlib.contextmanager
def locked(target: Path, command: str) -> Iterator[None]:
    """Hold the lock of a target; the kernel frees it when the process dies.

    Raises:
        PlatformError: LOCKED with the holder; BACKUP_FAILED when the directory cannot be written.
    """
    file = _open_lock(target)
    with file:
        if not try_lock(file):
            file.seek(0)
            raise PlatformError(
                "LOCKED",
                f"another run is in progress on {target}",
                why=file.read(200).strip(),
                steps=("wait until it finishes, or stop that process",),
            )
        file.seek(0)
        file.truncate()
        file.write(f"pid {os.getpid()} (`{command}`), since {time.strftime('%H:%M:%S')}")
        file.flush()
        try:
            yield
        finally:
            file.seek(0)
            file.truncate()


def _open_lock(target: Path) -> Any:
    try:
        private.make(target)
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
        return os.fdopen(os.open(target / LOCK, flags, 0o600), "r+", encoding="utf-8")
    except OSError as error:
        raise no_space_or_access(target, error) from error


def no_space_or_access(target: Path, error: OSError, needed: int = 0) -> PlatformError:
    """Return the error for a target that takes no writes."""
    full = error.errno == 28
    need = f"; about {needed / 1e6:.0f} MB is needed" if needed else ""
    what = f"no space left in {target}{need}" if full else f"{target} cannot be written"
    steps = ("free space, or choose another directory with --to", "earlier backups are untouched")
    return PlatformError("BACKUP_FAILED", what, why=error.strerror or str(error), steps=steps)


@contextlib.contextmanager
def publishing(target: Path, kind: str) -> Iterator[tuple[Draft, dict[str, Any]]]:
    """Write a backup: files go through the draft, facts into the dictionary; published when the block ends well.

    The caller holds the lock of the target. Leftovers of earlier runs that died are swept first.

    Raises:
        PlatformError: BACKUP_FAILED when the disk is full or refuses to sync.
    """
    sweep(target)
    sequence = next_sequence(target)
    name = f"{sequence:06d}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    draft = Draft(target / f"{PART}{name}")
    facts: dict[str, Any] = {"name": name}
    try:
        draft.directory.mkdir(mode=0o700)
        yield draft, facts
        facts |= {"name": name, "path": str(target / name)}
        _seal(draft, kind, sequence, facts)
        os.rename(draft.directory, target / name)
        sync_directory(target)
    except OSError as error:
        raise no_space_or_access(target, error) from error
    finally:
        shutil.rmtree(draft.directory, ignore_errors=True)


def _seal(draft: Draft, kind: str, sequence: int, facts: Mapping[str, Any]) -> None:
    body = {
        "format": FORMAT,
        "kind": kind,
        "sequence": sequence,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "facts": {k: v for k, v in facts.items() if k not in ("path", "name")},
        "files": [vars(file) for file in draft.files],
    }
    digest = digest_of(body)
    write_private(draft.directory / MANIFEST, json.dumps({**body, "sha256": digest}, indent=1) + "\n")
    signature = maker.signature(kind, digest)
    if signature:
        write_private(draft.directory / SIGNATURE, signature + "\n")
    for directory, _, _ in os.walk(draft.directory):
        sync_directory(Path(directory))


def digest_of(body: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a manifest without its own digest, over its canonical JSON."""
    plain = {k: v for k, v in body.items() if k != "sha256"}
    return hashlib.sha256(json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def write_private(path: Path, text: str) -> None:
    """Write a new 0600 file and sync it; never through a link."""
    with os.fdopen(private.new_file(path), "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def sync_directory(path: Path) -> None:
    """Make the entries of a directory durable (a no-op where directories cannot be opened, as on Windows)."""
    if os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def next_sequence(target: Path) -> int:
    """Return one more than the highest sequence in the target: order does not depend on the clock."""
    names = [_NAME.match(entry.name) for entry in target.iterdir()]
    return max((int(m.group(1)) for m in names if m), default=0) + 1


def sweep(target: Path) -> None:
    """Remove what runs that died have left; the caller holds the lock, so none of it is alive."""
    for entry in target.iterdir():
        if entry.name.startswith(PART) and entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)


def catalogue(target: Path, kind: str) -> list[Backup]:
    """Return every backup of a kind in a target, oldest first; broken ones with their problem."""
    if not target.is_dir():
        return []
    names = sorted(e.name for e in target.iterdir() if _NAME.match(e.name) and not e.is_symlink())
    found = [load(target / name) for name in names]
    return [b for b in found if b.kind in (kind, "")]


def load(path: Path) -> Backup:
    """Read a backup's manifest; never raises: what is wrong is in `problem`."""
    match = _NAME.match(path.name)
    sequence, created = (int(match.group(1)), match.group(2)) if match else (0, "")
    try:
        body = json.loads(_read_private(path / MANIFEST))
        return _parsed(path, body)
    except FileNotFoundError:
        problem = "it has no manifest: not a complete backup"
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        problem = f"not a complete backup: its manifest cannot be read ({type(error).__name__})"
    return Backup(path, "", sequence, created, problem=problem)


def _parsed(path: Path, body: Mapping[str, Any]) -> Backup:
    if body["format"] > FORMAT:
        problem = f"it requires a version of this tool that reads format {body['format']} (this one reads {FORMAT})"
        return Backup(path, str(body.get("kind", "")), int(body.get("sequence", 0)), "", problem=problem)
    problem = "" if body["sha256"] == digest_of(body) else "its manifest is damaged (checksum)"
    files = tuple(File(**entry) for entry in body["files"])
    signed = (body["sha256"], _signature(path))
    found = Backup(path, body["kind"], body["sequence"], body["created"], body["facts"], files, problem, *signed)
    strange = problem or _impossible(found)
    return (
        found if strange == problem else Backup(path, _text(found.kind), _number(found.sequence), "", problem=strange)
    )


def _signature(path: Path) -> str:
    try:
        return private.read_text(path / SIGNATURE).strip()
    except OSError:
        return ""


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _number(value: Any) -> int:
    return value if isinstance(value, int) else 0


FOREIGN = "its manifest was not written by this tool"
"""A checksum does not prove who wrote a manifest: one that says what this tool never writes is foreign."""


def judged(backup: Backup, problem: Callable[[Mapping[str, Any]], str]) -> Backup:
    """Return a complete backup, without its facts where this tool never writes such; `problem` says what is wrong."""
    found = "" if backup.problem else problem(backup.facts)
    return replace(backup, facts={}, problem=f"{FOREIGN}: {found}") if found else backup


def is_amount(value: Any) -> bool:
    """Return whether a value of a manifest is a number of bytes, rows or objects that can be."""
    return type(value) is int and 0 <= value < 1 << 63


def _impossible(found: Backup) -> str:
    """Describe what our own backups never contain, although the checksum fits: somebody has rewritten the manifest."""
    plain = isinstance(found.kind, str) and isinstance(found.facts, dict) and type(found.sequence) is int
    if not plain or not _CREATED.match(found.created):
        return FOREIGN
    strange = next((file.path for file in found.files if not _possible(file)), None)
    return "" if strange is None else f"{FOREIGN}: it lists the file {strange!r}"


def _possible(file: File) -> bool:
    typed = isinstance(file.path, str) and isinstance(file.sha256, str)
    return typed and file.path.isprintable() and not _points_out(file.path) and is_amount(file.size)


def _points_out(path: str) -> bool:
    parts = Path(path).parts
    return not parts or ".." in parts or Path(path).is_absolute()


def _read_private(path: Path) -> str:
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
    with os.fdopen(descriptor, encoding="utf-8") as file:
        if os.fstat(descriptor).st_size > LARGEST_MANIFEST:
            raise ValueError("larger than any manifest")
        return file.read()


def open_file(backup: Backup, file: File) -> int:
    """Return a read-only descriptor of a backup's file, reached below the backup's directory and over no link.

    Raises:
        PlatformError: BACKUP_DAMAGED naming the path.
    """
    if _points_out(file.path):
        raise damaged(backup, file.path, "points outside the backup")
    current = backup.path
    for part in Path(file.path).parts:
        current = current / part
        if current.is_symlink():
            raise damaged(backup, file.path, "is a link")
    try:
        descriptor = os.open(current, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
    except OSError as error:
        raise damaged(backup, file.path, error.strerror or str(error)) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise damaged(backup, file.path, "is not a regular file")
    return descriptor


def check_files(backup: Backup) -> None:
    """Compare every file with the manifest.

    Raises:
        PlatformError: BACKUP_DAMAGED naming the first file that differs, or the manifest's problem.
    """
    require_whole(backup)
    for file in backup.files:
        with os.fdopen(open_file(backup, file), "rb") as stream:
            if os.fstat(stream.fileno()).st_size != file.size:
                raise damaged(backup, file.path, "does not have the size in its manifest")
            if hashlib.file_digest(stream, "sha256").hexdigest() != file.sha256:
                raise damaged(backup, file.path, "does not have the content in its manifest (SHA-256)")


def require_directory(path: Path, step: str) -> None:
    """Refuse a path that is no backup's directory.

    Raises:
        PlatformError: NOT_FOUND with the command that shows the backups.
    """
    if not path.is_dir():
        why = "a backup is a directory, and this is a file" if path.exists() else ""
        raise PlatformError("NOT_FOUND", f"there is no backup {path}", why=why, steps=(step,))


def require_place(path: Path) -> None:
    """Refuse a directory of backups that somebody named and that is not there. Raises PlatformError NOT_FOUND."""
    if not path.is_dir():
        steps = ("check the spelling", "omit --to to use this stack's backups")
        raise PlatformError("NOT_FOUND", f"there is no directory {path}", steps=steps)


def require_whole(backup: Backup) -> None:
    """Refuse a backup whose manifest is missing, damaged or too new. Raises PlatformError BACKUP_DAMAGED."""
    if not backup.problem:
        return
    error = damaged(backup, MANIFEST, backup.problem)
    inside = sorted(e.name for e in backup.path.iterdir() if _NAME.match(e.name)) if backup.path.is_dir() else []
    steps = (f"it contains backups; choose one of them: {backup.path / inside[-1]}",) if inside else error.steps
    what = f"{backup.path} cannot be used: {backup.problem} ({MANIFEST})"
    raise PlatformError(error.code, what, steps=steps, details=error.details)


def damaged(backup: Backup, name: str, reason: str) -> PlatformError:
    """Return the error for a backup that must not be restored."""
    steps = ("use another backup (the list shows which are complete)", "make a new one while the data is still there")
    details = {"path": str(backup.path), "file": name}
    return PlatformError("BACKUP_DAMAGED", f"{backup.path}: {name} {reason}", steps=steps, details=details)


def prunable(found: Sequence[Backup], keep: int) -> tuple[list[Backup], str]:
    """Choose backups of a target (oldest first) that `prune` would remove, and tell why none when it must not.

    The newest is never removed, and broken or unverified backups never count as kept ones. Nor is the newest one that
    has what those that are kept could not take in.
    """
    verified = [b for b in found if b.verified]
    if len(verified) < keep or keep < 1:
        return (
            [],
            f"only {len(verified)} of {len(found)} are verified, fewer than the {keep} to keep; nothing was removed",
        )
    oldest_kept = verified[-keep].sequence
    kept = [b for b in verified if b.sequence >= oldest_kept]
    last = {id(b) for b in _last_ones(verified, kept)}
    return [b for b in found if b.sequence < oldest_kept and b is not found[-1] and id(b) not in last], ""


def _last_ones(verified: Sequence[Backup], kept: Sequence[Backup]) -> list[Backup]:
    """Return the newest backups that have databases which the kept ones left out."""
    held = {name for b in kept for name in b.facts.get("databases", ())}
    missing = {name for b in kept for name in b.facts.get("left_out", ())} - held
    newest = {name: b for b in verified for name in b.facts.get("databases", ()) if name in missing}
    return list(newest.values())


def prune(found: Sequence[Backup], keep: int) -> tuple[list[Backup], str]:
    """Remove old ones of the backups of a target, so that `keep` verified ones stay; returns them, and why more stayed.

    The caller holds the lock.
    """
    doomed, why = prunable(found, keep)
    for backup in doomed:
        remove(backup)
    return doomed, why


def remove(backup: Backup) -> None:
    """Remove a backup; renamed first, so that a removal that is cut short leaves none that looks whole."""
    part = backup.path.with_name(f"{PART}{backup.path.name}")
    os.rename(backup.path, part)
    shutil.rmtree(part, ignore_errors=True)
