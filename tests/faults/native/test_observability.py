"""Observability on the native tier: it comes back with `up`, it goes when it is told to, and `env` names what runs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
import requests

from infra import catalog, stack
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
        made.invoke("up", check=True)
        if made.invoke("up", "-s", "mlflow").returncode and not mlflow_env.ready(ROOT):
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


EARLIER = "f5a4f2784254"
"""The version of the tables of MLflow 2.19."""
MAKE_EARLIER = """
import sys

import sqlalchemy
from alembic import command
from mlflow.store.db import utils
from mlflow.store.db.utils import InitialBase

engine = sqlalchemy.create_engine(sys.stdin.read())
InitialBase.metadata.create_all(engine)
config = utils._get_alembic_config("")
with engine.begin() as connection:
    config.attributes["connection"] = connection
    command.upgrade(config, sys.argv[1])
"""


@pytest.fixture
def earlier(observed: Victim) -> Iterator[Victim]:
    """A platform that ran an MLflow of 2024, with an experiment; MLflow does not run."""
    observed.invoke("up", "--no-obs", check=True)
    ask(observed, f"drop schema if exists {catalog.MLFLOW_SCHEMA} cascade; create schema {catalog.MLFLOW_SCHEMA}")
    url = f"{observed.contract['DATABASE_URL']}?options=-csearch_path%3D{catalog.MLFLOW_SCHEMA}"
    url = url.replace("postgresql://", "postgresql+psycopg2://", 1)
    argv = [str(mlflow_env.python_of(ROOT)), "-c", MAKE_EARLIER, EARLIER]
    subprocess.run(argv, input=url, encoding="utf-8", check=True, env={"PATH": os.environ["PATH"], "HOME": "/tmp"})
    columns = "experiment_id, name, artifact_location, lifecycle_stage"
    ask(observed, f"insert into mlflow.experiments ({columns}) values (7, 'digits of 2024', 's3://x/7', 'active')")
    stack.remember(Stack("", observed.stack_home), mlflow="an earlier version")
    yield observed
    observed.invoke("up", "--no-obs", check=True)
    ask(observed, f"drop schema {catalog.MLFLOW_SCHEMA} cascade")


def ask(victim: Victim, query: str) -> list[tuple[object, ...]]:
    """Run a query in the database `platform`."""
    with psycopg.connect(victim.contract["DATABASE_URL"], autocommit=True) as link:
        done = link.execute(query.encode())
        return done.fetchall() if done.description else []


def version_of_tables(victim: Victim) -> object:
    """What MLflow noted of its tables."""
    return ask(victim, "select version_num from mlflow.alembic_version")[0][0]


def test_tables_of_an_earlier_mlflow_are_backed_up_and_brought_up_to_date(earlier: Victim) -> None:
    before = set(backups(earlier))
    assert version_of_tables(earlier) == EARLIER
    said = earlier.invoke("up", "-s", "mlflow", check=True).stderr
    assert f"MLflow's tables have version {EARLIER}" in said
    assert version_of_tables(earlier) == catalog.MLFLOW_TABLES
    url = f"{earlier.contract['MLFLOW_TRACKING_URI']}/api/2.0/mlflow/experiments/get"
    found = requests.get(url, params={"experiment_id": "7"}, timeout=30).json()
    assert found["experiment"]["name"] == "digits of 2024"
    (made,) = set(backups(earlier)) - before
    assert f"backed up: {made}" in said
    earlier.invoke("db.verify", "--from", made.name, check=True)
    earlier.invoke("down", check=True)
    assert "backing them up" not in earlier.up().stderr


def backups(victim: Victim) -> list[Path]:
    """The backups of the databases."""
    return sorted((victim.stack_home / "backups" / "db").glob("[!.]*"))


def test_tables_of_a_newer_mlflow_are_refused_and_the_core_runs(earlier: Victim) -> None:
    ask(earlier, "update mlflow.alembic_version set version_num = 'ffffffffffff'")
    done = earlier.invoke("up", "-s", "mlflow")
    assert done.returncode == 7
    assert "MLflow's tables have version ffffffffffff, which this MLflow does not know: it is too old" in done.stderr
    assert version_of_tables(earlier) == "ffffffffffff"
    assert ask(earlier, "select name from mlflow.experiments") == [("digits of 2024",)]
    assert tools.whole(earlier)


def checked(victim: Victim) -> dict[str, dict[str, str]]:
    """The checks of `obs.check`, by id; it must not have failed."""
    found = victim.stage.data("obs.check")
    return {check["id"]: check for check in found["checks"]}


JOBS = {"minio-datasets", "minio-results", "temporal", "mlflow"}


def test_without_prometheus_every_service_is_asked_for_its_metrics(observed: Victim) -> None:
    bare = tools.with_settings(observed, PATH=without(observed.env["PATH"], "prometheus"))
    bare.invoke("up", "--no-obs", check=True)
    bare.invoke("up", "-s", "mlflow", check=True)
    found = checked(bare)
    assert {name: found[f"metrics.{name}"]["status"] for name in JOBS} == dict.fromkeys(JOBS, "ok")
    assert {name: found[name]["status"] for name in ("prometheus", "logs", "dashboards")} == {
        "prometheus": "warn",
        "logs": "ok",
        "dashboards": "warn",
    }


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus is not on PATH")
def test_prometheus_sees_every_target(observed: Victim) -> None:
    observed.up("--obs")
    found = checked(observed)
    states = {c["id"].split(".")[1]: c["status"] for c in found.values() if c["id"].startswith("target.")}
    assert states == dict.fromkeys({*JOBS, "prometheus"}, "ok")
    observed.invoke("up", "--no-obs", check=True)


def test_obs_check_names_a_service_without_metrics(mute: Victim) -> None:
    done = mute.invoke("obs.check", "--json", timeout=120)
    assert done.returncode == 4
    found = {c["id"]: c for c in json.loads(done.stdout)["data"]["checks"]}
    mine = [c for name, c in found.items() if "mlflow" in name]
    assert [c["status"] for c in mine] == ["fail"]


def without(path: str, program: str) -> str:
    """Return a PATH without the directories that have a program."""
    return os.pathsep.join(d for d in path.split(os.pathsep) if not (Path(d) / program).exists())
