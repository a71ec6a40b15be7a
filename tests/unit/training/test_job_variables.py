"""Variables of a Job: a Secret of the training's own, made by who orders it, gone when it has ended."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

import kubernetes_validate
import pytest

from infra.errors import PlatformError
from infra.training import job_manifest, job_variables
from infra.training.cluster import JobCluster
from infra.training.job_manifest import Shape, manifest
from infra.training.job_variables import JobVariables
from infra.training.orders import VALID, Orders
from infra.training.request import JOB, Request
from tests.unit.training.api_server import State, serving

TOKEN = "hf_do-not-tell"
GIVEN = {"HF_TOKEN": TOKEN, "HOME": "/data", "EMPTY": ""}
MINE = Request("mine-1", command=["python3", "train.py"], runner=JOB)
SECRET = ("training", "training-mine-1-env")
Api = tuple[State, JobCluster]


@pytest.fixture
def api() -> Iterator[Api]:
    with serving() as found:
        found[0].config_maps.add("platform-env")
        yield found


def orders(api: Api) -> Orders:
    return Orders(b"k" * 32, variables=JobVariables(api[1], "platform-env"))


def values(found: dict[str, Any]) -> dict[str, str]:
    return {name: base64.b64decode(value).decode() for name, value in found["data"].items()}


def test_the_values_are_in_a_secret_and_the_order_has_the_names_only(api: Api) -> None:
    placed = orders(api).place(MINE, GIVEN)
    found = api[0].secrets[SECRET]
    assert values(found) == GIVEN
    assert placed.env_names == ["EMPTY", "HF_TOKEN", "HOME"]
    assert TOKEN not in json.dumps(asdict(placed))
    assert found["immutable"] is True
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "platform-env", "uid": "uid-of-platform-env"}
    assert found["metadata"]["ownerReferences"] == [owner], "without the application it is of no use"
    kubernetes_validate.validate(job_variables.secret("mine-1", GIVEN, "training", None), "1.34", strict=True)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_pod_takes_them_by_name_and_they_take_precedence(api: Api, workers: int) -> None:
    placed = orders(api).place(replace(MINE, workers=workers), {**GIVEN, "TRAINING_JOB_ID": "another"})
    made = manifest(placed, Shape(), 1, {"MLFLOW_RUN_ID": "r"})
    whole = made["spec"] if workers == 1 else made["spec"]["replicatedJobs"][0]["template"]["spec"]
    env = whole["template"]["spec"]["containers"][0]["env"]
    names = [entry["name"] for entry in env]
    assert len(names) == len(set(names)), "each once: which of two counts is nobody's to know"
    taken = {e["name"]: e["valueFrom"]["secretKeyRef"] for e in env if "secretKeyRef" in e.get("valueFrom", {})}
    assert taken == {name: {"name": SECRET[1], "key": name} for name in GIVEN}
    plain = {entry["name"]: entry["value"] for entry in env if "value" in entry}
    assert (plain["TRAINING_JOB_ID"], plain["MLFLOW_RUN_ID"]) == ("mine-1", "r")
    assert TOKEN not in json.dumps(made)


def test_one_without_variables_has_no_secret(api: Api) -> None:
    placed = orders(api).place(MINE, {})
    assert (api[0].secrets, placed.env_names) == ({}, [])


def test_they_go_with_an_order_that_could_not_be_started(api: Api) -> None:
    mine = orders(api)
    mine.place(MINE, GIVEN)
    mine.close("mine-1")
    assert api[0].secrets == {}
    api[0].broken = 503
    mine.close("mine-1")


def test_who_cannot_keep_them_places_no_order() -> None:
    with pytest.raises(PlatformError, match="cannot be kept here"):
        Orders(b"k" * 32).place(MINE, GIVEN)


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({"1A": "x"}, "named '1A'"),
        ({"A B": "x"}, "named 'A B'"),
        ({"..": "x"}, "named"),
        ({"A" * 254: "x"}, "named"),
        ({"A": "x\0"}, "value of A"),
        ({"A": "\udcff"}, "value of A"),
        ({"A": "x" * 1_000_000}, "larger than 900 kB"),
    ],
)
def test_what_no_pod_can_have_is_refused_without_its_value(api: Api, env: dict[str, str], words: str) -> None:
    with pytest.raises(PlatformError, match=words) as caught:
        orders(api).place(MINE, env)
    assert (caught.value.code, api[0].secrets) == ("USAGE", {})
    assert "x" * 10 not in str(vars(caught.value))


@pytest.mark.parametrize(("status", "code"), [(403, "REQUEST_REFUSED"), (503, "UNREACHABLE")])
def test_a_cluster_that_does_not_take_them_is_said(api: Api, status: int, code: str) -> None:
    api[0].broken = status
    with pytest.raises(PlatformError) as caught:
        orders(api).place(MINE, GIVEN)
    assert caught.value.code == code
    assert TOKEN not in str(vars(caught.value))


def test_what_was_left_by_orders_that_may_begin_no_more_is_deleted(api: Api) -> None:
    state, _ = api
    mine = orders(api)
    for job in ("cut-off", "runs-on", "waits"):
        mine.place(replace(MINE, job=job), GIVEN)
    long_ago = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - VALID - 60))
    for job in ("cut-off", "runs-on"):
        state.secrets[("training", f"training-{job}-env")]["metadata"]["creationTimestamp"] = long_ago
    state.jobs[job_manifest.name("runs-on")] = {"metadata": {"name": job_manifest.name("runs-on")}}
    mine.place(replace(MINE, job="new"), GIVEN)
    assert {name for _, name in state.secrets} == {f"training-{job}-env" for job in ("runs-on", "waits", "new")}
