"""Stand-ins for the servers of a training."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime

from infra.training.jobs import Metric, Superseded


class MemoryStore:
    """A store in memory; counts what is written and remembers what is read."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], bytes] = {}
        self.writes: list[str] = []
        self.reads: list[str] = []

    def get(self, bucket: str, key: str) -> bytes | None:
        self.reads.append(f"{bucket}/{key}")
        return self.objects.get((bucket, key))

    def put(self, bucket: str, key: str, data: bytes, content_type: str = "application/octet-stream") -> None:
        self.writes.append(f"{bucket}/{key}")
        self.objects[bucket, key] = data

    def listing(self, bucket: str, prefix: str) -> dict[str, str]:
        mine = {key: data for (b, key), data in self.objects.items() if b == bucket and key.startswith(prefix)}
        return {key: hashlib.md5(data, usedforsecurity=False).hexdigest() for key, data in mine.items()}


class MemoryJobs:
    """The jobs table with one row."""

    def __init__(self, attempt: int = 1) -> None:
        self.attempt = attempt
        self.rows: dict[tuple[int, str], float] = {}
        self.result: dict[str, object] = {}

    def record(self, job: str, attempt: int, epoch: int, metrics: Mapping[str, float]) -> None:
        self._check(job, attempt)
        self.rows.update({(epoch, name): value for name, value in metrics.items()})

    def set_result(self, job: str, attempt: int, **columns: object) -> None:
        self._check(job, attempt)
        self.result.update(columns)

    def metrics(self, job: str) -> list[Metric]:
        at = datetime(2026, 11, 23, tzinfo=UTC)
        return [Metric(epoch, name, value, at) for (epoch, name), value in sorted(self.rows.items())]

    def _check(self, job: str, attempt: int) -> None:
        if attempt != self.attempt:
            raise Superseded(f"job {job} is no longer at attempt {attempt}")


class SilentProgress:
    """Collects what would go to Redis."""

    def __init__(self) -> None:
        self.published: list[dict[str, object]] = []

    def publish(self, **facts: object) -> None:
        self.published.append(facts)
