"""Several workers and the queue of a cluster under faults: a killed worker, preemption, lost controllers."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from infra.kube import queues
from tests.faults.conftest import WORKER
from tests.faults.kind.product import Product, product
from tests.faults.training.tools import processes_with, until
from tests.rig import operators

LIMIT = 600.0
LONG = "100000"
QUEUE = ("--as", "job", "--queue", queues.QUEUE)
ENDED = ("succeeded", "failed", "cancelled")
Shown = dict[str, Any]

pytestmark = [
    pytest.mark.usefixtures("rig"),
    pytest.mark.skipif(not operators.values(), reason="no JobSet and Kueue: python -m tests.rig.up --kind --operators"),
]


@pytest.fixture(scope="module")
def up(rig: dict[str, str]) -> Iterator[Product]:
    """A stack with the application and a queue that has room for two workers of 250m; the third one fits no more."""
    with product(PLATFORM_PASS_ENV="TRAINING_PATIENCE", TRAINING_PATIENCE="20") as made:
        made.invoke("app.build", "--jax")
        made.invoke("kind.up", "--queue", "--apps")
        made.invoke("helm.upgrade", "platform", "--set", "training.patience=20")
        quota(made, "500m")
        yield made


def quota(up: Product, cpu: str) -> None:
    """Give the queue so many processors, whatever the nodes have."""
    queue = up.cluster.get("clusterqueue", queues.QUEUE)
    group = queue["spec"]["resourceGroups"][0]
    group["flavors"][0]["resources"][0]["nominalQuota"] = cpu
    patch = json.dumps({"spec": {"resourceGroups": [group]}})
    up.cluster.kubectl("patch", "clusterqueue", queues.QUEUE, "--type=merge", "-p", patch)


def begin(up: Product, *order: str) -> str:
    return str(up.data("train.run", "--detach", *order)["job"])


def shown(up: Product, job: str) -> Shown:
    return dict(up.data("train.show", job))


def await_(up: Product, job: str, true: Callable[[Shown], bool], what: str) -> Shown:
    """What `train.show` says once something is true; fails when the training ends without it."""
    end = time.monotonic() + LIMIT
    while not true(found := shown(up, job)):
        assert time.monotonic() < end, f"waited for {what}: {found}"
        assert found["state"] not in ENDED, f"waited for {what}: {found}"
        time.sleep(0.5)
    return found


def epoch(number: int) -> Callable[[Shown], bool]:
    return lambda found: (found["epoch"] or 0) >= number


def ended(up: Product, job: str) -> Shown:
    return await_(up, job, lambda found: found["state"] in ENDED, "the end")


def cancel(up: Product, *jobs: str) -> None:
    for job in jobs:
        up.invoke("train.cancel", job)


def program(job: str, rank: int) -> psutil.Process:
    """The program of a worker, in its pod on this machine."""

    def found() -> list[psutil.Process]:
        return [p for p in processes_with(job) if p.environ().get("RANK") == str(rank)]

    until(lambda: bool(found()), f"worker {rank} of {job}")
    return found()[0]


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_worker_lets_all_begin_again_once(up: Product, rank: int) -> None:
    job = begin(up, "--workers", "2", "--epochs", "150", *QUEUE)
    await_(up, job, epoch(5), "epoch 5")
    program(job, rank).kill()
    found = ended(up, job)
    assert (found["state"], found["attempt"], found["epoch"]) == ("succeeded", 2, 150), found
    assert found["heldout_accuracy"] >= 0.95
    said = up.invoke("train.logs", job).stdout
    assert said.count("resumed at epoch ") == 1
    select = f"select epoch from metrics where job_id = '{job}' and name = 'val_accuracy'"
    epochs = [int(row) for row in up.sql(select).split()]
    assert sorted(epochs) == list(range(1, 151))


def test_a_higher_priority_takes_the_place_of_a_lower_one_which_resumes(up: Product) -> None:
    low = begin(up, "--workers", "2", "--epochs", LONG, *QUEUE, "--priority", "low")
    seen = await_(up, low, epoch(5), "epoch 5")["epoch"]
    high = begin(up, "--workers", "2", "--epochs", "15", *QUEUE, "--priority", "high")
    out = await_(up, low, lambda found: found["state"] == "preempted", "its preemption")
    assert "insufficient unused quota" in out["note"]
    third = begin(up, "--epochs", "3", *QUEUE)
    waits = await_(up, third, lambda found: "insufficient" in (found["note"] or ""), "its reason")
    assert (waits["state"], waits["note"].split(":")[0]) == ("queued", "1 of 2"), "before the one of low priority"
    assert ended(up, high)["state"] == "succeeded"
    assert ended(up, third)["state"] == "succeeded"
    again = await_(up, low, lambda found: found["attempt"] == 2 and found["epoch"] > seen, "to go on")
    assert again["state"] == "running"
    assert "resumed at epoch " in up.invoke("train.logs", low).stdout
    cancel(up, low)


def test_a_worker_that_fits_nowhere_ends_all_and_is_named(up: Product) -> None:
    quota(up, "64")
    try:
        nodes = up.cluster.kubectl("get", "nodes", "-o", "jsonpath={.items[*].status.allocatable.cpu}")
        workers = "8" if int(nodes.split()[0].rstrip("m")) <= 2 else "64"
        job = begin(up, "--workers", workers, "--as", "job", "--queue", queues.QUEUE, "--command", "sleep 600")
        found = ended(up, job)
    finally:
        quota(up, "500m")
    assert found["state"] == "failed"
    assert f"one of {workers} workers, could not be placed within 20 s: 0/1 nodes are available" in found["error"]
    assert f"training-{job}-w-0-" in found["error"]
    until(lambda: not pods(up, job), "all of them to go")


def pods(up: Product, job: str) -> list[str]:
    selector = f"app.kubernetes.io/instance={job}"
    return up.cluster.kubectl("get", "pods", "-n", "training", "-l", selector, "-o", "name").split()


def test_the_death_of_kueue_and_of_both_workers_loses_nothing(up: Product) -> None:
    first = begin(up, "--workers", "2", "--epochs", LONG, *QUEUE)
    seen = await_(up, first, epoch(3), "epoch 3")["epoch"]
    second = begin(up, "--epochs", "3", *QUEUE)
    await_(up, second, lambda found: found["state"] == "queued" and bool(found["note"]), "its reason")
    controllers = in_cluster(up, "--config=/controller_manager_config.yaml")
    assert len(controllers) == 2, "JobSet's and Kueue's"
    there, here = in_cluster(up, "infra.training.worker"), up.stage.state("training")["services"]
    assert there
    for process in (*controllers, *there, psutil.Process(here[WORKER]["pid"])):
        process.kill()
    await_(up, first, epoch(seen + 20), "to go on")
    assert shown(up, first)["attempt"] == 1, "nobody has begun it again"
    cancel(up, first)
    assert ended(up, second)["state"] == "succeeded"


def test_a_training_cancelled_while_its_worker_is_lost_leaves_nothing(up: Product) -> None:
    job = begin(up, "--workers", "2", "--epochs", LONG, *QUEUE)
    await_(up, job, epoch(3), "epoch 3")
    up.cluster.kubectl("scale", "deployment/platform-worker", "-n", "platform", "--replicas=0")
    until(lambda: not in_cluster(up, "infra.training.worker"), "the worker in the cluster to go")
    psutil.Process(up.stage.state("training")["services"][WORKER]["pid"]).kill()
    try:
        cancel(up, job)
        assert shown(up, job)["state"] == "cancelled"
        until(lambda: not pods(up, job), "its pods to go")
        assert job not in up.cluster.kubectl("get", "jobsets,workloads", "-n", "training", "-o", "name")
    finally:
        up.cluster.kubectl("scale", "deployment/platform-worker", "-n", "platform", "--replicas=1")


def in_cluster(up: Product, word: str) -> list[psutil.Process]:
    """The processes of the cluster's containers with a word in their command: they run on this machine too."""
    nodes = [node.id for node in up.nodes()]
    found = processes_with(word)
    return [p for p in found if any(n in Path(f"/proc/{p.pid}/cgroup").read_text("ascii") for n in nodes)]
