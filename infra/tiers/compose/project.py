"""The choice of this stack's Compose project: `platform`, unless another checkout has it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra import docker_engine, stack
from infra.docker_engine import EnginePlace
from infra.settings import Settings
from infra.stack import Stack
from infra.tiers.compose.state import DIRECTORY_LABEL, PROJECT_LABEL, SERVICE_LABEL

DEFAULT = "platform"
SETTING = "PLATFORM_STACK"
MARKER = "checkout"
"""The volume whose label tells which stack owns the project's volumes, even when no container is left."""
OWNER_LABEL = "platform.state"


@dataclass(frozen=True)
class Listed:
    """A container of any Compose project: project, directory and service of its files, whether it runs, host ports."""

    name: str
    project: str
    directory: str
    runs: bool
    ports: tuple[int, ...]
    part: str = ""


def listed(answer: Sequence[Mapping[str, Any]]) -> list[Listed]:
    """Parse the engine's answer to GET /containers/json."""
    found = []
    for entry in answer:
        labels = entry.get("Labels") or {}
        ports = tuple({p["PublicPort"] for p in entry.get("Ports") or () if p.get("PublicPort")})
        name = (entry.get("Names") or ["?"])[0].lstrip("/")
        runs = entry.get("State") in ("running", "restarting", "paused")
        project, place, part = (labels.get(label, "") for label in (PROJECT_LABEL, DIRECTORY_LABEL, SERVICE_LABEL))
        found.append(Listed(name, project, place, runs, ports, part))
    return found


def everything(place: EnginePlace) -> list[Listed]:
    """Return all containers of an engine. Raises OSError, ValueError or http.client.HTTPException."""
    return listed(docker_engine.ask(place, "/v1.41/containers/json?all=1"))


def chosen(settings: Settings, home: Stack) -> str:
    """Return the name that a setting or an earlier run has fixed; '' when it is still open."""
    return settings.text(SETTING) or stack.remembered(home, "project")


def name(settings: Settings, home: Stack, seen: Sequence[Listed], owner: str = "") -> str:
    """Return the project's name.

    Args:
        seen: the engine's containers.
        owner: state directory of the stack whose volumes `platform` holds, '' when no one has claimed them.
    """
    fixed = chosen(settings, home)
    if fixed:
        return fixed
    elsewhere = any(c.project == DEFAULT and not _same(c.directory, directory(settings)) for c in seen)
    claimed = bool(owner) and not _same(owner, home.home) and Path(owner).exists()
    return f"{DEFAULT}-{_digits(home)}" if elsewhere or claimed else DEFAULT


def directory(settings: Settings) -> Path:
    """Return the directory of the Compose files."""
    return settings.root / "compose"


def _same(text: str, path: Path) -> bool:
    return bool(text) and os.path.normcase(os.path.realpath(text)) == os.path.normcase(os.path.realpath(path))


def _digits(home: Stack) -> str:
    return hashlib.sha256(os.fsencode(home.home)).hexdigest()[:6]


def owner(client: Any, project: str) -> str:
    """Return the state directory that the marker of a project names; '' without a marker."""
    import docker

    try:
        facts = client.inspect_volume(f"{project}_{MARKER}")
    except docker.errors.NotFound:
        return ""
    return str((facts.get("Labels") or {}).get(OWNER_LABEL, ""))


def claim(client: Any, project: str, home: Stack) -> None:
    """Mark a project's volumes as this stack's, and remember its name; a marker whose stack is gone is replaced."""
    mark = f"{project}_{MARKER}"
    found = owner(client, project)
    if found != str(home.home):
        if found:
            client.remove_volume(mark)
        client.create_volume(mark, labels={OWNER_LABEL: str(home.home)})
    if stack.remembered(home, "project") != project:
        stack.remember(home, project=project)
