"""The log files of the native tier's services, which are emptied and not renamed when they grow too large."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

from infra.tiers.base import LogLine

PAUSE = 0.2
"""Seconds between two looks at files that are followed."""


def lines(directory: Path, names: Sequence[str], tail: int, follow: bool) -> Iterator[LogLine]:
    """The last lines of each service's log, and on `follow` those that come; never ends then.

    Args:
        names: services; all that have a log if none is named.
        tail: lines of each; all for 0 and less.
    """
    files = {p.stem: p for p in sorted(directory.glob("*.log")) if not names or p.stem in names}
    positions = {name: _end_of(path) for name, path in files.items()}
    for name, path in files.items():
        for line in _tail(path, tail):
            yield LogLine(name, line)
    while follow:
        for name, path in files.items():
            positions[name], new = _since(path, positions[name])
            yield from (LogLine(name, line) for line in new)
        time.sleep(PAUSE)


def _end_of(path: Path) -> int:
    with contextlib.suppress(OSError):
        return path.stat().st_size
    return 0


def _tail(path: Path, count: int) -> list[str]:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return [line.rstrip("\n") for line in deque(file, maxlen=count if count > 0 else None)]
    except OSError:
        return []


def _since(path: Path, position: int) -> tuple[int, list[str]]:
    """New whole lines after a byte position; starts again when the file was rotated."""
    with contextlib.suppress(OSError):
        size = path.stat().st_size
        with open(path, "rb") as file:
            file.seek(position if position <= size else 0)
            data = file.read()
            end = data.rfind(b"\n") + 1
            return file.tell() - len(data) + end, data[:end].decode("utf-8", "replace").splitlines()
    return position, []
