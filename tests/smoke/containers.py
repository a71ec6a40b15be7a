"""What tests ask of the Docker engine itself: a Compose project's containers, volumes, and their removal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from infra import catalog, docker_engine, settings, stack
from infra import pull as image_pull
from infra.console import Console
from infra.context import Context
from infra.tiers.compose.session import Session
from infra.tiers.compose.state import PROJECT_LABEL


def client() -> Any:
    """The SDK's client of the engine that the platform would use."""
    return docker_engine.client(docker_engine.find())


def of_project(engine: Any, project: str) -> list[dict[str, Any]]:
    """The containers of a project, running or not."""
    return list(engine.containers(all=True, filters={"label": f"{PROJECT_LABEL}={project}"}))


def volumes_of(engine: Any, project: str) -> list[str]:
    """Names of a project's volumes; that which says whose they are is one of them."""
    found = engine.volumes(filters={"name": f"{project}_"}).get("Volumes") or []
    return [str(v["Name"]) for v in found if str(v["Name"]).startswith(f"{project}_")]


def remove_all(project: str) -> list[str]:
    """Remove containers, networks and volumes of a project; returns the names of containers that were still there."""
    engine = client()
    left = of_project(engine, project)
    for box in left:
        engine.remove_container(box["Id"], force=True, v=True)
    for network in engine.networks(filters={"label": f"{PROJECT_LABEL}={project}"}):
        engine.remove_network(network["Id"])
    for volume in volumes_of(engine, project):
        engine.remove_volume(volume, force=True)
    return [str(box["Names"][0]) for box in left]


def session(env: Mapping[str, str]) -> Session:
    """What the tier itself would see in that environment."""
    loaded = settings.load(environ=env)
    return Session(Context(loaded, stack.of(loaded), Console()))


def without_image(env: Mapping[str, str]) -> list[str]:
    """Observability services, and parts of them, whose image is not here: they cannot be tested without a registry."""
    seen = session(env)
    names = [s.name for s in catalog.SERVICES if s.overlay == catalog.OVERLAY_OBS]
    parts = [part for name in names for part in seen.model.of(name)]
    absent = set(image_pull.missing([p.image for p in parts], seen.images()))
    found = [p.name if p.name in ("alloy", *_EXPORTERS) else p.owner for p in parts if p.image in absent]
    return list(dict.fromkeys(found))


_EXPORTERS = ("node-exporter", "postgres-exporter", "redis-exporter")
