"""Data that passes once leaves nothing behind in memory or on the disk, where the system can do that.

A dump of a table passes through a file: with holes where it has been read, the disk need not hold the whole table
beside its backup, and nothing is written out that nobody reads again. A large file that was written and synced need
not push the pages of the servers out of the page cache.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

STEP = 8 << 20
"""Bytes that are given back at once."""
LARGE = 1 << 20
"""Bytes from which on a file is not kept in the page cache; small ones are read again too slowly from a disk."""
_KEEP_SIZE, _PUNCH_HOLE = 1, 2  # linux/falloc.h


@dataclass
class Passing:
    """A file that is read once from its beginning; `freed` bytes of it are gone."""

    file: FileIO
    freed: int = 0

    def read_to(self, position: int) -> None:
        """Give back what lies before `position`, in steps; where that fails the file stays as it is."""
        punch = _punch()
        if punch is not None and position - self.freed >= STEP:
            punch(self.file.fileno(), _KEEP_SIZE | _PUNCH_HOLE, self.freed, position - self.freed)
            self.freed = position


def opened(path: Path) -> FileIO:
    """Return a file to be read while it grows, unbuffered; open for writing too where that is needed for holes."""
    return open(path, "rb" if _punch() is None else "rb+", buffering=0)


def forget(file: FileIO) -> None:
    """Take a large file that has been synced out of the page cache."""
    if sys.platform == "linux" and os.fstat(file.fileno()).st_size >= LARGE:
        with contextlib.suppress(OSError):  # advice only
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@functools.cache
def _punch() -> Callable[[int, int, int, int], int] | None:
    """Find fallocate(2) with 64-bit offsets, or None: Python's os has only posix_fallocate, which makes no holes."""
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)
    call = getattr(library, "fallocate64", None) or getattr(library, "fallocate", None)  # musl has only the second
    if call is not None:
        call.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    return call
