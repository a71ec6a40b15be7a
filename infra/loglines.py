"""Lines of log files, each of a length that fits into memory whatever a program has printed."""

from __future__ import annotations

import contextlib
import re
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO

LONGEST = 65_536
"""Bytes that are shown of a line."""
CHUNK = 1 << 20


@dataclass(frozen=True)
class LogQuery:
    """The wanted lines of each log: the last `tail` (all for 0) of those that match and were written `since`.

    `since` is in seconds since 1970; `follow`: also those that come.
    """

    tail: int = 100
    follow: bool = False
    since: float | None = None
    pattern: re.Pattern[str] | None = None

    def matches(self, text: str) -> bool:
        """Return whether a line has what is looked for."""
        return self.pattern is None or self.pattern.search(text) is not None

    def last(self, lines: Iterable[str], count: int | None = None) -> list[str]:
        """Return the last lines that match: `count` of them, by default as many as are wanted; all for 0."""
        most = self.tail if count is None else count
        return list(deque(filter(self.matches, lines), maxlen=most if most > 0 else None))


def last(files: Sequence[Path], query: LogQuery, end: int | None = None) -> Iterator[str]:
    """Yield the wanted lines of a log that was rotated; what cannot be read has none.

    Args:
        files: the log and its older parts, the newest first.
        query: what is wanted; all lines are not held in memory.
        end: position in the log where reading ends, from which it is followed; None for all of it.
    """
    if query.tail <= 0:
        for path in reversed(files):
            yield from filter(query.matches, _wanted(path, query, end if path == files[0] else None))
        return
    found: list[str] = []
    for path in files:
        lines = query.last(_wanted(path, query, end if path == files[0] else None), query.tail - len(found))
        found = lines + found
        if len(found) >= query.tail:
            break
    yield from found


def _wanted(path: Path, query: LogQuery, end: int | None) -> Iterator[str]:
    with contextlib.suppress(OSError), open(path, "rb") as file:
        yield from since(read(file, end), query.since, path.stat().st_mtime)


def since(lines: Iterable[str], earliest: float | None, written: float) -> Iterator[str]:
    """Yield the lines from that time on (seconds since 1970); one without a time is as old as the one before it.

    Args:
        lines: those of one file.
        earliest: the time; None for all.
        written: when the file was written last: the age of lines before the first time.
    """
    if earliest is not None and written < earliest:
        return
    seen = written
    for line in lines:
        seen = moment(line, written) or seen if earliest is not None else seen
        if earliest is None or seen >= earliest:
            yield line


_HEAD = 200
"""Characters of a line among which its time is: JSON has other fields before it."""
_TIME = r"(\d\d):(\d\d):(\d\d)(?:[.,](\d{1,6})\d*)?"
_ISO = re.compile(rf"(\d{{4}})[-/](\d\d)[-/](\d\d)[T ]{_TIME} ?(Z|UTC|GMT|[+-]\d\d:?\d\d)?")
_REDIS = re.compile(rf"(\d\d) ([A-Z][a-z]{{2}}) (\d{{4}}) {_TIME}")
_GLOG = re.compile(rf"[IWEF](\d\d)(\d\d) {_TIME}")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def moment(line: str, now: float) -> float | None:
    """Return when a line was written (seconds since 1970) by the time at its beginning; None where it has none.

    Known are ISO 8601 and its like (PostgreSQL, Temporal, MLflow), Redis' form, and glog's, which has no year
    (SeaweedFS). A time without a zone is this machine's; `now` says which year is the last one.
    """
    try:
        return _moment(line[:_HEAD], now)
    except (ValueError, OverflowError, OSError):  # no day of the calendar
        return None


def _moment(head: str, now: float) -> float | None:
    if found := _GLOG.match(head):
        month, day, *clock = found.groups()
        year = time.localtime(now + 86_400).tm_year
        made = _local((str(year), month, day, *clock))
        return made if made <= now + 86_400 else _local((str(year - 1), month, day, *clock))
    if found := _REDIS.search(head):
        day, name, year_, *clock = found.groups()
        return _local((year_, str(_MONTHS.index(name) + 1), day, *clock))
    if found := _ISO.search(head):
        *parts, zone = found.groups()
        return _local(tuple(parts)) if zone is None else _zoned(tuple(parts), zone)
    return None


def _naive(parts: tuple[str | None, ...]) -> datetime:
    *whole, fraction = parts
    year, month, day, hour, minute, second = (int(part or 0) for part in whole)
    return datetime(year, month, day, hour, minute, second, int((fraction or "0").ljust(6, "0")))


def _local(parts: tuple[str | None, ...]) -> float:
    return _naive(parts).timestamp()


def _zoned(parts: tuple[str | None, ...], zone: str) -> float:
    made = _naive(parts).replace(tzinfo=UTC)
    if zone[0] in "+-":
        away = timedelta(hours=int(zone[1:3]), minutes=int(zone[-2:]))
        made += away if zone[0] == "-" else -away
    return made.timestamp()


_SPAN = re.compile(r"(\d+(?:\.\d+)?)([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def earliest(text: str, now: float) -> float:
    """Return the time that a user means (seconds since 1970): `10m`, `2h`, `1d` ago, or an ISO 8601 time.

    Raises:
        ValueError: it is neither.
    """
    if found := _SPAN.fullmatch(text.strip()):
        return now - float(found[1]) * _SECONDS[found[2]]
    return datetime.fromisoformat(text.strip()).timestamp()


def read(file: BinaryIO, end: int | None = None) -> Iterator[str]:
    """Yield the lines from where a file stands, without their ends; one that is too long is cut, and says so.

    `end` is the position at which no further line begins.
    """
    while (end is None or file.tell() < end) and (piece := file.readline(LONGEST)):
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

    @property
    def position(self) -> int:
        """The byte from which on lines are new."""
        return self._position

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
