"""What only containers have; on other tiers these tests are not there."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.smoke import containers


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    return None if config.getoption("--tier", "native") == "compose" else True


@pytest.fixture(scope="session")
def engine() -> Any:
    """The Docker engine."""
    return containers.client()


@pytest.fixture(scope="session")
def project() -> str:
    """The Compose project of the running platform."""
    return os.environ["PLATFORM_STACK"]


@pytest.fixture
def boxes(engine: Any, project: str) -> dict[str, dict[str, Any]]:
    """What the engine says of each container, by the name of its service in the files."""
    found = [engine.inspect_container(c["Id"]) for c in containers.of_project(engine, project)]
    return {c["Config"]["Labels"]["com.docker.compose.service"]: c for c in found}


def docker(*words: str, limit: float = 120) -> subprocess.CompletedProcess[str]:
    """Run `docker ...` as a user would."""
    argv = ["docker", *words]
    return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=limit, check=False)
