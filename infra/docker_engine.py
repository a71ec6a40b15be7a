"""The door to Docker: the engine that answers, its SDK, its program, and why there is none.

Order: DOCKER_HOST, else the current context of the `docker` program, else the known sockets of Docker, Docker Desktop,
Rancher Desktop, Colima, OrbStack, Lima and Podman. Whether an engine answers is asked without the SDK, whose import
would cost every command a tenth of a second. The `docker` program is what Compose is a part of and what kind calls:
it is led to the same engine.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra import shell
from infra.errors import PlatformError

MINIMUM_API = (1, 41)
"""Docker 20.10 (December 2020)."""
NEWEST_API = (1, 44)
"""The API version that the SDK speaks; newer engines still support it."""
ANSWER_LIMIT = 3
"""Seconds for an engine to report its version."""


@dataclass(frozen=True)
class EnginePlace:
    """A possible place of an engine: its URL, and how we came upon it."""

    url: str
    found: str

    @property
    def socket(self) -> Path | None:
        """The path of a Unix socket; None for other ways."""
        return Path(self.url.removeprefix("unix://")) if self.url.startswith("unix://") else None


@dataclass(frozen=True)
class Engine:
    """An engine that answers: where, its version and the version of its API."""

    place: EnginePlace
    version: str
    api: tuple[int, int]
    product: str = "Docker"

    @property
    def text(self) -> str:
        """For people: product, version, how it was found."""
        return f"{self.product} {self.version}, {self.place.found} ({self.place.url})"


def known_sockets(environ: Mapping[str, str], home: Path) -> list[EnginePlace]:
    """Return the places where engines listen, most usual first; which of them are there is not asked."""
    if sys.platform == "win32":
        pipes = {"Docker": "docker_engine", "Docker Desktop": "dockerDesktopLinuxEngine"}
        pipes |= {"Podman": "podman-machine-default"}
        return [EnginePlace(f"npipe:////./pipe/{pipe}", name) for name, pipe in pipes.items()]
    runtime = Path(environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}")
    paths = {
        Path("/var/run/docker.sock"): "its default socket",
        home / ".docker/run/docker.sock": "Docker Desktop",
        home / ".docker/desktop/docker.sock": "Docker Desktop",
        home / ".rd/docker.sock": "Rancher Desktop",
        home / ".colima/default/docker.sock": "Colima",
        home / ".config/colima/default/docker.sock": "Colima",
        home / ".orbstack/run/docker.sock": "OrbStack",
        home / ".lima/docker/sock/docker.sock": "Lima",
        runtime / "docker.sock": "rootless Docker",
        runtime / "podman/podman.sock": "Podman",
        Path("/run/podman/podman.sock"): "Podman",
    }
    return [EnginePlace(f"unix://{path}", name) for path, name in paths.items()]


def places(environ: Mapping[str, str] | None = None, home: Path | None = None) -> list[EnginePlace]:
    """List where to look, in order; only one place where the user has chosen it (DOCKER_HOST or a context)."""
    environ = os.environ if environ is None else environ
    home = home or Path.home()
    chosen = _chosen(environ, home)
    return [chosen] if chosen else [p for p in known_sockets(environ, home) if p.socket is None or p.socket.exists()]


def _chosen(environ: Mapping[str, str], home: Path) -> EnginePlace | None:
    if environ.get("DOCKER_HOST"):
        return EnginePlace(environ["DOCKER_HOST"], "set by DOCKER_HOST")
    return _context(environ, Path(environ.get("DOCKER_CONFIG") or home / ".docker"))


def _context(environ: Mapping[str, str], config: Path) -> EnginePlace | None:
    """Return the current context's engine (docs.docker.com/engine/manage-resources/contexts); None for the default."""
    name = environ.get("DOCKER_CONTEXT") or _json(config / "config.json").get("currentContext", "")
    if not name or name == "default":
        return None
    digest = hashlib.sha256(name.encode()).hexdigest()
    meta = _json(config / "contexts" / "meta" / digest / "meta.json")
    url = meta.get("Endpoints", {}).get("docker", {}).get("Host", "")
    return EnginePlace(url, f"the current context {name}") if url else None


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def find(environ: Mapping[str, str] | None = None, home: Path | None = None) -> Engine:
    """Return the engine to use.

    Raises:
        PlatformError: DOCKER_MISSING, DOCKER_STOPPED, DOCKER_REFUSED or DOCKER_TOO_OLD, each with what to do.
    """
    troubles: list[tuple[EnginePlace, Exception]] = []
    for place in places(environ, home):
        try:
            return _checked(place, ask(place, "/version"))
        except (OSError, ValueError, http.client.HTTPException) as error:
            troubles.append((place, error))
    raise _no_engine(troubles)


def _checked(place: EnginePlace, answer: Mapping[str, Any]) -> Engine:
    version = str(answer.get("Version", "?"))
    numbers = [int(n) for n in str(answer["ApiVersion"]).split(".")[:2]]
    product = "Podman" if "podman" in json.dumps(answer.get("Components", [])).lower() else "Docker"
    engine = Engine(place, version, (numbers[0], numbers[1]), product)
    if engine.api < MINIMUM_API:
        raise PlatformError(
            "DOCKER_TOO_OLD",
            f"{engine.text} is too old",
            why=f"its API is {answer['ApiVersion']}; {MINIMUM_API[0]}.{MINIMUM_API[1]} (Docker 20.10) is needed",
            steps=("install a newer Docker: https://docs.docker.com/engine/install/", "or use --tier native"),
        )
    return engine


def has_program() -> bool:
    """Return whether the `docker` command is installed."""
    return shell.find("docker") is not None


def command(*words: str) -> list[str]:
    """Return a command line of the `docker` program; run it with `leading_to` or `led`."""
    return ["docker", *words]


def leading_to(place: EnginePlace) -> dict[str, str]:
    """Return the variables that lead `docker`, and programs that call it, to an engine."""
    return {"DOCKER_HOST": place.url, "DOCKER_CONTEXT": ""}


def led(environ: Mapping[str, str] | None = None, home: Path | None = None) -> dict[str, str]:
    """Return the variables that lead `docker` to the engine that `find` uses.

    {} where it goes there by itself, as DOCKER_HOST or the current context say, and where no engine answers: then it
    is for `docker` to say why.
    """
    environ = os.environ if environ is None else environ
    home = home or Path.home()
    for place in places(environ, home) if _chosen(environ, home) is None else ():
        try:
            ask(place, "/version")
        except (OSError, ValueError, http.client.HTTPException):
            continue
        return leading_to(place)
    return {}


def ask(place: EnginePlace, path: str) -> Any:
    """Return the JSON answer of an engine to GET `path`, without the SDK where it listens on a Unix socket.

    Raises:
        OSError, ValueError, http.client.HTTPException: it does not answer, or not as an engine.
    """
    if place.socket is None:
        return _ask_by_sdk(place, path)
    link = http.client.HTTPConnection("localhost", timeout=ANSWER_LIMIT)
    link.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        link.sock.settimeout(ANSWER_LIMIT)
        link.sock.connect(str(place.socket))
        link.request("GET", path)
        answer = link.getresponse()
        body = answer.read()
    finally:
        link.close()
    if answer.status != 200:
        raise ValueError(f"HTTP {answer.status}: {body[:200].decode('utf-8', 'replace')}")
    return json.loads(body)


def _ask_by_sdk(place: EnginePlace, path: str) -> Any:
    import docker
    import requests

    try:
        sdk = _sdk(place, "1.41", ANSWER_LIMIT)
        answer = sdk.get(f"{sdk.base_url}{path}", timeout=ANSWER_LIMIT)
        answer.raise_for_status()
        return answer.json()
    except (docker.errors.DockerException, requests.RequestException) as error:
        raise ConnectionError(str(error)) from error


def client(engine: Engine, limit: int | None = 120) -> Any:
    """Return a client of the SDK (docker.APIClient) for an engine that answers.

    Args:
        limit: seconds for one answer; None for streams.
    """
    major, minor = min(engine.api, NEWEST_API)
    return _sdk(engine.place, f"{major}.{minor}", limit)


def _sdk(place: EnginePlace, version: str, limit: int | None) -> Any:
    import docker
    from docker.utils import kwargs_from_env

    tls = place.url.startswith("tcp://") and bool(os.environ.get("DOCKER_TLS_VERIFY"))
    options: dict[str, Any] = {**kwargs_from_env()} if tls else {"base_url": place.url}
    # None is what requests takes for "no limit"; the annotation of the SDK does not know it.
    return docker.APIClient(version=version, timeout=limit, **options)  # type: ignore[arg-type]


def _no_engine(troubles: list[tuple[EnginePlace, Exception]]) -> PlatformError:
    refused = next((pair for pair in troubles if isinstance(pair[1], PermissionError)), None)
    if refused:
        return _refused(*refused)
    if troubles or has_program():
        return _stopped(troubles)
    return PlatformError(
        "DOCKER_MISSING",
        "Docker is not installed",
        why="there is neither an engine's socket nor a `docker` command",
        steps=("install Docker: https://docs.docker.com/get-started/get-docker/", "or use --tier native: no Docker"),
    )


def _refused(place: EnginePlace, error: Exception) -> PlatformError:
    return PlatformError(
        "DOCKER_REFUSED",
        f"this user is not allowed to use Docker at {place.url}",
        why=str(error),
        steps=("sudo usermod -aG docker $USER, then log in again", "or use --tier native: it needs no privileges"),
    )


def _stopped(troubles: list[tuple[EnginePlace, Exception]]) -> PlatformError:
    how = {"darwin": "open Docker Desktop", "win32": "start Docker Desktop"}
    start = how.get(sys.platform, "sudo systemctl start docker, or open Docker Desktop")
    why = "; ".join(f"{place.url} ({place.found}): {error}" for place, error in troubles)
    return PlatformError(
        "DOCKER_STOPPED",
        "Docker is installed but not running",
        why=why or "the `docker` command is installed, but there is no engine's socket",
        steps=(start, "or use --tier native: it needs no Docker"),
    )
