"""Common parts of the tasks of objects: clients of both stores, progress, names of what was left out."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from infra.console import Console, human_bytes, human_seconds, printable
from infra.context import Context
from infra.tasks.events import Event, silent

if TYPE_CHECKING:
    from infra.data.objects.client import Client

HEARTBEAT = 15.0
"""Seconds between lines of progress where nobody watches; a terminal gets one each second."""
NAMED = 20
"""Items that a message names; the JSON has them all."""

BUCKET = "only this bucket; repeatable, or comma-separated"


@dataclass
class ObjectProgress:
    """Says every now and then how far a run is."""

    console: Console
    verb: str
    event: Event = silent
    began: float = field(default_factory=time.monotonic)
    last: float = field(default_factory=time.monotonic)

    def __call__(self, objects: int, size: int) -> None:
        """Count objects and bytes that are done; print progress when it is time."""
        now = time.monotonic()
        if now - self.last < (1.0 if self.event is not silent or self.console.live else HEARTBEAT):
            return
        self.last = now
        rate = size / max(now - self.began, 1e-6)
        self.event("progress", {"what": self.verb, "objects": objects, "bytes": size, "rate": round(rate)})
        took = human_seconds(now - self.began)
        self.console.say(f"  {self.verb}: {objects} objects, {human_bytes(size)}, {human_bytes(rate)}/s, {took}", "dim")


@contextlib.contextmanager
def clients(context: Context) -> Iterator[dict[str, Client]]:
    """Open clients of both stores of the running platform."""
    from infra import tier_choice
    from infra.data.objects import backup as objects_backup
    from infra.data.objects import login as objects_login

    ends = tier_choice.running_endpoints(context)
    with objects_backup.connected(objects_login.login_of(ends, name) for name in objects_login.STORES) as clients:
        yield clients


def warn_of_metadata(context: Context, engines: Iterable[str]) -> None:
    """Warn where objects have been written to an engine that forgets their metadata when it restarts."""
    from infra import catalog

    for gap in (g for g in catalog.gaps(*set(engines)) if g.feature == "s3-metadata-durable"):
        context.console.warn(f"{gap.reason}; invoke minio.engine moves the stores to an engine that keeps them")


def named(context: Context, items: list[str], what: str) -> bool:
    """Name items that are left out as a warning; whether there are any."""
    for item in items[:NAMED]:
        context.console.warn(f"{what}: {printable(item)}")
    if len(items) > NAMED:
        context.console.warn(f"{what}: {len(items) - NAMED} more (--json has them all)")
    return bool(items)
