"""Lines of log files, each of a length that fits into memory whatever a program has printed."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

LONGEST = 65_536
"""Bytes that are shown of a line."""
CHUNK = 1 << 20


def last(path: Path, count: int) -> list[str]:
    """Return the last lines of a file, all for 0 and less; none where it cannot be read."""
    try:
        with open(path, "rb") as file:
            return list(deque(read(file), maxlen=count if count > 0 else None))
    except OSError:
        return []


def read(file: BinaryIO) -> Iterator[str]:
    """Yield the lines from where a file stands, without their ends; one that is too long is cut, and says so."""
    while piece := file.readline(LONGEST):
        left_out = 0
        while piece and not piece.endswith(b"\n") and (more := file.readline(LONGEST)):
            left_out += len(more) - more.endswith(b"\n")
            if more.endswith(b"\n"):
                break
        yield _shown(piece, left_out)


class Follower:
    """New whole lines of a file that grows; begins again when the file was emptied."""

    def __init__(self, path: Path, position: int | None = None) -> None:
        self._path = path
        self._position = self._size() if position is None else position
        self._passing = False

    def news(self) -> list[str]:
        """Return the lines since the last call, at most a mebibyte of them."""
        with contextlib.suppress(OSError):
            if self._size() < self._position:
                self._position, self._passing = 0, False
            with open(self._path, "rb") as file:
                file.seek(self._position)
                data = file.read(CHUNK)
            return list(self._lines(data))
        return []

    def _lines(self, data: bytes) -> Iterator[str]:
        end = data.rfind(b"\n") + 1
        if end == 0 and len(data) == CHUNK:  # the line has no end yet: its beginning is shown once
            self._position += len(data)
            passing, self._passing = self._passing, True
            if not passing:
                yield _shown(data[:LONGEST], len(data) - LONGEST)
            return
        self._position += end
        for line in data[:end].split(b"\n")[:-1]:
            passing, self._passing = self._passing, False
            if not passing:
                yield _shown(line[:LONGEST], len(line) - LONGEST)

    def _size(self) -> int:
        with contextlib.suppress(OSError):
            return self._path.stat().st_size
        return 0


def _shown(line: bytes, left_out: int) -> str:
    text = line.removesuffix(b"\n").decode("utf-8", "replace")
    return f"{text} ... (a line that is too long to show)" if left_out > 0 else text
