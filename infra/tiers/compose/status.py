"""The services of the catalogue out of the containers that run them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from infra import docker_engine
from infra.endpoints import Endpoints
from infra.tiers.base import Observed, ServiceStatus
from infra.tiers.compose import state as compose_state
from infra.tiers.compose.cli import left_out
from infra.tiers.compose.model import ComposePart, owner_of
from infra.tiers.compose.preflight import as_wanted, changed_mounts
from infra.tiers.compose.session import A_MOMENT, Session
from infra.tiers.compose.state import Container
from infra.waiting import FAILED, READY


def status(session: Session, ends: Endpoints, engines: Mapping[str, str]) -> list[ServiceStatus]:
    """Return the started services, each with its parts' worst state, the first bad part's reason, and memory."""
    there = session.containers()
    if not there:
        return []
    used = memory(session, [c for c in there.values() if c.up])
    return [_one(session, name, there, used, engines.get(name, "")) for name in ends.services]


def _one(
    session: Session, name: str, there: Mapping[str, Container], used: Mapping[str, int], engine: str
) -> ServiceStatus:
    out = left_out(session.context.settings)
    parts = [p for p in session.model.of(name) if p.name in there or p.name not in out]
    seen = [(part, *state_of(part, there.get(part.name))) for part in parts]
    state = compose_state.worst([s for _, s, _ in seen])
    detail = next((_named(p, d, name) for p, s, d in seen if s == state and s != READY), "")
    boxes = [there[p.name] for p in parts if p.name in there]
    main = there.get(name) or next((b for b in boxes if b.up), None)
    return ServiceStatus(
        name,
        state,
        detail,
        main.pid if main and main.up else None,
        sum(used.get(b.id, 0) for b in boxes) or None,
        sum(b.restarts for b in boxes),
        main.started if main else None,
        engine,
        f"docker logs {main.name}" if main else "",
    )


def outdated(session: Session) -> tuple[str, ...]:
    """Return the services with a container that Compose would make again, or whose mounted files have changed."""
    last = session.applied
    if last and as_wanted(session, session.parts(last.services), session.containers(A_MOMENT)):
        return ()  # quickly, as `up` sees it
    done = session.compose.run("config", "--hash", "*", check=False)
    wanted = dict(line.split()[:2] for line in done.out.splitlines() if len(line.split()) == 2)
    label = f"{compose_state.PROJECT_LABEL}={session.project}"
    running = [entry["Labels"] for entry in session.client.containers(filters={"label": [label]})]
    hashes = {of[compose_state.SERVICE_LABEL]: of.get(compose_state.HASH_LABEL) for of in running}
    changed = {name for name, hashed in hashes.items() if wanted.get(name, hashed) != hashed}
    changed |= set(changed_mounts(session, [p for p in session.model.parts.values() if p.name in hashes])) & set(hashes)
    return tuple(sorted({owner for name in changed if (owner := owner_of(name))}))


_SCRAPED: Mapping[str, str] = {
    **{"alloy": "alloy", "grafana": "grafana", "loki": "loki", "node": "node-exporter", "mlflow": "mlflow"},
    **{"postgres": "postgres-exporter", "redis": "redis-exporter"},
}
"""Prometheus' job -> the container that it asks."""


def observed(session: Session) -> Observed:
    """Return what the monitoring covers."""
    there = {name for name, box in session.containers().items() if box.up}
    return Observed("alloy" in there, tuple(job for job, part in _SCRAPED.items() if part not in there))


def _named(part: ComposePart, detail: str, service: str) -> str:
    return detail if part.name == service else f"{part.name}: {detail}"


def state_of(part: ComposePart, container: Container | None) -> tuple[str, str]:
    """Return state and detail of a part when nothing is being started."""
    if container is None:
        return ("stopped", "its container is gone; invoke up recreates it") if not part.ends else (READY, "")
    if not container.up and container.state != "restarting" and not part.ends:
        if container.state == "created":
            return "stopped", container.error or "was created but never started"
        return "stopped", compose_state.why_ended(container, part.memory, container.oom)
    if part.ends and container.up:
        return "starting", "works"
    state, detail = compose_state.judged(part, replace(container, restarts=0), 0.0, container.oom, busy=False)
    return ("unhealthy" if state == FAILED and container.up else state), detail


def memory(session: Session, boxes: Sequence[Container]) -> dict[str, int]:
    """Return the bytes that each container uses, without the cache of files, as `docker stats` counts it."""

    def ask(box: Container) -> int:
        return used(docker_engine.client(session.engine).stats(box.id, stream=False, one_shot=True))

    if not boxes:
        return {}
    with ThreadPoolExecutor(min(8, len(boxes))) as pool:
        return dict(zip((b.id for b in boxes), pool.map(ask, boxes), strict=True))


def used(stats: Mapping[str, Any]) -> int:
    """Return the memory in use by the engine's statistics (docker/cli, calculateMemUsageUnixNoCache), 0 if unknown."""
    found = stats.get("memory_stats") or {}
    usage, details = int(found.get("usage", 0)), found.get("stats") or {}
    cache = details.get("total_inactive_file", details.get("inactive_file", 0))
    return usage - int(cache) if cache < usage else usage
