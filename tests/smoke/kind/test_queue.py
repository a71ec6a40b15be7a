"""JobSet, Kueue and the queue of trainings: several workers, one that waits its turn, a sweep through the queue."""

from __future__ import annotations

import os
import time

import pytest

from infra.kube import queues
from tests.smoke.kind.conftest import TheCluster
from tests.smoke.kind.test_training_job import LIMIT, LONG, ended, kubectl, runs, start, until
from tests.smoke.platform import Platform

JOB_SETS = "/apis/jobset.x-k8s.io/v1alpha2/namespaces/training/jobsets"
WORKLOADS = f"/apis/{queues.API}/namespaces/training/workloads"
PRINTS = """python3 -c 'import sys; print("{\\"epoch\\": 1, \\"metrics\\": {\\"loss\\": %s}}" % sys.argv[1])'"""
IN_QUEUE = ("--as", "job", "--queue", queues.QUEUE)
_RIG_WITHOUT = bool(os.environ.get("KIND_NODE_IMAGE")) and not os.environ.get("KUEUE_IMAGE")

pytestmark = pytest.mark.skipif(
    _RIG_WITHOUT, reason="the rig has no JobSet and Kueue: python -m tests.rig.up --kind --operators"
)


@pytest.fixture(scope="module", autouse=True)
def queue(cluster: TheCluster) -> None:
    """The application with JAX in its image, and the queue."""
    cluster.task("app.build", "--jax", timeout=3600)
    cluster.task("kind.up", "--queue", "--apps", timeout=1800)


def pods(cluster: TheCluster, job: str) -> list[str]:
    found = cluster.items("/api/v1/namespaces/training/pods", labelSelector=f"app.kubernetes.io/instance={job}")
    return [str(pod["metadata"]["name"]) for pod in found]


def test_it_is_remembered_and_shown(cluster: TheCluster, platform: Platform) -> None:
    releases = cluster.revisions()
    assert {"jobset", "kueue"} <= set(releases)
    cluster.task("kind.up", timeout=1800)
    assert {name: cluster.revisions()[name] for name in ("jobset", "kueue")} == {
        n: releases[n] for n in ("jobset", "kueue")
    }
    assert cluster.data("kind.status")["cluster"]["queue"].startswith(f"queue {queues.QUEUE}: ")
    found = {check["id"]: check["status"] for check in platform.data("doctor")["checks"]}
    assert found["queue"] == "ok"
    assert cluster.task("kind.up", "--queue", "--no-queue", expect=2).err


def test_two_workers_train_the_reference_network(cluster: TheCluster, platform: Platform) -> None:
    done = platform.data("train.run", "--workers", "2", "--epochs", "15", timeout=LIMIT)
    assert (done["state"], done["epoch"], done["attempt"], done["workers"]) == ("succeeded", 15, 1, 2)
    assert done["heldout_accuracy"] >= 0.9
    made = next(s for s in cluster.items(JOB_SETS) if s["metadata"]["name"] == f"training-{done['job']}")
    assert made["status"]["terminalState"] == "Completed"
    said = platform.invoke("train.logs", done["job"], "--rank", "1").stdout
    assert "images, from epoch 1" in said
    assert "images, from epoch 1" not in platform.invoke("train.logs", done["job"]).stdout


def test_one_in_a_queue_is_admitted_and_succeeds(cluster: TheCluster, platform: Platform) -> None:
    done = platform.data("train.run", "--epochs", "3", *IN_QUEUE, "--priority", "high", timeout=LIMIT)
    assert done["state"] == "succeeded"
    found = [w for w in cluster.items(WORKLOADS) if f"training-{done['job']}" in w["metadata"]["name"]]
    assert [(w["spec"]["queueName"], w["spec"]["priority"]) for w in found] == [(queues.QUEUE, 100)]
    assert {c["type"] for c in found[0]["status"]["conditions"] if c["status"] == "True"} >= {"Admitted", "Finished"}


def test_a_sweep_goes_through_the_queue(cluster: TheCluster, platform: Platform) -> None:
    command = f"{PRINTS} {{lr}}"
    order = ("--command", command, "--grid", "lr=4,2,1,3", "--metric", "loss", "--parallel", "4", *IN_QUEUE)
    sweep = platform.data("train.sweep", *order, timeout=LIMIT)
    found = [(row["values"]["lr"], row["state"], row["value"]) for row in sweep["trainings"]]
    assert found == [(n, "succeeded", float(n)) for n in "1234"]
    names = [w["metadata"]["name"] for w in cluster.items(WORKLOADS)]
    assert all(any(f"training-{row['job']}" in name for name in names) for row in sweep["trainings"])


def test_cancel_removes_all_workers(cluster: TheCluster, platform: Platform) -> None:
    job = start(platform, "--workers", "2", "--epochs", LONG, *IN_QUEUE)
    until(platform, job, runs(2))
    assert len(pods(cluster, job)) == 2
    assert platform.data("train.cancel", job)["state"] == "cancelled"
    assert pods(cluster, job) == []
    assert not [s for s in cluster.items(JOB_SETS) if s["metadata"]["name"] == f"training-{job}"]
    assert not [w for w in cluster.items(WORKLOADS) if f"training-{job}" in w["metadata"]["name"]]


def test_what_needs_more_than_the_quota_waits_with_the_reason(cluster: TheCluster, platform: Platform) -> None:
    job = start(platform, "--workers", "8", "--epochs", LONG, *IN_QUEUE)
    end = time.monotonic() + LIMIT
    while "insufficient" not in ((found := platform.data("train.show", job))["note"] or ""):
        assert time.monotonic() < end, found
        time.sleep(0.5)
    assert found["state"] == "queued"
    assert found["note"].startswith("1 of 1: ")
    listed = platform.invoke("train.list", "--limit", "1").stdout
    assert "queued 1/1" in listed
    assert platform.data("train.cancel", job)["state"] == "cancelled"


def test_a_queue_that_is_not_there_is_named(platform: Platform) -> None:
    job = start(platform, "--epochs", "3", "--as", "job", "--queue", "nobodys")
    end = time.monotonic() + LIMIT
    while "nobodys" not in ((found := platform.data("train.show", job))["note"] or ""):
        assert time.monotonic() < end, found
        time.sleep(0.5)
    assert platform.data("train.cancel", job)["state"] == "cancelled"


def test_without_the_queue_the_cluster_is_as_before(cluster: TheCluster, platform: Platform) -> None:
    cluster.task("kind.up", "--no-queue", timeout=1800)
    assert not {"jobset", "kueue"} & set(cluster.revisions())
    refused = platform.invoke("train.run", "--epochs", "1", *IN_QUEUE)
    assert (refused.returncode, "invoke kind.up --queue" in refused.stderr) == (5, True)
    assert ended(platform, start(platform, "--epochs", "2"))["state"] == "succeeded", "trainings without a queue go on"
    assert kubectl(cluster, "get", "pods", "--namespace", "kueue-system", "-o", "name") == ""
