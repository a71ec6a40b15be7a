"""Trainings in a cluster measured: the start of two workers, the reference network with more of them, a long queue."""

from __future__ import annotations

import base64
import json
import subprocess
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from infra import catalog
from infra.kube import kubeconfig, queues
from infra.kube.api import Api
from infra.training import job_manifest
from infra.training.request import JOB, Request
from tests.smoke import stage as stages

if TYPE_CHECKING:
    from tests.bench.figures import Figure

TRAININGS = 200
SMALL = {"requests": {"cpu": "50m", "memory": "32Mi"}, "limits": {"memory": "256Mi"}}
QUEUE = ("--as", "job", "--queue", queues.QUEUE)
PODS = "/api/v1/namespaces/training/pods"
HOLDS = "sleep 30"
EPOCHS = """
import json, os, time
from infra.training import contract, convnet, dataset, parallel
from infra.training.store import S3Store
rank, count = parallel.place(os.environ)
parallel.meet(rank, count)
model, own = convnet.ConvNet(parallel.CONFIG, rank, count), convnet.shard(rank, count)
data = dataset.load(S3Store(contract.read().datasets), parallel.CONFIG.dataset, {"train": own})["train"]
model.begin(0)
for epoch in range(1, 13):
    began = time.perf_counter()
    model.fit_epoch(data, epoch)
    print(json.dumps({"epoch": epoch, "metrics": {"seconds": time.perf_counter() - began}}), flush=True)
parallel.part(count)
os._exit(0)
"""


def figures(rounds: int) -> list[Figure]:
    """All figures, with a cluster of its own that is gone afterwards."""
    small = {"PLATFORM_PASS_ENV": "TRAINING_RESOURCES", "TRAINING_RESOURCES": json.dumps(SMALL)}
    with stages.only_cluster("kind"), stages.stage("kind", **small) as made:
        made.invoke("app.build", "--jax", check=True)
        made.invoke("kind.up", "--queue", "--apps", check=True)
        # One worker of trainings, that of this machine: the other one has other demands.
        made.invoke("helm.upgrade", "platform", "--set", "worker.enabled=false", check=True)
        made.invoke("train.run", "--epochs", "1", check=True)  # the worker runs, the dataset is there
        return [*_start(made, rounds), *_scaling(made), *_long_queue(made)]


def _start(made: stages.Stage, rounds: int) -> list[Figure]:
    """Seconds until two workers run: ordered here, against the same JobSet by kubectl."""
    from tests.bench.figures import Figure

    pairs = [(_ours(made), _by_hand(made, number)) for number in range(rounds)]
    ours, hand = (sorted(values)[len(values) // 2] for values in zip(*pairs, strict=True))
    against = f"kubectl apply of the same JobSet ({hand:.1f} s)"
    return [Figure("two workers run after the order", ours / hand, "x", against, 1.2)]


def _ours(made: stages.Stage) -> float:
    began = time.perf_counter()
    order = ("--workers", "2", "--as", "job", "--command", HOLDS, "--detach", "--output", "name")
    job = made.invoke("train.run", *order, check=True).stdout.strip()
    _until(lambda: _running(made, f"app.kubernetes.io/instance={job}") == 2)
    seconds = time.perf_counter() - began
    made.invoke("train.cancel", job, check=True)
    return seconds


def _by_hand(made: stages.Stage, number: int) -> float:
    job = f"by-hand-{number}"
    shape = job_manifest.Shape(resources=SMALL)
    request = Request(job, command=HOLDS.split(), runner=JOB, workers=2)
    text, kubectl = json.dumps(job_manifest.manifest(request, shape, 1)), _kubectl(made)
    began = time.perf_counter()
    subprocess.run([*kubectl, "apply", "-f", "-"], input=text, text=True, check=True, capture_output=True)
    _until(lambda: _running(made, f"app.kubernetes.io/instance={job}") == 2)
    seconds = time.perf_counter() - began
    name = f"jobset/{job_manifest.name(job)}"
    subprocess.run(
        [*kubectl, "delete", name, "-n", catalog.TRAINING_NAMESPACE, "--wait"], check=True, capture_output=True
    )
    return seconds


def _kubectl(made: stages.Stage) -> list[str]:
    path = f"{made.env['PLATFORM_KIND_BIN']}/kubectl" if made.env.get("PLATFORM_KIND_BIN") else "kubectl"
    return [path, "--kubeconfig", str(made.home / "kind" / "kubeconfig")]


def _running(made: stages.Stage, selector: str) -> int:
    api = Api(kubeconfig.load(made.home / "kind" / "kubeconfig"), 10.0)
    try:
        return sum(pod["status"].get("phase") == "Running" for pod in api.items(PODS, labelSelector=selector))
    finally:
        api.close()


def _until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + stages.HANG
    while not true():
        if time.monotonic() > end:
            raise RuntimeError("two workers do not run")
        time.sleep(0.05)


def _scaling(made: stages.Stage) -> list[Figure]:
    """Seconds of an epoch of the reference network with two workers, against one."""
    from tests.bench.figures import Figure

    text = base64.b64encode(EPOCHS.encode()).decode()
    command = f"""python3 -u -c 'import base64; exec(base64.b64decode("{text}"))'"""
    one, two = (_epoch(made, "--command", command, "--workers", str(count), "--as", "job") for count in (1, 2))
    return [Figure("an epoch with two workers", two / one, "x", f"one worker ({1000 * one:.0f} ms)", 1.0)]


def _epoch(made: stages.Stage, *order: str) -> float:
    job = made.data("train.run", *order)["job"]
    lines = made.data("train.logs", job)["lines"]
    seconds = sorted(json.loads(line)["metrics"]["seconds"] for line in lines if line.startswith("{"))
    return float(seconds[len(seconds) // 2])


def _long_queue(made: stages.Stage) -> list[Figure]:
    """Trainings that do nothing, all in the queue at once: how many end in a second, and how many are lost."""
    from tests.bench.figures import Figure

    values = ",".join(map(str, range(TRAININGS)))
    order = ("--command", "true {n}", "--grid", f"n={values}", "--parallel", str(TRAININGS), *QUEUE)
    began = time.perf_counter()
    done: dict[str, Any] = made.data("train.sweep", *order)
    seconds = time.perf_counter() - began
    lost = sum(row["state"] != "succeeded" for row in done["trainings"]) + TRAININGS - len(done["trainings"])
    return [
        Figure(f"{TRAININGS} trainings through the queue, each", seconds / TRAININGS, "s", f"{seconds:.0f} s", 3.0),
        Figure(f"{TRAININGS} trainings through the queue, lost", float(lost), "", "", 0.0),
    ]
