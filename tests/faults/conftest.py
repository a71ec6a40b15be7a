"""Platforms that fault tests may break: one for a module, or one for a test; nothing of them outlives its test."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from infra.settings import ROOT
from tests.faults.matrix import Matrix
from tests.smoke.stage import GONE, UP_LIMIT, Completed, Stage, stage

TIER = "native"
WORKER = "training-worker"


def pytest_configure(config: pytest.Config) -> None:
    """The table of faults at the end of a run."""
    config.addinivalue_line("markers", "fault(row, ...): the rows of the table of faults that the test is about")
    config.pluginmanager.register(Matrix(ROOT / ".platform-tests"), "faults-matrix")


@dataclass(frozen=True)
class Victim:
    """A platform of a test's own, with what it takes to break it."""

    stage: Stage

    @property
    def stack_home(self) -> Path:
        """The directory of its state."""
        return self.stage.home

    @property
    def env(self) -> dict[str, str]:
        """The environment of its commands: ports, state directory."""
        return dict(self.stage.env)

    @property
    def contract(self) -> dict[str, str]:
        """The `.env` contract, asked for each time."""
        found: dict[str, str] = self.stage.data("env")
        return found

    def invoke(self, *arguments: str, check: bool = False, timeout: float = UP_LIMIT) -> Completed:
        """Run `invoke ...` against it."""
        return self.stage.invoke(*arguments, check=check, timeout=timeout)

    def up(self, *arguments: str) -> Completed:
        """Start it; fails the test when that fails."""
        return self.invoke("up", *arguments, check=True)

    def state(self) -> dict[str, Any]:
        """What the supervisor of the tier wrote down."""
        return self.stage.state()

    def pid(self, service: str) -> int:
        """The process of a service; `supervisor` and `training-worker` count as services."""
        if service == "supervisor":
            return int(self.state()["supervisor"]["pid"])
        found = self.stage.state("training") if service == WORKER else self.state()
        return int(found["services"][service]["pid"])

    def kill(self, service: str) -> int:
        """End a service's process without warning; returns its pid once it is gone."""
        process = psutil.Process(self.pid(service))
        process.send_signal(getattr(signal, "SIGKILL", signal.SIGTERM))
        psutil.wait_procs([process], timeout=GONE)
        return process.pid

    def left_over(self) -> list[str]:
        """Processes of it that run."""
        return [str(p) for p in self.stage.left_over()]


@pytest.fixture(scope="module")
def platform() -> Iterator[Victim]:
    """A running platform, shared by the tests of a module, which have to leave it running."""
    with stage(TIER) as made:
        victim = Victim(made)
        victim.up()
        yield victim


@pytest.fixture
def fresh_platform() -> Iterator[Victim]:
    """A platform of the test alone, not started yet."""
    with stage(TIER) as made:
        yield Victim(made)
