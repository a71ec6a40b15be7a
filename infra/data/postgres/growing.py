"""Files that another program is still writing: read to their end, once, and freed on the way."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from io import FileIO
from pathlib import Path

from infra.data import page_cache

CHUNK = 1 << 18
"""Bytes to process at once: what one step has read stays in the processor's cache for the next."""
PAUSE = 0.01
"""Seconds between two looks at a file that has not grown."""


def chunks(source: FileIO, growing: Callable[[], bool], done: Callable[[int], None]) -> Iterator[memoryview]:
    """Yield the bytes of a file that is still being written, until it is complete; the next ones replace them.

    `done` gets the position up to which they have been processed.
    """
    buffer, position = memoryview(bytearray(CHUNK)), 0
    while True:
        more = growing()
        while size := source.readinto(buffer):
            yield buffer[:size]
            position += size
            done(position)
        if not more:
            return
        time.sleep(PAUSE)


@contextlib.contextmanager
def read_once(source: Path, growing: Callable[[], bool]) -> Iterator[Iterator[memoryview]]:
    """Read a file of an archive while it grows; what has been read of it is freed."""
    with page_cache.opened(source) as raw:
        yield chunks(raw, growing, page_cache.Passing(raw).read_to)
