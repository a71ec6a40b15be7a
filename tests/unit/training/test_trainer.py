from __future__ import annotations

import json
from typing import Any, cast

import pytest

from infra.errors import PlatformError
from infra.training import evaluate, trainer
from infra.training.config import TrainingConfig
from infra.training.dataset import BUCKET, DATASET
from infra.training.jobs import Jobs, Superseded
from infra.training.patience import Unavailable
from infra.training.progress import Progress
from infra.training.tracking import Subject, Tracking
from infra.training.trainer import Attempt, Servers, Stopped
from tests.unit.training.fakes import MemoryJobs, MemoryStore, SilentProgress

EPOCHS = 5
CONFIG = TrainingConfig(epochs=EPOCHS, hidden_units=32, batch_size=16)


class Broken(Exception):
    """The end of a try, from outside."""


class Stage:
    """Servers in memory, and a job on them."""

    def __init__(self, datasets: MemoryStore) -> None:
        self.datasets, self.results = datasets, MemoryStore()
        self.jobs, self.progress = MemoryJobs(), SilentProgress()

    def train(self, attempt: int = 1) -> None:
        subject = Subject("job", "tests", CONFIG.as_dict(), 0)
        jobs, progress = cast(Jobs, self.jobs), cast(Progress, self.progress)
        servers = Servers(jobs, progress, self.datasets, self.results, Tracking([], subject))
        trainer.train(Attempt("job", attempt, CONFIG), servers)

    def break_after(self, epoch: int, monkeypatch: pytest.MonkeyPatch) -> None:
        """End the next try once an epoch's checkpoint is written."""
        publish = self.progress.publish

        def breaking(**facts: object) -> None:
            publish(**facts)
            if facts.get("epoch") == epoch:
                raise Broken

        monkeypatch.setattr(self.progress, "publish", breaking)

    @property
    def weights(self) -> bytes:
        return self.results.objects["model-weights", "job/weights.npz"]

    @property
    def report(self) -> Any:
        return json.loads(self.results.objects["training-results", "job/report.json"])


@pytest.fixture
def stage(published: MemoryStore) -> Stage:
    return Stage(published)


def test_a_whole_training(stage: Stage) -> None:
    stage.train()
    epochs = [facts["epoch"] for facts in stage.progress.published]
    assert epochs == [1, 2, 3, 4, 5]
    assert {name for _, name in stage.jobs.rows} == {"train_loss", "val_accuracy", "epoch_seconds"}
    assert stage.jobs.result["val_accuracy"] == stage.report["val_accuracy"] > 0.9
    assert stage.results.objects["training-results", "job/confusion_matrix.png"].startswith(b"\x89PNG")
    schema = json.loads(stage.results.objects["config-schemas", "training/image-classifier-v1.json"])
    assert set(schema["properties"]) == set(stage.report["config"])
    assert not [r for r in stage.datasets.reads if "/test/" in r]


@pytest.mark.parametrize("epoch", [1, 3, 5])
def test_an_interrupted_training_ends_with_the_same_weights(
    stage: Stage,
    published: MemoryStore,
    monkeypatch: pytest.MonkeyPatch,
    epoch: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    whole = Stage(published)
    whole.train()
    stage.break_after(epoch, monkeypatch)
    with pytest.raises(Broken):
        stage.train()
    monkeypatch.undo()
    stage.jobs.attempt = 2
    stage.train(attempt=2)
    assert stage.weights == whole.weights
    assert [e["val_accuracy"] for e in stage.report["epochs"]] == [e["val_accuracy"] for e in whole.report["epochs"]]
    assert f"resumed at epoch {epoch}\n" in capsys.readouterr().out


def test_an_epoch_whose_checkpoint_is_missing_is_done_again(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    stage.break_after(3, monkeypatch)
    with pytest.raises(Broken):
        stage.train()
    monkeypatch.undo()
    del stage.results.objects["training-checkpoints", "job/epoch-0003.npz"]
    stage.train()
    assert [e["epoch"] for e in stage.report["epochs"]] == [1, 2, 3, 4, 5]


def test_an_old_try_stops_before_it_writes_anything(stage: Stage) -> None:
    stage.jobs.attempt = 2
    with pytest.raises(Superseded):
        stage.train(attempt=1)
    assert stage.results.writes == []


def test_an_old_try_stops_in_the_middle(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    def newer(**facts: object) -> None:
        stage.jobs.attempt = 2

    monkeypatch.setattr(stage.progress, "publish", newer)
    with pytest.raises(Superseded):
        stage.train(attempt=1)
    written = [w for w in stage.results.writes if w.endswith(".npz")]
    assert written == ["training-checkpoints/job/epoch-0001.npz"]


def test_evaluation_of_the_stored_weights(stage: Stage) -> None:
    stage.train()
    accuracy = evaluate.evaluate("job", stage.datasets, stage.results)
    stored = json.loads(stage.results.objects["training-results", "job/heldout.json"])
    assert accuracy == stored["accuracy"] > 0.9
    assert sum(map(sum, stored["confusion"])) == stored["images"] == 355


def test_evaluation_refuses_damaged_weights(stage: Stage) -> None:
    stage.train()
    stage.results.objects["model-weights", "job/weights.npz"] += b" "
    with pytest.raises(PlatformError, match="damaged"):
        evaluate.evaluate("job", stage.datasets, stage.results)


def test_a_damaged_dataset_ends_the_training(stage: Stage) -> None:
    key = next(k for k in stage.datasets.objects if k[0] == BUCKET and k[1].startswith(f"{DATASET}/train/"))
    stage.datasets.objects[key] = b""
    with pytest.raises(PlatformError, match="damaged"):
        stage.train()


@pytest.mark.parametrize(
    ("raised", "status"),
    [
        (Unavailable("PostgreSQL does not answer"), 75),
        (Stopped("stopped by signal 15"), 143),
        (Superseded("job a is no longer at attempt 1"), 76),
        (PlatformError("NOT_FOUND", "no dataset"), 9),
    ],
)
def test_exit_status_and_last_line(
    raised: Exception, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise raised

    monkeypatch.setattr(trainer, "connect", fail)
    monkeypatch.setattr(trainer, "stop_on_signals", lambda: None)
    arguments = ["--job", "a", "--attempt", "1", "--dataset", "digits/v1", "--epochs", "2"]
    assert trainer.main(arguments) == status
    assert capsys.readouterr().out.startswith(str(raised.args[0]))
