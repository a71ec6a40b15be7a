"""The contents that all object backups of a target share: `objects/<first two of sha256>/<sha256>`.

A file there is complete from its first moment (written beside, synced, renamed), and its name says what is in it.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from infra import private
from infra.data import store

DIRECTORY = "objects"
_NAME = re.compile(r"^[0-9a-f]{64}$")
_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
_BINARY = getattr(os, "O_BINARY", 0)


class Pool:
    """The contents of one target; nothing in it is ever reached over a link."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.root = target / DIRECTORY
        self._known: set[Path] = set()

    def path(self, sha256: str) -> Path:
        """Return the path of a content. Raises ValueError for what is not a SHA-256 in hex."""
        if not _NAME.match(sha256):
            raise ValueError(f"{sha256[:80]!r} is not a SHA-256")
        return self.root / sha256[:2] / sha256

    def has(self, sha256: str, size: int) -> bool:
        """Return whether the content is there with its whole size (bytes); it is not read."""
        try:
            path = self.path(sha256)
            found = path.lstat()
            return stat.S_ISREG(found.st_mode) and found.st_size == size and self._direct(path.parent)
        except (OSError, ValueError):
            return False

    def adopt(self, part: Path, sha256: str) -> None:
        """Take in a file that is written and synced. An older copy is replaced, which heals a damaged one.

        Raises:
            OSError: the directory cannot be written, or is a link.
        """
        os.replace(part, self._place(sha256))

    def _place(self, sha256: str) -> Path:
        """Return the path of a content, whose directory is there and no link."""
        path = self.path(sha256)
        for directory in (self.root, path.parent):
            if directory not in self._known:
                private.make(directory)
                if not self._direct(directory):
                    raise OSError(errno.ELOOP, "is a symlink, which is not followed", str(directory))
                self._known.add(directory)
        return path

    def take_over(self, other: Pool, sha256: str, size: int) -> bool:
        """Take in a content of another pool, linked or copied; False when it is not whole there.

        Raises:
            OSError: the directory cannot be written, or is a link.
        """
        if not other.has(sha256, size) or other.problem(sha256, size):
            return False
        path = self._place(sha256)
        try:
            os.link(other.path(sha256), path, follow_symlinks=False)
        except OSError:  # another disk, or one without links
            part = path.with_name(f".{path.name}.part")
            shutil.copyfile(other.path(sha256), part, follow_symlinks=False)
            part.chmod(0o600)
            os.replace(part, path)
        return True

    def open(self, sha256: str) -> int:
        """Return a read-only descriptor of a content.

        Raises:
            OSError: it is missing, a link, reached over a link, or no plain file.
        """
        path = self.path(sha256)
        if not self._direct(path.parent):
            raise OSError(errno.ELOOP, "is reached through a symlink, which is not followed", str(path))
        descriptor = os.open(path, os.O_RDONLY | _NOFOLLOW | _BINARY)
        if path.is_symlink() or not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OSError(errno.ELOOP, "is not a regular file, or is a symlink", str(path))
        return descriptor

    def problem(self, sha256: str, size: int) -> str:
        """Describe the damage of a content ('' when it is whole); reads all of it."""
        try:
            with os.fdopen(self.open(sha256), "rb") as file:
                if os.fstat(file.fileno()).st_size != size:
                    return "does not have the size in its manifest"
                if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                    return "does not have the content that its name says (SHA-256)"
        except FileNotFoundError:
            return "is missing"
        except (OSError, ValueError) as error:
            return getattr(error, "strerror", None) or str(error)
        return ""

    def _direct(self, directory: Path) -> bool:
        """Return whether a directory of the pool is a real one; asked once for each that is."""
        if directory in self._known:
            return True
        direct = not directory.is_symlink() and not self.root.is_symlink() and directory.is_dir()
        if direct:
            self._known.add(directory)
        return direct

    def sync(self, prefixes: Iterable[str]) -> None:
        """Make the entries of these directories (first two hex digits) durable."""
        touched = sorted(set(prefixes))
        for prefix in touched:
            store.sync_directory(self.root / prefix)
        if touched:
            store.sync_directory(self.root)

    def contents(self) -> Iterator[Path]:
        """Yield every content in the pool; links and foreign files are left out."""
        if self.root.is_symlink() or not self.root.is_dir():
            return
        for directory in sorted(self.root.iterdir()):
            if directory.is_dir() and not directory.is_symlink():
                yield from (f for f in sorted(directory.iterdir()) if _NAME.match(f.name) and not f.is_symlink())
