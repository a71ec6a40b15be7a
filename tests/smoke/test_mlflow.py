"""MLflow: a run with parameter, metric and artifact, by its REST interface; where its data goes."""

from __future__ import annotations

import time
import uuid
from typing import Any

import psycopg
import pytest
import requests

from infra import catalog
from tests.smoke.platform import PYTHON, Platform


@pytest.fixture
def mlflow(platform: Platform) -> str:
    """The address of MLflow."""
    if platform.service("mlflow") is None:
        pytest.skip("mlflow does not run: start the platform with --obs")
    return platform.contract["MLFLOW_TRACKING_URI"]


def call(uri: str, path: str, **body: object) -> Any:
    """POST to the REST interface and return the answer."""
    answer = requests.post(f"{uri}/api/2.0/mlflow/{path}", json=body, timeout=30)
    assert answer.ok, answer.text
    return answer.json()


def test_run_with_parameter_metric_and_artifact(platform: Platform, mlflow: str) -> None:
    experiment = call(mlflow, "experiments/create", name=f"smoke-{uuid.uuid4()}")["experiment_id"]
    info = call(mlflow, "runs/create", experiment_id=experiment, start_time=int(time.time() * 1000))["run"]["info"]
    run = {"run_id": info["run_id"]}
    call(mlflow, "runs/log-parameter", **run, key="epochs", value="3")
    call(mlflow, "runs/log-metric", **run, key="accuracy", value=0.5, timestamp=int(time.time() * 1000), step=1)
    path = f"{experiment}/{info['run_id']}/artifacts/sub/naïve.txt"
    url = f"{mlflow}/api/2.0/mlflow-artifacts/artifacts/{path}"
    assert requests.put(url, data=b"artifact", timeout=30).status_code == 200
    call(mlflow, "runs/update", **run, status="FINISHED")
    _check(platform, mlflow, info["run_id"], url, path)
    call(mlflow, "experiments/delete", experiment_id=experiment)


def _check(platform: Platform, mlflow: str, run: str, url: str, path: str) -> None:
    found = requests.get(f"{mlflow}/api/2.0/mlflow/runs/get", params={"run_id": run}, timeout=30).json()["run"]
    assert found["info"]["status"] == "FINISHED"
    assert [(p["key"], p["value"]) for p in found["data"]["params"]] == [("epochs", "3")]
    assert [(m["key"], m["value"]) for m in found["data"]["metrics"]] == [("accuracy", 0.5)]
    assert requests.get(url, timeout=30).content == b"artifact"
    bucket = catalog.OBS_BUCKETS[0].name
    keys = [e["Key"] for e in platform.storage("INTERNAL").list_objects_v2(Bucket=bucket).get("Contents", [])]
    assert [k for k in keys if k.endswith(path)]


def test_tables_live_in_a_schema_of_their_own(platform: Platform, mlflow: str) -> None:
    with psycopg.connect(platform.contract["DATABASE_URL"]) as connection:
        query = "select schemaname from pg_tables where tablename in ('runs', 'alembic_version')"
        schemas = {row[0] for row in connection.execute(query)}
    assert schemas == {catalog.MLFLOW_SCHEMA}


def test_the_catalogue_knows_the_version_of_the_tables(platform: Platform, mlflow: str) -> None:
    with psycopg.connect(platform.contract["DATABASE_URL"]) as connection:
        found = connection.execute("select version_num from mlflow.alembic_version").fetchone()
    assert found == (catalog.MLFLOW_TABLES,), "MLflow was updated: see catalog.MLFLOW_TABLES"


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:5000", "host.docker.internal", "host.docker.internal:5000"])
def test_the_names_of_this_machine_are_accepted(mlflow: str, host: str) -> None:
    """The third is what containers of Docker call it."""
    assert requests.get(f"{mlflow}/", headers={"Host": host}, timeout=30).status_code == 200


@pytest.mark.parametrize("host", ["10.evil.example", "192.168.evil.example:5000", "evil.example"])
def test_a_page_that_rebinds_its_name_to_this_machine_is_refused(mlflow: str, host: str) -> None:
    """MLflow's own list of hosts lets the first two through: it has 10.* and 192.168.* for private networks.

    Of /health and /version it asks no name.
    """
    assert requests.get(f"{mlflow}/", timeout=30).ok
    assert requests.get(f"{mlflow}/", headers={"Host": host}, timeout=30).status_code == 403


def test_the_trainings_of_a_sweep_are_below_its_run(platform: Platform, mlflow: str) -> None:
    command = f"{PYTHON} -c 'import sys; sys.exit(sys.argv[1] == \"9\")' {{lr}}"
    order = ("--command", command, "--grid", "lr=1,2", "--experiment", f"sweep-{uuid.uuid4()}")
    sweep = platform.data("train.sweep", *order, timeout=600)
    runs = {run["tags"]["training.job"]: run for run in _runs(mlflow, sweep["experiment"])}
    parent = runs.pop(sweep["job"])
    assert [run["tags"]["mlflow.parentRunId"] for run in runs.values()] == [parent["info"]["run_id"]] * 2
    assert sorted(run["params"]["lr"] for run in runs.values()) == ["1", "2"]
    assert {run["info"]["status"] for run in (parent, *runs.values())} == {"FINISHED"}


def _runs(mlflow: str, experiment: str) -> list[dict[str, Any]]:
    where = {"experiment_name": experiment}
    found = requests.get(f"{mlflow}/api/2.0/mlflow/experiments/get-by-name", params=where, timeout=30).json()
    runs = call(mlflow, "runs/search", experiment_ids=[found["experiment"]["experiment_id"]])["runs"]
    return [{**run, **{part: _pairs(run, part) for part in ("tags", "params")}} for run in runs]


def _pairs(run: dict[str, Any], part: str) -> dict[str, str]:
    return {entry["key"]: entry["value"] for entry in run["data"].get(part, [])}
