"""Services whose pods are ready, until they answer at this machine's ports.

A pod is ready before kube-proxy leads its NodePort to it, and after a start of the node pods count as ready that are
not there yet: for a second or two connections are accepted and dropped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from infra import health
from infra.endpoints import Endpoints

PATIENCE = 30.0
"""Seconds; who does not answer then is told by the proof that follows, with its reason."""
PAUSE = 0.2


def wait(
    ends: Endpoints,
    services: Sequence[str],
    psql: Path,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> list[str]:
    """Ask each service until it answers, refuses the login, or the patience is over; returns who does not answer."""
    left, end = [s for s in services if s in ends.services], clock() + PATIENCE
    while left:
        found = health.ask({s: health.probe(ends, s, psql, database="postgres") for s in left}, limit=3.0)
        left = [s for s in left if not (found[s].ok or found[s].fatal)]
        if clock() >= end:
            break
        if left:
            sleep(PAUSE)
    return left
