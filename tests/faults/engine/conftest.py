"""A Docker engine that tests of this directory may break, with the platform in it."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from infra.errors import PlatformError
from infra.settings import ROOT
from infra.tiers.compose import cli as compose_cli
from tests.rig import cache, env_file
from tests.rig.second_engine import SecondEngine, second_engine
from tests.smoke.stage import Completed, clean_environment, run

LIMIT = 600
CORE = ("POSTGRES_IMAGE", "REDIS_IMAGE", "MINIO_IMAGE", "TEMPORAL_DEV_IMAGE")
"""Images of the light core, which is enough to break."""


@dataclass(frozen=True)
class Broken:
    """The platform's commands against an engine of their own, inside its network."""

    engine: SecondEngine
    home: Path
    env: dict[str, str] = field(default_factory=dict)

    def invoke(self, *arguments: str, **env: str) -> Completed:
        """Run `invoke ...`, whatever it ends with."""
        argv = self.engine.inside([sys.executable, "-m", "invoke", *arguments])
        return run(argv, ROOT, clean_environment() | self.env | env, LIMIT)

    def up(self, **env: str) -> Completed:
        """Start the light core."""
        return self.invoke("compose.up", **env)

    def data(self, *arguments: str) -> Any:
        """The `data` of a command's JSON envelope."""
        return json.loads(self.invoke(*arguments, "--output", "json").stdout)["data"]


def references() -> dict[str, str]:
    """The images of the light core that are there, by setting."""
    found = {name: os.environ[name] for name in CORE if os.environ.get(name)} | _made()
    return {name: found[name] for name in CORE if name in found}


def _made() -> dict[str, str]:
    return env_file.values() if shutil.which("docker") else {}


def lacking() -> str:
    """Why an engine of its own is not available here; '' when it can."""
    if sys.platform != "linux" or os.geteuid() != 0 or not shutil.which("dockerd"):
        return "an engine of its own needs root on Linux, and dockerd"
    try:
        compose_cli.version()
    except PlatformError as error:
        return f"{error.what}: python -m tests.rig.up brings it"
    missing = [name for name in CORE if name not in references()]
    return f"without {', '.join(missing)}: python -m tests.rig.up makes them" if missing else ""


def stack(engine: SecondEngine, home: Path) -> Broken:
    """The platform for an engine."""
    own = {"PLATFORM_STATE_DIR": str(home), "PLATFORM_TIER": "compose", "PLATFORM_LIGHT": "yes"}
    own["DOCKER_HOST"] = engine.url
    return Broken(engine, home, references() | own)


@pytest.fixture(scope="module")
def broken() -> Iterator[Broken]:
    """An engine with the images of the light core; nothing runs in it yet."""
    if lacking():
        pytest.skip(lacking())
    home = Path(tempfile.mkdtemp(prefix="platform-test-", dir=cache.folder("tmp")))
    with second_engine() as engine:
        engine.load(*references().values())
        yield stack(engine, home)
    shutil.rmtree(home, ignore_errors=True)
