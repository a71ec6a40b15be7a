"""The log files of the native tier's services, which are emptied and not renamed when they grow too large."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from infra import loglines
from infra.loglines import Follower
from infra.tiers.base import LogLine

PAUSE = 0.2
"""Seconds between two looks at files that are followed."""


def lines(directory: Path, names: Sequence[str], tail: int, follow: bool) -> Iterator[LogLine]:
    """Yield the last lines of each service's log, and on `follow` those that come; never ends then.

    Args:
        names: services; all that have a log if none is named.
        tail: lines of each; all for 0 and less.
    """
    files = {p.stem: p for p in sorted(directory.glob("*.log")) if not names or p.stem in names}
    followers = {name: Follower(path) for name, path in files.items()}
    for name, path in files.items():
        for line in loglines.last(path, tail):
            yield LogLine(name, line)
    while follow:
        for name, follower in followers.items():
            yield from (LogLine(name, line) for line in follower.news())
        time.sleep(PAUSE)
