"""One stack per checkout: its directory, its name, its lock, what it remembers."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from infra import catalog, private
from infra.errors import PlatformError
from infra.locks import try_lock
from infra.settings import Settings


@dataclass(frozen=True)
class Stack:
    """Name and directories of a stack; nothing is made until it is written to."""

    name: str
    home: Path

    @property
    def logs(self) -> Path:
        """Logs of the task runs."""
        return self.home / "logs"

    @property
    def backups(self) -> Path:
        """The backups that were made without naming another place."""
        return self.home / "backups"

    @property
    def scratch(self) -> Path:
        """Return the directory in which dumps are unpacked while they are checked or restored."""
        return self.home / "scratch"

    def tier_home(self, tier: str) -> Path:
        """Return the directory of one tier's state and data."""
        return self.home / tier

    @property
    def memory(self) -> Path:
        """The file with what is remembered between runs."""
        return self.home / "stack.json"


def of(settings: Settings) -> Stack:
    """Return the stack of a checkout: the directory's name plus six hex digits of its path's SHA-256."""
    home = settings.state_dir
    digest = hashlib.sha256(os.fsencode(home)).hexdigest()[:6]
    label = re.sub(r"[^a-z0-9]+", "-", settings.root.name.lower()).strip("-") or "platform"
    return Stack(f"{label}-{digest}", home)


def ensure_home(stack: Stack) -> None:
    """Make the stack's directory, private, with a .gitignore.

    Raises:
        PlatformError: STATE_UNWRITABLE or STATE_UNSAFE with the reason.
    """
    try:
        private.directory(stack.home, private.way())
        private.directory(stack.logs)
        probe = stack.home / f".write-{os.getpid()}"
        probe.write_text("x")
        probe.unlink()
        ignore = stack.home / ".gitignore"
        if not ignore.exists():
            write_atomic(ignore, "*\n")
    except OSError as error:
        raise unwritable(stack.home, error) from error


def unwritable(path: Path, error: OSError) -> PlatformError:
    """Return the error for a directory that takes no writes (read-only, full, another user's)."""
    return PlatformError(
        "STATE_UNWRITABLE",
        f"the state directory {path} cannot be written",
        why=error.strerror or str(error),
        steps=(
            f"make {path} writable for this user and check that its disk is not full",
            "or set PLATFORM_STATE_DIR to another directory",
        ),
    )


def write_atomic(path: Path, text: str, mode: int = 0o644, sync: bool = True) -> None:
    """Write a file so that a reader sees the old or the new text, never a part; `sync`: also after a power cut."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            if sync:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def make_way(path: Path) -> None:
    """Move a directory aside that takes the place of one of our files; for paths below the state directory only.

    Raises:
        OSError: it cannot be moved.
    """
    if path.is_dir():
        os.replace(path, path.with_name(f"{path.name}.damaged-{time.time_ns()}"))


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the object in a JSON file; None when the file is missing, unreadable or no object."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def remember(stack: Stack, **facts: object) -> None:
    """Keep facts (such as the tier) for later runs. Raises PlatformError STATE_UNWRITABLE."""
    try:
        make_way(stack.memory)
        write_atomic(stack.memory, json.dumps((read_json(stack.memory) or {}) | facts, indent=1) + "\n")
    except OSError as error:
        raise unwritable(stack.home, error) from error


def remembered(stack: Stack, fact: str) -> str:
    """Return a fact from an earlier run as text, or ''."""
    return str((read_json(stack.memory) or {}).get(fact, ""))


def remembered_overlay(stack: Stack) -> tuple[str, ...]:
    """Return the observability services that ran in earlier runs and were not given up since."""
    found = (read_json(stack.memory) or {}).get("overlay")
    return tuple(name for name in catalog.OBSERVABILITY if isinstance(found, list) and name in found)


def remember_overlay(stack: Stack, names: Iterable[str]) -> None:
    """Keep which of these are observability services, for `up` to bring back. Raises PlatformError STATE_UNWRITABLE."""
    kept = [name for name in catalog.OBSERVABILITY if name in set(names)]
    if kept != list(remembered_overlay(stack)):
        remember(stack, overlay=kept)


def remembered_settings(stack: Stack) -> dict[str, str]:
    """Return the settings that earlier runs have decided, such as ports that were moved."""
    found = (read_json(stack.memory) or {}).get("settings")
    return {str(k): str(v) for k, v in found.items()} if isinstance(found, dict) else {}


def remember_settings(stack: Stack, **values: str) -> None:
    """Keep settings for later runs, beside those that are kept already. Raises PlatformError STATE_UNWRITABLE."""
    ensure_home(stack)
    remember(stack, settings=remembered_settings(stack) | values)


@contextlib.contextmanager
def lock(stack: Stack, command: str, *, writes: bool = True) -> Iterator[None]:
    """Hold the stack's lock; the kernel frees it when the process dies.

    Args:
        writes: False for what must work on a full disk too.

    Raises:
        PlatformError: LOCKED with the holder's pid, command and start time; STATE_UNWRITABLE.
    """
    try:
        ensure_home(stack)
    except PlatformError:
        if writes:
            raise
    path = stack.home / "lock"
    try:
        make_way(path)
        file = open(path, "a+", encoding="utf-8")  # noqa: SIM115 - closed below, also on the error path
    except OSError as error:
        raise unwritable(stack.home, error) from error
    with file:
        if not try_lock(file):
            raise _held(path)
        _sign(file, command)
        try:
            yield
        finally:
            _sign(file, "")


def _sign(file: IO[str], command: str) -> None:
    with contextlib.suppress(OSError):  # on a full disk others are not told who holds the lock
        os.ftruncate(file.fileno(), 0)
        if command:
            note = {"pid": os.getpid(), "command": command, "since": time.time()}
            os.write(file.fileno(), json.dumps(note).encode())


def _held(path: Path) -> PlatformError:
    holder = read_json(path) or {}
    began = holder.get("since")
    since = time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(began)) if isinstance(began, float) else "?"
    who = f"pid {holder.get('pid', '?')} (`{holder.get('command', '?')}`), since {since}"
    return PlatformError(
        "LOCKED",
        "another run is in progress on this stack",
        why=who,
        steps=("wait until it finishes, or stop that process", "invoke status"),
        details={"pid": holder.get("pid"), "command": holder.get("command"), "since": holder.get("since")},
    )
