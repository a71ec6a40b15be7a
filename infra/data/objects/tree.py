"""A plain tree of files that is written and read without ever leaving it, whatever is put into its way."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import re
import stat
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infra.data.objects import keys
from infra.data.objects.keys import PART, Fold

_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
_DIRECTORY = getattr(os, "O_DIRECTORY", 0)
_BINARY = getattr(os, "O_BINARY", 0)
_UNFINISHED = re.compile(re.escape(PART) + r"\d+-\d+-\d+$")
BELOW = os.open in os.supports_dir_fd and os.rename in os.supports_dir_fd
"""True where the system opens files below an open directory; Windows does not, and is checked name by name instead."""


class Way(Exception):
    """The way to a file is blocked: by a link, or by a file where a directory should be."""


@dataclass
class Tree:
    """A directory; paths below it have `/` between their parts and were found safe before."""

    root: Path
    _numbers: Any = field(default_factory=itertools.count)

    @contextlib.contextmanager
    def _opened(self, parts: list[str], make: bool) -> Iterator[tuple[Path, int | None]]:
        """Open the directory that these parts lead to; its descriptor comes along where the system has such."""
        if not BELOW:
            yield self._checked(parts, make), None
            return
        current = os.open(self.root, os.O_RDONLY | _DIRECTORY)
        try:
            for part in parts:
                following = _enter(current, part, make)
                os.close(current)
                current = following
            yield self.root, current
        finally:
            os.close(current)

    def _checked(self, parts: list[str], make: bool) -> Path:
        current = self.root
        for part in parts:
            current = current / part
            if make and not current.exists():
                current.mkdir(mode=0o700)
            if current.is_symlink() or _junction(current) or not current.is_dir():
                raise Way(f"{part} is not a directory, or is a symlink")
        return current

    def stat(self, path: str) -> os.stat_result | None:
        """Return the size and time of a file; None when there is none. Raises Way."""
        *above, name = path.split("/")
        try:
            with self._opened(above, make=False) as (directory, descriptor):
                if descriptor is None:
                    return (directory / name).lstat()
                return os.stat(name, dir_fd=descriptor, follow_symlinks=False)
        except FileNotFoundError:
            return None

    @contextlib.contextmanager
    def writing(self, path: str) -> Iterator[int]:
        """Open a new file for writing; it takes its name when the block has ended well, and is removed otherwise.

        Raises:
            Way: a link or a file is in the way.
        """
        *above, name = path.split("/")
        part = f"{PART}{os.getpid()}-{threading.get_ident()}-{next(self._numbers)}"
        with self._opened(above, make=True) as (directory, below):
            target = name if below is not None else str(directory / name)
            temporary = part if below is not None else str(directory / part)
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | _NOFOLLOW | _BINARY
            descriptor = os.open(temporary, flags, 0o600, dir_fd=below)
            try:
                try:
                    yield descriptor
                finally:
                    os.close(descriptor)
                _replace(temporary, target, below)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(temporary, dir_fd=below)
                raise

    def reading(self, path: str) -> int:
        """Return a read-only descriptor of a regular file. Raises Way if it is a symlink, or reached through one."""
        *above, name = path.split("/")
        with self._opened(above, make=False) as (directory, below):
            target = name if below is not None else str(directory / name)
            try:
                descriptor = os.open(target, os.O_RDONLY | _NOFOLLOW | _BINARY, dir_fd=below)
            except OSError as error:
                raise Way(error.strerror or str(error)) from error
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise Way("is not a regular file")
        return descriptor

    def files(self, path: str = "") -> Iterator[tuple[str, str]]:
        """Yield every file below, sorted, with '' or with why it is none that can be read."""
        directory = self.root / path if path else self.root
        with os.scandir(directory) as scan:
            entries = sorted(scan, key=lambda entry: entry.name)
        for entry in entries:
            below = f"{path}/{entry.name}" if path else entry.name
            if entry.is_symlink() or _junction(Path(entry.path)):
                yield below, "is a symlink, which is not followed"
            elif entry.is_dir(follow_symlinks=False):
                yield from self.files(below)
            elif not entry.name.startswith(PART):
                yield below, "" if entry.is_file(follow_symlinks=False) else "is not a regular file"

    def sweep(self) -> None:
        """Remove the unfinished files of runs that died."""
        for directory, names, files in os.walk(self.root, followlinks=False):
            for name in files:
                if _UNFINISHED.match(name):
                    with contextlib.suppress(OSError):
                        os.unlink(os.path.join(directory, name))
            names[:] = [n for n in names if not os.path.islink(os.path.join(directory, n))]


def _enter(current: int, part: str, make: bool) -> int:
    flags = os.O_RDONLY | _DIRECTORY | _NOFOLLOW
    try:
        return os.open(part, flags, dir_fd=current)
    except FileNotFoundError:
        if not make:
            raise
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.EMLINK):
            raise Way(f"{part} is not a directory, or is a symlink") from error
        raise
    with contextlib.suppress(FileExistsError):
        os.mkdir(part, 0o700, dir_fd=current)
    return _enter(current, part, make=False)


def _junction(path: Path) -> bool:
    """Return whether this is a junction, which is what links to directories mostly are on Windows."""
    if os.name != "nt":
        return False
    tag = getattr(path.lstat(), "st_reparse_tag", 0) if path.exists() else 0
    return bool(tag)


def _replace(temporary: str, target: str, below: int | None) -> None:
    try:
        if below is None:
            os.replace(temporary, target)
        else:
            os.rename(temporary, target, src_dir_fd=below, dst_dir_fd=below)
    except IsADirectoryError as error:
        raise Way("there is a directory in its place") from error


def fold_of(directory: Path) -> Fold:
    """Find out which names the file system of a directory takes for equal."""
    probe = directory / f"{PART}probe-{os.getpid()}-A\u00e9"
    probe.write_bytes(b"")
    try:
        if probe.with_name(probe.name.swapcase()).exists():
            return keys.case_folded
        decomposed = probe.name.replace("\u00e9", "e\u0301")
        return keys.composed if probe.with_name(decomposed).exists() else keys.exact
    finally:
        probe.unlink()
