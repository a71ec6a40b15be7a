"""The containers' logs, through the engine."""

from __future__ import annotations

import queue
import re
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from infra import docker_engine
from infra.loglines import LogQuery
from infra.tiers.base import LogLine
from infra.tiers.compose.model import owner_of
from infra.tiers.compose.session import Session
from infra.tiers.compose.state import Container

_COLOR = re.compile(r"\x1b\[[0-9;]*m")


def lines(session: Session, services: Sequence[str], query: LogQuery) -> Iterator[LogLine]:
    """Yield the wanted lines of the services' containers (all if none is named), and those that come."""
    chosen = [c for c in session.containers().values() if _wanted(c.part, services)]
    if not chosen:
        session.context.console.say("no container, so there is no log. Next: invoke compose.up")
    for container in chosen:
        count = 0 if query.pattern else query.tail
        for text in query.last(last(session.client, container, count, query.since)):
            yield LogLine(container.part, text)
    if query.follow:
        yield from (line for line in _followed(session, chosen) if query.matches(line.text))


def _wanted(part: str, services: Sequence[str]) -> bool:
    return not services or part in services or owner_of(part) in services


def last(client: Any, container: Container, count: int, since: float | None = None) -> list[str]:
    """Return the last lines of one container, those since a time if one is given; empty when it has gone."""
    import docker

    try:
        most = count if count > 0 else "all"
        raw = client.logs(container.id, stdout=True, stderr=True, tail=most, since=since)
    except docker.errors.APIError:
        return []
    return [_COLOR.sub("", line) for line in bytes(raw).decode("utf-8", "replace").splitlines()]


def _followed(session: Session, chosen: Sequence[Container]) -> Iterator[LogLine]:
    news: queue.Queue[LogLine | None] = queue.Queue()
    for container in chosen:
        threading.Thread(target=_read, args=(session, container, news), daemon=True).start()
    open_streams = len(chosen)
    while open_streams:
        line = news.get()
        if line is None:
            open_streams -= 1
        else:
            yield line


def _read(session: Session, container: Container, news: queue.Queue[LogLine | None]) -> None:
    client = docker_engine.client(session.engine, limit=None)
    rest = b""
    try:
        for chunk in client.logs(container.id, stream=True, follow=True, tail=0):
            *whole, rest = (rest + chunk).split(b"\n")
            for text in whole:
                news.put(LogLine(container.part, _COLOR.sub("", text.decode("utf-8", "replace").rstrip("\r"))))
    finally:
        news.put(None)
