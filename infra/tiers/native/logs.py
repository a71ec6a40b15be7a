"""The log files of the native tier's services, which are emptied and not renamed when they grow too large."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from infra import loglines
from infra.loglines import Follower, LogQuery
from infra.tiers.base import LogLine

PAUSE = 0.2
"""Seconds between two looks at files that are followed."""


def lines(directory: Path, names: Sequence[str], query: LogQuery) -> Iterator[LogLine]:
    """Yield the wanted lines of each service's log; never ends where it is followed.

    Args:
        directory: the one with the logs.
        names: services; all that have a log if none is named.
        query: which lines.
    """
    followers: dict[str, Follower] = {}
    for name, path in _logs(directory, names).items():
        followers[name] = Follower(path)
        for line in loglines.last(_parts(path), query, followers[name].position):
            yield LogLine(name, line)
    while query.follow:
        for name, path in _logs(directory, names).items():  # one that starts meanwhile has a log from now on
            follower = followers.setdefault(name, Follower(path, 0))
            yield from (LogLine(name, line) for line in follower.news() if query.matches(line))
        time.sleep(PAUSE)


def _logs(directory: Path, names: Sequence[str]) -> dict[str, Path]:
    return {p.stem: p for p in sorted(directory.glob("*.log")) if not names or p.stem in names}


def _parts(log: Path) -> list[Path]:
    """Return the log and what was copied from it before it was emptied, the newest first."""
    return [log, *sorted(log.parent.glob(f"{log.name}.[0-9]*"), key=lambda p: int(p.suffix[1:]))]
