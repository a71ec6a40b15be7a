"""The program `docker compose`: is it there and new enough, with which arguments and environment it is called."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from infra import catalog, docker_engine, shell
from infra.docker_engine import Engine
from infra.errors import PlatformError
from infra.settings import Settings

MINIMUM = (2, 24, 4)
"""The first with everything that the files use; it is what they are tested with, up to 5."""
CORE_FILE = "docker-compose.yml"
OBS_FILE = "docker-compose.observability.yml"
LIGHT_FILE = "docker-compose.light.yml"
IN_FILES = ("PLATFORM_S3_ENGINE", "PLATFORM_METRICS_DIR", "PLATFORM_DOCKER_SOCKET")
"""Settings with our prefix that the files use; PLATFORM_STACK is set apart."""
STORE_FILES = {"rustfs": "docker-compose.rustfs.yml", "external": "docker-compose.external-s3.yml"}
"""Engines behind S3 other than the default."""
DOWN_LIMIT = 180.0
"""Seconds for what ends services: their own graces, one after another."""


@dataclass(frozen=True)
class ComposeCommand:
    """The command line of Compose for one stack: its project name, files, and environment."""

    project: str
    files: tuple[Path, ...]
    environ: Mapping[str, str]
    no_env_file: Path
    """A file without a value (compose/.env.example): Compose would read `.env` by itself, by different rules."""

    def argv(self, *words: str) -> list[str]:
        """Return the command line; settings go through the environment, never in here."""
        files = [word for path in self.files for word in ("-f", str(path))]
        own = ["--env-file", str(self.no_env_file), "--project-name", self.project, "--ansi", "never"]
        return docker_engine.command("compose", *files, *own, *words)

    def run(self, *words: str, limit: float = DOWN_LIMIT, check: bool = True) -> shell.Result:
        """Run it to its end. Raises PlatformError PROGRAM_FAILED or WAIT_TIMEOUT."""
        return shell.run(self.argv(*words), env=self.environ, limit=limit, check=check)

    def start(self, *words: str) -> shell.Running:
        """Start it in the background."""
        return shell.start(self.argv(*words), env=self.environ)


def files(settings: Settings, directory: Path) -> tuple[Path, ...]:
    """Return files of core, overlay and variants: services are named to choose what runs, so that `down` finds all."""
    names = [CORE_FILE, OBS_FILE]
    names += [LIGHT_FILE] if settings.light else []
    names += [STORE_FILES[store(settings)]] if store(settings) in STORE_FILES else []
    return tuple(directory / n for n in names if (directory / n).exists())


def store(settings: Settings) -> str:
    """Return the engine behind S3: silo, rustfs or external."""
    return settings.text("PLATFORM_S3_ENGINE")


def left_out(settings: Settings) -> tuple[str, ...]:
    """Return the services, and parts of the files, that are not to be started."""
    return settings.words("PLATFORM_LEAVE_OUT")


def environment(settings: Settings, engine: Engine | None, project: str) -> dict[str, str]:
    """Return the variables that Compose puts into the files: our settings where set, and none that would steer it."""
    values = {name: settings.text(name) for name in catalog.SETTINGS if settings.text(name) and _in_files(name)}
    if store(settings) != "external":  # where another S3 service is means nothing to our own
        values = {name: text for name, text in values.items() if not name.startswith("S3_")}
    own = {"PLATFORM_STACK": project, "COMPOSE_PROFILES": "*", "COMPOSE_IGNORE_ORPHANS": "true", "COMPOSE_FILE": ""}
    own |= docker_engine.leading_to(engine.place) if engine else {}
    return values | own


def _in_files(name: str) -> bool:
    """Return whether the files can use a setting; what steers this tool must not recreate containers."""
    return not name.startswith("PLATFORM_") or name in IN_FILES


def version(environ: Mapping[str, str] | None = None) -> str:
    """Return Compose's version, e.g. '2.40.3'.

    Raises:
        PlatformError: COMPOSE_UNFIT when it is missing, version 1 or too old; PROGRAM_MISSING without `docker`.
    """
    if not docker_engine.has_program():
        steps = ("install it: https://docs.docker.com/engine/install/ (package docker-ce-cli or docker-cli)", *_NATIVE)
        raise PlatformError(
            "PROGRAM_MISSING", "Docker is running, but the `docker` command is not installed", steps=steps
        )
    done = shell.run(docker_engine.command("compose", "version", "--short"), env=environ, check=False)
    text = done.out.strip().removeprefix("v")
    if done.code or not text:
        raise _unfit("Docker Compose is not installed", _old_one())
    if not new_enough(text):
        raise _unfit(f"Docker Compose {text} is too old", "")
    return text


def new_enough(text: str) -> bool:
    """Return whether a version will do; one built by hand says `dev` and is trusted."""
    found = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", text)
    return found is None or tuple(int(n or 0) for n in found.groups()) >= MINIMUM


def _old_one() -> str:
    """Describe an installed `docker-compose`, as version 1 was called; '' without one."""
    if not shell.find("docker-compose"):
        return ""
    said = shell.run(["docker-compose", "version", "--short"], limit=20, check=False).out.strip()
    return f"there is `docker-compose` {said}, which is not the `docker` plugin" if said else ""


_NATIVE = ("or use --tier native: it needs no Docker",)


def _unfit(what: str, why: str) -> PlatformError:
    needed = ".".join(str(n) for n in MINIMUM)
    steps = (f"install Docker Compose {needed} or newer: https://docs.docker.com/compose/install/linux/", *_NATIVE)
    return PlatformError("COMPOSE_UNFIT", what, why=why or f"version {needed} up to 5 is required", steps=steps)
