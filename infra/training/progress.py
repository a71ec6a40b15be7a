"""Progress of a job on the Redis channel `training:<job>`: for those who watch; losing a message harms nobody."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from infra.training.contract import Contract, connect_redis
from infra.training.report import as_json

if TYPE_CHECKING:
    import redis

PAUSE_AFTER_FAILURE = 5.0
"""Seconds without a new try after Redis did not answer."""


def channel(job: str) -> str:
    """Return the channel of a job."""
    return f"training:{job}"


class Progress:
    """Publishes JSON objects about one job; never raises and never waits more than about a second."""

    def __init__(self, contract: Contract, job: str) -> None:
        self._contract, self._job = contract, job
        self._client: redis.Redis | None = None
        self._silent_until = 0.0

    def publish(self, **facts: object) -> None:
        """Send facts, e.g. epoch=3, epochs=15, metrics={...} or state="running"."""
        import redis

        if time.monotonic() < self._silent_until:
            return
        try:
            self._client = self._client or connect_redis(self._contract, timeout=1.0)
            told = facts | ({"metrics": as_json(metrics)} if isinstance(metrics := facts.get("metrics"), dict) else {})
            self._client.publish(channel(self._job), json.dumps({"job": self._job, "at": time.time(), **told}))
        except redis.RedisError:
            self._silent_until = time.monotonic() + PAUSE_AFTER_FAILURE
