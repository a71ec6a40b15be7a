from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import closing

import pytest

from infra.training.mlflow_client import MLflow, MLflowError, Point, Run
from tests.unit.training.mlflow_server import Tracking, serving


@pytest.fixture
def server() -> Iterator[Tracking]:
    with serving() as tracking:
        yield tracking


@pytest.fixture
def client(server: Tracking) -> Iterator[MLflow]:
    with closing(MLflow(f"{server.uri}/")) as made:
        yield made


def test_experiment_and_run_are_made_once(server: Tracking, client: MLflow) -> None:
    first = client.run_for("digits", "job-1", 5)
    assert client.run_for("digits", "job-1", 9) == first
    assert client.run_for("digits", "job-2", 9) != first
    assert list(server.experiments) == ["digits"]
    assert server.runs[first.id]["info"]["start_time"] == 5
    assert server.runs[first.id]["tags"] == {"training.job": "job-1", "mlflow.runName": "job-1"}


def test_an_experiment_that_another_training_makes_meanwhile(
    server: Tracking, client: MLflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = server.experiments_get_by_name, []

    def late(experiment_name: str) -> tuple[int, dict[str, object]]:
        calls.append(experiment_name)
        answer = real(experiment_name)
        server.experiments.setdefault(experiment_name, "7")
        return answer

    monkeypatch.setattr(server, "experiments_get_by_name", late)
    assert client.run_for("digits", "job", 0).experiment == "7"
    assert len(calls) == 2


def test_params_metrics_artifacts_and_the_end(server: Tracking, client: MLflow) -> None:
    run = client.run_for("digits", "job", 0)
    client.log_params(run, {"epochs": 15, "rate": 0.3})
    client.log_metrics(run.id, [Point("loss", 0.5, step, step * 1000) for step in range(1, 2502)])
    client.put_artifact(run, "a b.json", b"{}")
    client.end(run, "FINISHED", 7)
    told = server.runs[run.id]
    assert told["params"] == {"epochs": "15", "rate": "0.3"}
    assert [m["step"] for m in told["metrics"]] == list(range(1, 2502))
    client.log_metrics(run.id, [Point("diverged", math.nan, 1, 1), Point("diverged", -math.inf, 2, 2)])
    assert [m["value"] for m in server.runs[run.id]["metrics"][-2:]] == ["NaN", "-Infinity"]
    assert told["metrics"][0] == {"key": "loss", "value": 0.5, "timestamp": 1000, "step": 1}
    assert server.files == {f"/api/2.0/mlflow-artifacts/artifacts/1/{run.id}/artifacts/a b.json": b"{}"}
    assert told["info"]["status"] == "FINISHED"
    assert client.last_step(run, "loss") == 2501
    assert client.last_step(run, "other") == 0
    assert client.url(run) == f"{server.uri}/#/experiments/1/runs/{run.id}"


def test_a_server_that_leaves_artifacts_to_its_clients_is_named(client: MLflow) -> None:
    with pytest.raises(MLflowError, match="s3:"):
        client.put_artifact(Run("r", "1", "s3://bucket/1/r/artifacts"), "x", b"")


def test_a_refusal_keeps_its_code_and_first_line(server: Tracking, client: MLflow) -> None:
    server.refuse = True
    with pytest.raises(MLflowError, match=r"\(500\): out of order$") as caught:
        client.run_for("digits", "job", 0)
    assert caught.value.code == "INTERNAL_ERROR"


def test_nobody_there() -> None:
    with closing(MLflow("http://127.0.0.1:9")) as client, pytest.raises(MLflowError, match="does not answer"):
        client.run_for("digits", "job", 0)
