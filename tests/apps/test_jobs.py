"""A training as a Job from its order to its end, with pods that are processes: success, and what dies on the way."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from infra.settings import ROOT
from infra.training import client
from infra.training.config import TrainingConfig
from infra.training.contract import Contract
from infra.training.jobs import Job
from infra.training.orders import Orders
from infra.training.request import JOB
from tests.apps.conftest import Application
from tests.apps.pods import Kubelet, cluster

LIMIT = 600.0
LONG = 100_000
KEY = "k" * 64


@dataclass
class Place:
    """A worker for Jobs, and the pods that it makes."""

    contract: Contract
    kubelet: Kubelet
    kubeconfig: Path
    logs: Path
    worker: subprocess.Popen[bytes] | None = None

    def start_worker(self) -> None:
        """Start a worker."""
        own = {"TRAINING_RUNNER": "job", "TRAINING_KUBECONFIG": str(self.kubeconfig), "TRAINING_KEY": KEY}
        own |= {"TRAINING_LOG_DIR": str(self.logs), "PYTHONPATH": str(ROOT)}
        with open(self.logs / "worker.log", "ab") as log:
            self.worker = subprocess.Popen(
                [sys.executable, "-m", "infra.training.worker"],
                env={"PATH": os.environ["PATH"], **self.contract.values, **own},
                cwd=self.logs,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def end_worker(self, how: int) -> None:
        """End the worker by a signal."""
        assert self.worker is not None
        self.worker.send_signal(how)
        self.worker.wait(timeout=60)

    def order(self, epochs: int) -> str:
        """Order a training."""
        wanted = client.Order("as-job", TrainingConfig(epochs=epochs), runner=JOB)
        return client.start(self.contract, wanted, Orders(KEY.encode()))

    def until(self, job: str, true: Callable[[Job], bool]) -> Job:
        """The training, once something is true of it."""
        end = time.monotonic() + LIMIT
        while not true(found := client.find(self.contract, job)):
            assert time.monotonic() < end, f"{found}\n{(self.logs / 'worker.log').read_text()[-3000:]}"
            assert not found.final, found
            time.sleep(0.3)
        return found

    def taken_over(self, job: str) -> int:
        """The epoch at which another worker follows the Job."""
        log = self.logs / f"{job}.log"
        return self.until(job, lambda _: "(taken over)" in log.read_text()).epoch or 0

    def orders(self) -> int:
        """How many Jobs were asked for so far."""
        return sum(method == "POST" for method, _ in self.kubelet.state.asked)

    def ended(self, job: str) -> Job:
        """The training at its end."""
        return self.until(job, lambda found: found.final)


def runs(epoch: int) -> Callable[[Job], bool]:
    return lambda found: (found.epoch or 0) >= epoch


@pytest.fixture(scope="module")
def place(application: Application, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    directory = tmp_path_factory.mktemp("jobs")
    contract = Contract(application.stage.data("env"))
    with cluster(contract.values, directory) as (kubelet, kubeconfig):
        made = Place(contract, kubelet, kubeconfig, directory)
        made.start_worker()
        yield made
        with contextlib.suppress(ProcessLookupError):
            made.end_worker(signal.SIGKILL)


def test_it_succeeds_and_its_log_is_kept(place: Place) -> None:
    found = place.ended(job := place.order(4))
    assert (found.state, found.epoch, found.attempt) == ("succeeded", 4, 1), found
    assert (found.heldout_accuracy or 0) > 0.8
    log = (place.logs / f"{job}.log").read_text()
    assert log.count('"epoch": 4') == 1
    assert f"Job training-{job}" in log


def test_a_killed_pod_is_followed_by_another_that_goes_on(place: Place) -> None:
    job = place.order(LONG)
    seen = place.until(job, runs(5)).epoch or 0
    place.kubelet.running[f"training-{job}"].kill()
    place.until(job, lambda found: found.attempt == 2 and (found.epoch or 0) > seen)
    log = place.logs / f"{job}.log"
    place.until(job, lambda _: "resumed at epoch" in log.read_text())
    assert log.read_text().count('"epoch": 1,') == 1, "it began anew instead of going on"
    client.cancel(place.contract, job)
    assert place.ended(job).state == "cancelled"


def test_a_worker_that_dies_leaves_the_job_to_the_next(place: Place) -> None:
    job = place.order(LONG)
    place.until(job, runs(2))
    pods, orders = place.kubelet.made, place.orders()
    place.end_worker(signal.SIGKILL)
    place.start_worker()
    seen = place.taken_over(job)
    place.until(job, runs(seen + 5))
    assert (place.kubelet.made, client.find(place.contract, job).attempt) == (pods, 1)
    assert place.orders() == orders, "the Job was made a second time"
    client.cancel(place.contract, job)
    assert place.ended(job).state == "cancelled"


def test_a_cancelled_training_leaves_no_job_and_no_pod(place: Place) -> None:
    job = place.order(LONG)
    place.until(job, runs(1))
    pod = place.kubelet.running[f"training-{job}"]
    client.cancel(place.contract, job)
    assert place.ended(job).state == "cancelled"
    assert f"training-{job}" not in place.kubelet.state.jobs
    assert pod.wait(timeout=60) != 0


def test_a_worker_that_is_stopped_leaves_the_job_running(place: Place) -> None:
    job = place.order(LONG)
    place.until(job, runs(1))
    orders = place.orders()
    place.end_worker(signal.SIGTERM)
    assert place.kubelet.running[f"training-{job}"].poll() is None
    place.start_worker()
    seen = place.taken_over(job)
    place.until(job, runs(seen + 5))
    assert place.orders() == orders, "the Job was made a second time"
    client.cancel(place.contract, job)
    assert place.ended(job).state == "cancelled"


def test_a_job_that_was_killed_for_memory_says_so(place: Place) -> None:
    place.kubelet.out_of_memory = True
    try:
        job = place.order(LONG)
        place.until(job, runs(1))
        place.kubelet.running[f"training-{job}"].kill()
        found = place.ended(job)
    finally:
        place.kubelet.out_of_memory = False
    assert found.state == "failed"
    assert "killed: out of memory, over its limit (1Gi)" in (found.error or "")
