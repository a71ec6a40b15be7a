"""The run in MLflow that a user's own program logs into, against a server that answers like MLflow."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from infra.training import activities, tracked
from infra.training.contract import Contract
from infra.training.mlflow_client import MLflowError
from tests.unit.training.mlflow_server import Tracking, serving
from tests.unit.training.test_train_task import job


@pytest.fixture
def server() -> Iterator[Tracking]:
    """A tracking server."""
    with serving() as made:
        yield made


def contract(server: Tracking) -> Contract:
    """What a worker knows of it."""
    return Contract({"OBSERVABILITY_BACKENDS": "database,mlflow", "MLFLOW_TRACKING_URI": server.uri})


def test_each_attempt_gets_the_same_run(server: Tracking) -> None:
    mine = job(command="python train.py", tracking={})
    runs = [tracked.begun(contract(server), mine, {"git": {"commit": "abc"}}) for _ in (1, 2)]
    assert runs[0] == runs[1]
    (run,) = server.runs.values()
    assert run["params"] == {"platform.command": "python train.py", "platform.commit": "abc"}


def test_the_trainings_of_a_sweep_are_children_of_its_run(server: Tracking) -> None:
    sweep = job(id="sweep-1", command="python train.py --lr {lr}", config={"trainings": 2}, tracking={})
    parent = tracked.begun(contract(server), sweep, {})
    for number, rate in enumerate(("0.1", "0.2"), 1):
        config = {"sweep": "sweep-1", "values": {"lr": rate}}
        child = job(id=f"sweep-1-00{number}", command=f"python train.py --lr {rate}", config=config, tracking={})
        made = server.runs[tracked.begun(contract(server), child, {})["run"]]
        assert made["tags"]["mlflow.parentRunId"] == parent["run"]
        assert made["params"]["lr"] == rate
    assert len(server.runs) == 3
    assert "mlflow.parentRunId" not in server.runs[parent["run"]]["tags"]


@pytest.mark.parametrize(
    ("state", "status"), [("succeeded", "FINISHED"), ("failed", "FAILED"), ("cancelled", "KILLED")]
)
def test_the_run_ends_with_the_job(server: Tracking, state: str, status: str) -> None:
    run = tracked.begun(contract(server), job(command="x", tracking={}), {})
    tracked.end(contract(server), job(command="x", state=state, tracking={"mlflow": run}))
    assert server.runs[run["run"]]["info"]["status"] == status


def test_the_variables_lead_to_the_run_and_those_of_the_program_stay() -> None:
    mine = job(experiment="mine")
    assert tracked.variables(mine, "r1", {}) == {
        "MLFLOW_RUN_ID": "r1",
        "MLFLOW_EXPERIMENT_NAME": "mine",
        "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING": "true",
        "MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD": "false",
        "MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD": "false",
    }
    own: dict[str, Any] = {"MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING": "false"}
    assert "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING" not in tracked.variables(mine, "r1", own)


def test_a_program_with_a_run_or_a_server_of_its_own_keeps_it(server: Tracking) -> None:
    here = {"MLFLOW_TRACKING_URI": server.uri}
    assert not tracked.is_own(here, contract(server))
    assert tracked.is_own({**here, "MLFLOW_RUN_ID": "mine"}, contract(server))
    assert tracked.is_own({"MLFLOW_TRACKING_URI": "http://elsewhere"}, contract(server))


def test_a_refusal_is_one_of_mlflow(server: Tracking) -> None:
    server.refuse = True
    with pytest.raises(MLflowError, match="out of order"):
        tracked.begun(contract(server), job(command="x", tracking={}), {})


def test_what_takes_too_long_is_not_awaited() -> None:
    assert activities.within(5, lambda: 3) == 3
    with pytest.raises(TimeoutError):
        activities.within(0.01, lambda: time.sleep(1))
    with pytest.raises(ZeroDivisionError):
        activities.within(5, lambda: 1 // 0)
