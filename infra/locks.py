"""File locks that the kernel frees when their holder dies."""

from __future__ import annotations

import sys
from typing import IO, Any

# A byte far behind any text: Windows locks bytes, and locked bytes cannot be read by others.
_FAR = 1 << 20


def try_lock(file: IO[Any]) -> bool:
    """Take the lock on an open file without waiting; False when another process holds it."""
    try:
        if sys.platform == "win32":
            import msvcrt

            file.seek(_FAR)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
