"""Observability on the native tier: it comes back with `up`, it goes when it is told to, and `env` names what runs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from infra import stack
from infra.settings import ROOT
from infra.stack import Stack
from infra.tiers.native import mlflow_env
from tests.faults.conftest import TIER, Victim
from tests.faults.native import tools
from tests.smoke.stage import stage

CORE = {"postgres", "redis", "temporal", "minio-datasets", "minio-results"}


def running(victim: Victim) -> dict[str, int]:
    """The processes of all services that the supervisor knows."""
    return {name: entry["pid"] for name, entry in victim.state()["services"].items()}


@pytest.fixture(scope="module")
def observed() -> Iterator[Victim]:
    """A platform with MLflow."""
    with stage(TIER) as made:
        if made.invoke("up", "--obs").returncode and not mlflow_env.ready(ROOT):
            pytest.skip("MLflow cannot be installed here")
        yield Victim(made)


@pytest.fixture
def mute(observed: Victim) -> Iterator[Victim]:
    """The same, with an MLflow that takes connections and answers nothing."""
    observed.invoke("up", "-s", "mlflow", check=True)
    process = psutil.Process(running(observed)["mlflow"])
    process.suspend()
    yield observed
    process.resume()


SHOW = "import os; print('retries', os.environ.get('MLFLOW_HTTP_REQUEST_MAX_RETRIES'), flush=True)"
SILENT = "does not answer (ReadTimeout); next step: invoke up --obs"


@pytest.mark.parametrize(("given", "shown"), [((), "1"), (("--env", "MLFLOW_HTTP_REQUEST_MAX_RETRIES=5"), "5")])
def test_a_program_of_the_user_does_not_wait_for_a_silent_mlflow(
    mute: Victim, tmp_path: Path, given: tuple[str, ...], shown: str
) -> None:
    program = tmp_path / "show.py"
    program.write_text(SHOW)
    done = mute.invoke("train.run", "--command", f'"{sys.executable}" "{program}"', *given, check=True)
    assert f"warning: not tracked in MLflow: {mute.contract['MLFLOW_TRACKING_URI']} {SILENT}" in done.stderr
    assert f"retries {shown}" in done.stderr


def test_the_built_in_training_does_not_wait_for_a_silent_mlflow(mute: Victim) -> None:
    done = mute.invoke("train.run", "--epochs", "2", check=True)
    assert f"warning: mlflow: {mute.contract['MLFLOW_TRACKING_URI']} {SILENT}" in done.stderr
    assert "not tracked in mlflow" in done.stderr


def test_mlflow_comes_back_and_is_forgotten_on_request(observed: Victim) -> None:
    observed.invoke("down", check=True)
    assert "# MLflow is not running" in observed.invoke("env", check=True).stdout
    observed.up()
    assert set(running(observed)) == {*CORE, "mlflow"}
    assert observed.contract["MLFLOW_TRACKING_URI"]
    before = running(observed)
    observed.invoke("up", "--no-obs", check=True)
    assert running(observed) == {name: pid for name, pid in before.items() if name in CORE}
    assert stack.remembered_overlay(Stack("", observed.stack_home)) == ()
    assert "MLFLOW_TRACKING_URI" not in observed.contract
    observed.invoke("obs.up", "--only", "mlflow", check=True)
    assert "mlflow" in observed.invoke("obs.down", check=True).stdout
    observed.up()
    assert set(running(observed)) == CORE
    tools.assert_runs_once(observed)
