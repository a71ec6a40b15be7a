"""What is killed in the middle of a training, and what becomes of it: it ends as if nothing had been."""

from __future__ import annotations

import json
import threading
import time

import psutil
import pytest

from infra.training.store import S3Store
from tests.faults.conftest import WORKER, Victim
from tests.faults.training.tools import EPOCHS, Training, start
from tests.smoke.platform import PYTHON


@pytest.fixture(scope="module")
def undisturbed(platform: Victim) -> str:
    """SHA-256 of the weights of a training that nobody disturbs."""
    training = start(platform, "--epochs", str(EPOCHS))
    assert training.until_final().state == "succeeded"
    return training.weights_digest()


def running(platform: Victim) -> Training:
    """A training in the middle."""
    training = start(platform, "--epochs", str(EPOCHS))
    training.until_epoch(5)
    return training


def ended_well(training: Training, undisturbed: str) -> None:
    """It has succeeded, every epoch is there once, the weights are those of an undisturbed one, nobody is left."""
    job = training.until_final()
    assert (job.state, job.error) == ("succeeded", None)
    assert training.epochs() == list(range(1, EPOCHS + 1))
    assert training.weights_digest() == undisturbed
    assert (job.heldout_accuracy or 0) >= 0.95
    assert training.trainers() == []


@pytest.mark.parametrize("service", ["temporal", "postgres", "redis", "minio-datasets", "minio-results"])
def test_kill_of_a_server(platform: Victim, undisturbed: str, service: str) -> None:
    training = running(platform)
    platform.kill(service)
    ended_well(training, undisturbed)


def test_kill_of_the_worker(platform: Victim, undisturbed: str) -> None:
    training = running(platform)
    platform.kill(WORKER)
    ended_well(training, undisturbed)
    assert training.row().attempt > 1
    assert "resumed at epoch " in training.log()


def test_kill_of_the_training_process(platform: Victim, undisturbed: str) -> None:
    training = running(platform)
    for process in training.trainers():
        process.kill()
    ended_well(training, undisturbed)
    assert training.row().attempt == 2
    assert "resumed at epoch " in training.log()


def test_a_temporal_that_hangs_for_a_while_is_waited_for(platform: Victim, undisturbed: str) -> None:
    process = psutil.Process(platform.pid("temporal"))
    process.suspend()
    again = threading.Timer(15, process.resume)  # longer than a call may take
    again.start()
    try:
        ended_well(start(platform, "--epochs", str(EPOCHS)), undisturbed)
    finally:
        again.join()


def test_kill_of_temporal_and_the_worker_at_once(platform: Victim, undisturbed: str) -> None:
    training = running(platform)
    platform.kill("temporal")
    platform.kill(WORKER)
    ended_well(training, undisturbed)


def test_down_in_the_middle_and_up_again(platform: Victim, undisturbed: str) -> None:
    training = running(platform)
    platform.invoke("down", check=True)
    assert training.trainers() == []
    platform.up()
    # The next training brings the worker back, which takes up what was left.
    start(platform, "--command", f"{PYTHON} -c pass").until_final()
    ended_well(training, undisturbed)
    assert "resumed at epoch " in training.log()


def test_a_damaged_checkpoint_is_passed_over(platform: Victim, undisturbed: str) -> None:
    training = running(platform)
    process = training.trainers()[0]
    process.suspend()
    time.sleep(2)  # for what was on its way when it was suspended
    store = S3Store(training.contract.results)
    newest = json.loads(store.get("training-checkpoints", f"{training.id}/latest.json") or b"{}")["key"]
    store.put("training-checkpoints", newest, b"damaged")
    process.kill()
    ended_well(training, undisturbed)
    assert f"checkpoint training-checkpoints/{newest} is not usable" in training.log()
