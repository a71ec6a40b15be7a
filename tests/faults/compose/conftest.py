"""Compose projects that fault tests may break; containers, networks and volumes of them are gone afterwards."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from tests.faults.conftest import Victim
from tests.smoke import containers
from tests.smoke.stage import stage

LIGHT = {"PLATFORM_LIGHT": "yes"}
"""These tests are not about Temporal: its development server starts sooner."""


@pytest.fixture(scope="session")
def engine() -> Any:
    """The Docker engine."""
    return containers.client()


@pytest.fixture(scope="module")
def running() -> Iterator[Victim]:
    """A running platform in containers, shared by the tests of a module, which have to leave it running."""
    with stage("compose", **LIGHT) as made:
        victim = Victim(made)
        victim.up()
        yield victim


@pytest.fixture
def fresh() -> Iterator[Victim]:
    """A platform in containers of the test alone, not started yet."""
    with stage("compose", **LIGHT) as made:
        yield Victim(made)


@pytest.fixture
def listener() -> Iterator[int]:
    """A port on which this very process listens."""
    with socket.create_server(("127.0.0.1", 0)) as held:
        yield int(held.getsockname()[1])


def project(victim: Victim) -> str:
    """The Compose project of a platform."""
    return victim.env["PLATFORM_STACK"]


def error(done: Any) -> dict[str, Any]:
    """The error of a command that was asked for JSON."""
    import json

    found: dict[str, Any] = json.loads(done.stdout)["error"]
    return found
