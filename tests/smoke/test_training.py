"""A real training on real images, through the whole platform; what it stored is judged here, not by the trainer."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
import redis
import requests
from numpy.typing import NDArray
from PIL import Image

from tests.smoke.platform import PYTHON, Platform

LIMIT = 600.0
ACCURACY = 0.95
Pixels = NDArray[np.float64]


@dataclass(frozen=True)
class Training:
    """A finished training: what the task answered and what was published on Redis meanwhile."""

    platform: Platform
    answer: Mapping[str, Any]
    messages: tuple[Mapping[str, Any], ...]

    @property
    def job(self) -> str:
        """Its id."""
        return str(self.answer["job"])

    @cached_property
    def manifest(self) -> Mapping[str, Any]:
        """The manifest of the dataset."""
        found: Mapping[str, Any] = json.loads(self.dataset("manifest.json"))
        return found

    def dataset(self, key: str) -> bytes:
        """A file of the dataset that the report names."""
        name = self.report["config"]["dataset"]
        return fetch(self.platform.storage("EXTERNAL"), "training-datasets", f"{name}/{key}")

    def result(self, address: str) -> bytes:
        """An object of the results store by `bucket/key`."""
        bucket, _, key = address.partition("/")
        return fetch(self.platform.storage("INTERNAL"), bucket, key)

    @cached_property
    def report(self) -> Mapping[str, Any]:
        """The report of the training."""
        found: Mapping[str, Any] = json.loads(self.result(str(self.answer["report"])))
        return found


def fetch(s3: Any, bucket: str, key: str) -> bytes:
    """An object's content."""
    return bytes(s3.get_object(Bucket=bucket, Key=key)["Body"].read())


@pytest.fixture(scope="module")
def training(platform: Platform) -> Training:
    """One training with the defaults."""
    with (
        redis.Redis.from_url(platform.contract["REDIS_URL"], decode_responses=True) as client,
        client.pubsub(ignore_subscribe_messages=True) as watcher,
    ):
        watcher.psubscribe("training:*")
        answer = platform.data("train.run", timeout=LIMIT)
        messages = []
        while (message := watcher.get_message(timeout=0.5)) is not None or watcher.get_message(timeout=0.5):
            messages += [json.loads(message["data"])] if message else []
    return Training(platform, answer, tuple(m for m in messages if m["job"] == answer["job"]))


def test_ends_succeeded(training: Training) -> None:
    assert training.answer["state"] == "succeeded"
    assert training.answer["epoch"] == training.answer["epochs"] == training.report["config"]["epochs"]


def test_dataset_is_whole_and_its_splits_are_apart(training: Training) -> None:
    items = training.manifest["items"]
    keys = [i["key"] for i in items]
    assert len(items) == len(set(keys)) == training.manifest["count"] == 1797
    counts = {s: sum(i["split"] == s for i in items) for s in ("train", "val", "test")}
    assert min(counts.values()) >= 150
    assert {i["label"] for i in items if i["split"] == "test"} == set(range(10))
    digests = {s: {i["sha256"] for i in items if i["split"] == s} for s in counts}
    assert not digests["test"] & (digests["train"] | digests["val"])


def predict(weights: Mapping[str, Pixels], images: Pixels) -> NDArray[np.intp]:
    """A forward pass of our own: hidden layers with a ramp, the largest output wins."""
    layers = len(weights) // 2
    for layer in range(layers):
        images = images @ weights[f"coef_{layer}"] + weights[f"intercept_{layer}"]
        images = np.maximum(images, 0) if layer < layers - 1 else images
    found: NDArray[np.intp] = images.argmax(axis=1)
    return found


def test_held_out_accuracy_from_the_stored_weights(training: Training) -> None:
    items = [i for i in training.manifest["items"] if i["split"] == "test"]
    files = [training.dataset(i["key"]) for i in items]
    assert [hashlib.sha256(f).hexdigest() for f in files] == [i["sha256"] for i in items]
    images = np.stack([np.asarray(Image.open(io.BytesIO(f)), dtype=np.float64).ravel() / 255 for f in files])
    with np.load(io.BytesIO(training.result(training.answer["weights"])), allow_pickle=False) as file:
        weights = {name: file[name] for name in file.files}
    accuracy = float((predict(weights, images) == np.array([i["label"] for i in items])).mean())
    assert accuracy >= ACCURACY
    assert training.answer["heldout_accuracy"] == pytest.approx(accuracy)


def test_metrics_of_every_epoch_are_in_the_database(training: Training) -> None:
    query = "select epoch, name, value from metrics where job_id = %s order by epoch"
    with psycopg.connect(training.platform.contract["DATABASE_URL"]) as connection:
        rows = connection.execute(query, (training.job,)).fetchall()
        state = connection.execute("select state from jobs where id = %s", (training.job,)).fetchone()
    assert state == ("succeeded",)
    for name in ("train_loss", "val_accuracy"):
        assert [e for e, n, _ in rows if n == name] == list(range(1, training.answer["epochs"] + 1))
    losses = [v for _, n, v in rows if n == "train_loss"]
    assert losses[-1] < losses[0] / 2


def test_checkpoint_of_every_epoch_is_stored(training: Training) -> None:
    s3 = training.platform.storage("INTERNAL")
    listed = s3.list_objects_v2(Bucket="training-checkpoints", Prefix=f"{training.job}/")["Contents"]
    whole = sorted(e["Key"] for e in listed if e["Key"].endswith(".npz"))
    latest = json.loads(training.result(f"training-checkpoints/{training.job}/latest.json"))
    assert len(whole) == training.answer["epochs"]
    assert latest["key"] == whole[-1]
    assert hashlib.sha256(training.result(f"training-checkpoints/{whole[-1]}")).hexdigest() == latest["sha256"]


def test_progress_was_published(training: Training) -> None:
    epochs = [m["epoch"] for m in training.messages if "epoch" in m]
    assert epochs == list(range(1, training.answer["epochs"] + 1))


def test_confusion_matrix_is_a_picture_and_adds_up(training: Training) -> None:
    with Image.open(io.BytesIO(training.result(training.report["confusion_matrix"]))) as picture:
        picture.load()
        assert picture.format == "PNG"
        assert min(picture.size) >= 200
    matrix = np.array(training.report["confusion"])
    assert matrix.sum() == training.manifest["splits"]["val"]
    assert matrix.trace() / matrix.sum() == pytest.approx(training.answer["val_accuracy"])


def test_schema_describes_the_configuration(training: Training) -> None:
    schema = json.loads(training.result(training.report["schema"]))
    assert set(schema["required"]) == set(schema["properties"]) == set(training.report["config"])


def test_it_is_listed_and_shown(training: Training) -> None:
    assert training.job in [j["job"] for j in training.platform.data("train.list")]
    done = training.platform.invoke("train.show", training.job)
    assert done.returncode == 0
    assert f"training-results/{training.job}/report.json" in done.stdout


def test_run_is_in_mlflow(training: Training) -> None:
    contract = training.platform.contract
    if "mlflow" not in contract["OBSERVABILITY_BACKENDS"].split(","):
        pytest.skip("OBSERVABILITY_BACKENDS does not name mlflow, which does not run")
    run = training.answer["tracking"]["mlflow"]["run"]
    api = f"{contract['MLFLOW_TRACKING_URI']}/api/2.0/mlflow"
    found = requests.get(f"{api}/runs/get", params={"run_id": run}, timeout=30).json()["run"]
    history = requests.get(
        f"{api}/metrics/get-history", params={"run_id": run, "metric_key": "val_accuracy"}, timeout=30
    )
    files = requests.get(f"{api}/artifacts/list", params={"run_id": run}, timeout=30).json()["files"]
    assert found["info"]["status"] == "FINISHED"
    assert [m["step"] for m in history.json()["metrics"]] == list(range(1, training.answer["epochs"] + 1))
    assert {f["path"] for f in files} >= {"confusion_matrix.png", "report.json", "weights.npz"}


def test_a_failing_program_of_the_user_is_a_failed_training(platform: Platform) -> None:
    done = platform.invoke("train.run", "--command", f"{PYTHON} -c 'raise SystemExit(3)'", "--json", timeout=LIMIT)
    envelope = json.loads(done.stdout)
    assert done.returncode == 1
    assert (envelope["status"], envelope["error"]["code"]) == ("error", "TASK_FAILED")
    steps = [action["command"] for action in envelope["error"]["actions"]]
    if platform.tier != "kind":  # there its log may be with its pod
        assert steps[0].startswith("its log: "), steps
        assert Path(steps[0].removeprefix("its log: ")).is_file(), steps


def test_a_program_of_the_user_sees_the_contract(platform: Platform) -> None:
    code = "import os; assert os.environ['DATABASE_URL'].endswith('/platform'); print('seen')"
    answer = platform.data("train.run", "--command", f'{PYTHON} -c "{code}"', timeout=LIMIT)
    assert answer["state"] == "succeeded"


def test_gpus_are_given_refused_or_done_without(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-one,GPU-two")  # no GPU is needed to see which ones a program gets

    def sees(devices: str) -> tuple[str, ...]:
        code = f"import os; assert os.environ['CUDA_VISIBLE_DEVICES'] == '{devices}'"
        return ("--command", f'{PYTHON} -c "{code}"')

    assert platform.data("train.run", "--gpus", "1", *sees("GPU-one"), timeout=LIMIT)["state"] == "succeeded"
    refused = platform.invoke("train.run", "--gpus", "3", *sees(""), timeout=LIMIT)
    assert (refused.returncode, "this machine has 2" in refused.stderr) == (2, True)
    assert platform.data("train.run", "--gpus", "3", "--or-cpu", *sees(""), timeout=LIMIT)["state"] == "succeeded"
