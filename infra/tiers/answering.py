"""Services whose containers or pods are healthy, until they answer at this machine's ports.

A pod is ready before kube-proxy leads its NodePort to it, and after a start of the node pods count as ready that are
not there yet: connections are accepted and dropped, for a second or two, or until the pods have started again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from infra import health
from infra.endpoints import Endpoints
from infra.waiting import HEARTBEAT

PATIENCE, AFTER_START = 30.0, 180.0
"""Seconds, and seconds after a start of the node; the checks that follow report what is still silent."""
PAUSE = 0.1


def wait(
    ends: Endpoints,
    services: Sequence[str],
    psql: Path,
    say: Callable[[str], object],
    patience: float = PATIENCE,
    *,
    limit: float = 3.0,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> list[str]:
    """Ask each service until it answers, refuses the login, or the patience is over; returns who does not answer.

    Args:
        say: told who is waited for, now and then.
        patience: in seconds.
        limit: seconds for one answer.
    """
    left, now = [s for s in services if s in ends.services], clock()
    end, beat = now + patience, now + HEARTBEAT
    while left:
        found = health.ask({s: health.probe(ends, s, psql, database="") for s in left}, limit=limit)
        left = [s for s in left if not (found[s].ok or found[s].fatal)]
        now = clock()
        if now >= end:
            break
        if left and now >= beat:
            beat = now + HEARTBEAT
            say(f"  still waiting for {left[0]} to answer: {' '.join(found[left[0]].detail.split())[:200]}")
        if left:
            sleep(PAUSE)
    return left
