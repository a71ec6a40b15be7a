"""The Compose files as Compose itself reads them with the present settings; kept until something changes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from infra import catalog, stack
from infra.errors import PlatformError
from infra.settings import Settings
from infra.tiers.compose.cli import ComposeCommand, left_out, version

CONFIG_LIMIT = 30.0
METRICS = "metrics"
"""Folder with figures for Prometheus; they change all the time, which is no reason to recreate a container."""


@dataclass(frozen=True)
class ComposePart:
    """A service of the files: `memory` is its limit in bytes (0: none), `needs` what must be there before it."""

    name: str
    image: str
    container: str
    needs: tuple[str, ...] = ()
    ports: tuple[int, ...] = ()
    volumes: tuple[str, ...] = ()
    mounts: tuple[str, ...] = ()
    memory: int = 0
    ends: bool = False
    checked: bool = False

    @property
    def owner(self) -> str:
        """The service of the catalogue that it belongs to; what serves several belongs to one of them."""
        return owner_of(self.name)


OWNERS: Mapping[str, str] = {part.name: s.name for s in catalog.SERVICES for part in s.parts}
OPTIONAL = frozenset(part.name for s in catalog.SERVICES for part in s.parts if part.optional)
"""Services of the files that PLATFORM_LEAVE_OUT may name."""


def owner_of(name: str) -> str:
    """Return the catalogue service that a service of the files belongs to, in any version; '' for none."""
    known = OWNERS.get(name)
    return known or next((s.name for s in catalog.SERVICES if name.startswith(f"{s.name}-")), "")


@dataclass(frozen=True)
class ComposeModel:
    """All services of the files, with what they depend on and where they listen."""

    fingerprint: str
    parts: Mapping[str, ComposePart]

    def of(self, service: str) -> list[ComposePart]:
        """Return the parts of a service of the catalogue."""
        return [p for p in self.parts.values() if p.owner == service]

    def closure(self, names: Iterable[str]) -> list[ComposePart]:
        """Return the parts and all that they need, in an order in which needs come first."""
        found: dict[str, ComposePart] = {}

        def visit(name: str) -> None:
            part = self.parts.get(name)
            if part is not None and name not in found:
                for needed in part.needs:
                    visit(needed)
                found[name] = part

        for name in names:
            visit(name)
        return list(found.values())


def fingerprint(compose: ComposeCommand) -> str:
    """Return the SHA-256 of all that decides what Compose makes of the files: their text and the environment."""
    digest = hashlib.sha256()
    for path in compose.files:
        digest.update(path.read_bytes() if path.exists() else b"")
    digest.update(json.dumps(sorted(compose.environ.items())).encode())
    return digest.hexdigest()


def load(compose: ComposeCommand, kept: Path) -> ComposeModel:
    """Return the model, from the file `kept` where it is still right, else from `docker compose config`.

    Raises:
        PlatformError: SETTING_INVALID when Compose cannot read the files with these settings, COMPOSE_UNFIT or
            PROGRAM_MISSING when it is not one that could.
    """
    wanted = fingerprint(compose)
    found = stack.read_json(kept) or {}
    if found.get("fingerprint") != wanted:
        found = {"fingerprint": wanted, "parts": [asdict(p) for p in _asked(compose)]}
        if kept.parent.exists():  # a question about a stack that was never started leaves nothing behind
            stack.write_atomic(kept, json.dumps(found, indent=1), sync=False)
    parts = [_kept(entry) for entry in found["parts"]]
    return ComposeModel(wanted, {p.name: p for p in parts})


def _kept(entry: Mapping[str, Any]) -> ComposePart:
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in entry.items()}
    return ComposePart(**values)


def _asked(compose: ComposeCommand) -> list[ComposePart]:
    version(compose.environ)  # another Compose than the files need fails in ways that say nothing
    done = compose.run("config", "--format", "json", limit=CONFIG_LIMIT, check=False)
    if done.code:
        raise PlatformError(
            "SETTING_INVALID",
            "Docker Compose cannot read its files with these settings",
            why=done.last_line,
            steps=("invoke compose.config", "compare compose/ with the repository: git status compose"),
        )
    config = json.loads(done.out)
    names = {key: str(v.get("name", key)) for key, v in (config.get("volumes") or {}).items()}
    return [_part(name, entry, names) for name, entry in config["services"].items()]


def _part(name: str, entry: Mapping[str, Any], volumes: Mapping[str, str]) -> ComposePart:
    mounts: Sequence[Mapping[str, Any]] = entry.get("volumes") or ()
    limit = entry.get("mem_limit") or entry.get("deploy", {}).get("resources", {}).get("limits", {}).get("memory", 0)
    return ComposePart(
        name,
        str(entry.get("image", "")),
        str(entry.get("container_name", "")),
        tuple(entry.get("depends_on") or ()),
        tuple(int(p["published"]) for p in entry.get("ports") or () if p.get("published")),
        tuple(volumes[m["source"]] for m in mounts if m["type"] == "volume" and m.get("source") in volumes),
        tuple(str(m["source"]) for m in mounts if m["type"] == "bind"),
        int(limit),
        str(entry.get("restart", "no")).startswith(("no", "on-failure")),
        bool(entry.get("healthcheck")) and not entry["healthcheck"].get("disable"),
    )


def selection(settings: Settings, model: ComposeModel, services: Sequence[str]) -> list[ComposePart]:
    """Return the parts that run these services of the catalogue, with what they need, less what is left out."""
    out = left_out(settings)
    return model.closure(p.name for name in services for p in model.of(name) if p.name not in out)


def mounted_files(part: ComposePart, root: Path) -> list[Path]:
    """Return the files of the checkout that a part reads."""
    found: list[Path] = []
    for source in map(Path, part.mounts):
        if root in source.parents and source.name != METRICS:
            found += sorted(p for p in source.rglob("*") if p.is_file()) if source.is_dir() else [source]
    return found


def mounts_digest(part: ComposePart, root: Path) -> str:
    """Return the SHA-256 of the mounted files: Compose does not notice when they change."""
    digest = hashlib.sha256()
    for path in mounted_files(part, root):
        digest.update(str(path.relative_to(root)).encode())
        digest.update(path.read_bytes() if path.exists() else b"")
    return digest.hexdigest()
