"""One run's view of the Compose tier: the engine, its client, Compose, the model of the files, what was started."""

from __future__ import annotations

import json
import secrets
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from infra import docker_engine, images, private, pull, stack
from infra.context import Context
from infra.docker_engine import Engine, EnginePlace
from infra.settings import Settings
from infra.tiers.compose import cli, state
from infra.tiers.compose import model as compose_model
from infra.tiers.compose import project as compose_project
from infra.tiers.compose.cli import ComposeCommand
from infra.tiers.compose.model import ComposeModel, ComposePart
from infra.tiers.compose.state import Container

NAME = "compose"
A_MOMENT = 1.0
"""Seconds for which one command reuses what it saw of the containers."""
SECRET = "clearml-secret"
"""A private file in the tier's directory."""
IN_MACHINES = {".docker", ".rd", ".colima", ".orbstack", ".lima"}
"""Folders with sockets of engines that run in a virtual machine."""


@dataclass(frozen=True)
class Applied:
    """The last request of `up`: services of the catalogue, and by part the container and mounted files."""

    services: tuple[str, ...] = ()
    fingerprint: str = ""
    containers: Mapping[str, str] = field(default_factory=dict)
    mounts: Mapping[str, str] = field(default_factory=dict)


def applied(home: Path) -> Applied | None:
    """Read what `up` last asked for; None when there is nothing, or nothing readable."""
    found = stack.read_json(home / "applied.json")
    if not found:
        return None
    try:
        return Applied(
            tuple(found.get("services", ())),
            str(found.get("fingerprint", "")),
            dict(found.get("containers", {})),
            dict(found.get("mounts", {})),
        )
    except (TypeError, ValueError):  # somebody has edited it
        return None


def note(home: Path, made: Applied) -> None:
    """Write down what is asked for. Raises PlatformError STATE_UNWRITABLE."""
    try:
        stack.write_atomic(home / "applied.json", json.dumps(vars(made), indent=1) + "\n", sync=False)
    except OSError as error:
        raise stack.unwritable(home, error) from error


def figures(settings: Settings, home: Path) -> Path:
    """Return the folder with figures for Prometheus."""
    chosen = settings.text("PLATFORM_METRICS_DIR")
    return settings.root / Path(chosen).expanduser() if chosen else home / compose_model.METRICS


def make_figures(settings: Settings, home: Path) -> None:
    """Make that folder before it is mounted: otherwise the engine makes it, as root.

    Raises:
        PlatformError: STATE_UNWRITABLE.
    """
    folder = figures(settings, home)
    try:
        private.make(folder, 0o755)  # Prometheus' user in the container reads it
    except OSError as error:
        raise stack.unwritable(folder, error) from error


def mounted(settings: Settings, home: Path, place: EnginePlace) -> dict[str, str]:
    """Return the variables for what the files mount of this machine: the folder of figures and the engine's socket.

    The socket of an engine in a virtual machine is at its usual place in there, whatever it is called out here.
    """
    found = {"PLATFORM_METRICS_DIR": str(figures(settings, home))}
    own = place.socket is not None and sys.platform == "linux" and not set(place.socket.parts) & IN_MACHINES
    if own and not settings.text("PLATFORM_DOCKER_SOCKET"):
        found["PLATFORM_DOCKER_SOCKET"] = str(place.socket)
    return found


def own_secret(settings: Settings, home: Path) -> dict[str, str]:
    """Return the stack's own CLEARML_SECRET, once there is one; what the user has set goes before it.

    Nobody logs in with it, so it need not be a value that everybody knows, as the documented one of the files is.
    """
    kept = _kept_secret(home) if settings.origin("CLEARML_SECRET") == "default" else ""
    return {"CLEARML_SECRET": kept} if kept else {}


def _kept_secret(home: Path) -> str:
    """Read the secret of an earlier run; '' when there is none, or when the file is damaged."""
    path = home / SECRET
    if not path.exists():
        return ""
    try:
        text = path.read_text(encoding="ascii", errors="replace").strip()
    except OSError as error:
        raise stack.unwritable(path, error) from error
    return text if text.isalnum() and text.isascii() else ""


@dataclass
class Session:
    """Everything looked up once and only when needed."""

    context: Context
    _images: dict[str, str] | None = None
    _seen: tuple[float, dict[str, Container]] | None = None

    @property
    def home(self) -> Path:
        """State of this tier."""
        return self.context.stack.tier_home(NAME)

    @cached_property
    def engine(self) -> Engine:
        """The engine; raises as `docker_engine.find` does."""
        return docker_engine.find()

    @cached_property
    def client(self) -> Any:
        """The SDK's client."""
        return docker_engine.client(self.engine)

    @cached_property
    def project(self) -> str:
        """The project's name."""
        settings, home = self.context.settings, self.context.stack
        fixed = compose_project.chosen(settings, home)
        if fixed:
            return fixed
        owner = compose_project.owner(self.client, compose_project.DEFAULT)
        return compose_project.name(settings, home, self.listed(), owner)

    def listed(self) -> list[compose_project.Listed]:
        """Return all containers of the engine, anyone's."""
        return compose_project.listed(self.client.containers(all=True))

    @cached_property
    def compose(self) -> ComposeCommand:
        """Return the command line of Compose."""
        settings = self.context.settings
        locked = self.images() if images.locked(settings.root) else ()
        environ = cli.environment(settings, self.engine, self.project) | images.replaced(settings, locked)
        environ |= mounted(settings, self.context.stack.home, self.engine.place)
        environ |= own_secret(settings, self.home)
        directory = compose_project.directory(settings)
        files = cli.files(settings, directory)
        return ComposeCommand(self.project, files, environ, directory / ".env.example")

    def make_secret(self) -> None:
        """Make ClearML's secret where there is none yet; what was made of the files before is forgotten.

        Raises:
            PlatformError: STATE_UNWRITABLE.
        """
        path = self.home / SECRET
        if self.context.settings.origin("CLEARML_SECRET") != "default" or _kept_secret(self.home):
            return
        try:
            stack.write_atomic(path, secrets.token_hex(24) + "\n", mode=0o600)
        except OSError as error:
            raise stack.unwritable(path, error) from error
        for name in ("compose", "model"):
            self.__dict__.pop(name, None)

    @cached_property
    def model(self) -> ComposeModel:
        """Return the model of the files."""
        return compose_model.load(self.compose, self.home / "model.json")

    def parts(self, services: Sequence[str]) -> list[ComposePart]:
        """Return the parts that run these services."""
        return compose_model.selection(self.context.settings, self.model, services)

    def containers(self, age: float = 0.0) -> dict[str, Container]:
        """Return the stack's containers as they are now, or as they were `age` seconds ago at most."""
        if self._seen is None or time.monotonic() - self._seen[0] > age:
            self._seen = (time.monotonic(), state.containers(self.client, self.project))
        return self._seen[1]

    def glance(self) -> list[compose_project.Listed]:
        """List the same in one request, with fewer facts; without the SDK, which takes long to load."""
        known = compose_project.everything(self.engine.place)
        return [c for c in known if c.project == self.project]

    def images(self) -> dict[str, str]:
        """Return the reference -> id of all images of the engine."""
        if self._images is None:
            self._images = pull.tags(self.client.images())
        return self._images

    def forget_images(self) -> None:
        """Forget the list of the engine's images: new ones have arrived."""
        self._images = None

    def seen_major(self, volume: str, created: str) -> str:
        """Return the major version of PostgreSQL that has last run on a volume; '' when it is not known."""
        found = stack.read_json(self.home / "volume.json") or {}
        return str(found.get("major", "")) if (found.get("volume"), found.get("created")) == (volume, created) else ""

    def remember_major(self, volume: str, created: str, major: str) -> None:
        """Note what runs on a volume, so that it need not be looked into at the next start."""
        facts = {"volume": volume, "created": created, "major": major}
        stack.write_atomic(self.home / "volume.json", json.dumps(facts), sync=False)

    @property
    def applied(self) -> Applied | None:
        """Read what `up` last asked for."""
        return applied(self.home)
