from __future__ import annotations

import io
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from infra.console import Console
from infra.context import Context
from infra.errors import PlatformError
from infra.tasks import train, train_order, train_output, train_show, train_watch
from infra.training import client, parallel
from infra.training.client import Glimpse
from infra.training.described import described
from infra.training.jobs import Job

CREATED = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


def job(**changes: Any) -> Job:
    values: dict[str, Any] = {
        "id": "digits-20261123-1a2b3c",
        "experiment": "digits",
        "state": "succeeded",
        "command": None,
        "config": {},
        "attempt": 1,
        "epochs": 15,
        "error": None,
        "last_lines": None,
        "val_accuracy": 1.0,
        "heldout_accuracy": 0.969,
        "weights": "model-weights/x/weights.npz",
        "report": "training-results/x/report.json",
        "tracking": {"mlflow": {"state": "ok", "url": "http://mlflow/run"}},
        "created_at": CREATED,
        "started_at": CREATED,
        "finished_at": CREATED + timedelta(seconds=12.3),
        "epoch": 15,
    }
    return Job(**{**values, **changes})


@pytest.mark.parametrize(
    ("epochs", "experiment", "command", "code"),
    [
        (0, "", "", "USAGE"),
        (-3, "", "", "USAGE"),
        (1_000_000, "", "", "USAGE"),
        (1, "x" * 101, "", "USAGE"),
        (1, "a\nb", "", "USAGE"),
        (1, "", "python 'x", "USAGE"),
        (1, "", "no-such-program-here", "PROGRAM_MISSING"),
    ],
)
def test_wrong_orders_are_refused_before_anything_is_asked(
    epochs: int, experiment: str, command: str, code: str
) -> None:
    with pytest.raises(PlatformError) as caught:
        train_order.order(epochs, experiment, command, {}, located=True)
    assert caught.value.code == code


def test_orders() -> None:
    assert train_order.order(3, "", "", {}, located=True).experiment == "digits"
    assert train_order.order(3, "", "", {}, located=True).config.epochs == 3
    own = train_order.order(15, "", f"'{sys.executable}' -c pass", {}, located=True)
    assert own.command[1:] == ("-c", "pass")
    assert (own.experiment, own.cwd) == ("command", os.getcwd())


def test_the_answer_for_programs() -> None:
    data = described(job())
    wanted = {"job", "state", "heldout_accuracy", "val_accuracy", "epochs", "seconds", "weights", "report", "mlflow"}
    assert wanted <= data.keys()
    assert (data["seconds"], data["mlflow"]) == (12.3, "http://mlflow/run")


def test_a_failure_carries_the_reason_and_the_last_lines(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    log.write_text("one\ntwo\n", encoding="utf-8")
    where = train_watch.where("x", log, tmp_path / "worker.log", in_cluster=True)
    error = train_watch.failure(job(state="failed", error="exit status 3", last_lines="one\ntwo"), where)
    assert (error.code, int(error.exit), error.why) == ("TASK_FAILED", 1, "exit status 3")
    assert error.details["log"] == ["one", "two"]
    assert str(log) in error.steps[0]


@pytest.mark.parametrize(("in_cluster", "named"), [(True, "invoke train.logs x"), (False, "/nowhere/worker.log")])
def test_a_failure_names_no_log_that_is_not_here(in_cluster: bool, named: str) -> None:
    where = train_watch.where("x", Path("/nowhere/x.log"), Path("/nowhere/worker.log"), in_cluster)
    error = train_watch.failure(job(state="failed", error="exit status 3"), where)
    assert "/nowhere/x.log" not in error.steps[0]
    assert named in error.steps[0]
    assert "cluster" not in error.steps[0]


@pytest.mark.parametrize(
    ("state", "in_cluster", "said"),
    [
        ("failed", False, "it ended before it printed anything"),
        ("failed", True, "its pods are gone"),
        ("queued", False, "queued"),
    ],
)
def test_only_a_training_in_a_cluster_has_lost_its_log_there(state: str, in_cluster: bool, said: str) -> None:
    error = train_output.absent(job(state=state), in_cluster)
    assert said in error.why
    told = " ".join((error.what, error.why, *error.steps))
    assert in_cluster or not any(word in told for word in ("pod", "cluster"))


def test_a_cancelled_training_is_no_success() -> None:
    error = train_watch.failure(job(state="cancelled", error="cancelled"), "its log: /logs/x.log")
    assert (error.code, error.what) == ("TASK_FAILED", "digits-20261123-1a2b3c has been cancelled")


def test_progress_without_a_terminal_is_a_line_for_each_change() -> None:
    stream = io.StringIO()
    metrics = {"train_loss": 0.25, "val_accuracy": 0.9, "epoch_seconds": 0.1}
    with train_watch.lines(Console(stderr=stream)) as view:
        for glimpse in (
            Glimpse("queued"),
            Glimpse("queued"),
            Glimpse("running"),
            Glimpse("running", 1, 15, metrics),
            Glimpse("running", 1, 15, metrics),
            Glimpse("running", 1, 15, metrics, "PostgreSQL does not answer"),
            Glimpse("running", 2, 0, {}),
        ):
            view.show(glimpse)
    assert stream.getvalue().splitlines() == [
        "queued",
        "running",
        "epoch 1/15  train_loss 0.25  val_accuracy 0.9",
        "running: PostgreSQL does not answer",
        "epoch 2",
    ]


def test_a_long_wait_says_what_for(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(train_watch, "HEARTBEAT", 0)
    with train_watch.lines(Console(stderr=stream)) as view:
        view.show(Glimpse("queued"))
        view.show(Glimpse("queued"))
    assert stream.getvalue().splitlines()[1] == "queued (for 0.0 s): other trainings run first (invoke train.list)"


class Screen(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        return True


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")
    stream = Screen()
    with train_watch.bar(Console(stderr=stream)) as view:
        view.show(Glimpse("running", 3, 15, {"loss": 0.5}))
    assert "loss 0.5" in stream.getvalue()
    assert "3/15" in stream.getvalue()


def test_listing_the_tasks_imports_nothing_heavy() -> None:
    heavy = ("boto3", "botocore", "psycopg", "redis", "temporalio", "sklearn", "numpy", "rich", "requests", "psutil")
    code = f"import sys, infra.tasks.train; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("task", train.TASKS)
def test_every_task_has_help_and_an_example(task: Any) -> None:
    assert "Example: invoke train." in (task.__doc__ or "")


def test_the_order_has_the_environment_of_the_shell_and_what_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "of the shell")
    monkeypatch.setenv("POSTGRES_PASSWORD", "the platform's")
    command = f"'{sys.executable}' -c pass"
    own = train_order.order(15, "", command, {"A": "1", "HF_TOKEN": "given"}, located=True)
    assert (own.env["HF_TOKEN"], own.env["A"], "POSTGRES_PASSWORD" in own.env) == ("given", "1", False)
    assert "given" not in repr(own)
    of_an_image = train_order.order(15, "", "python train.py", {"A": "1"}, located=False)
    assert (of_an_image.env, of_an_image.command) == ({"A": "1"}, ("python", "train.py"))
    with pytest.raises(PlatformError, match="--env is for a program of yours"):
        train_order.order(15, "", "", {"A": "1"}, located=True)


def test_variables_of_files_and_of_the_command_line(tmp_path: Path) -> None:
    file = tmp_path / "my env"
    file.write_text("A=1\nB='two words'\n# no\nC=$HOME\nexport D=4\nE=\n", encoding="utf-8-sig")
    found = train_order.variables(["B", "F=a=b", "G="], [str(file)], {"B": "of the shell"})
    assert found == {"A": "1", "B": "of the shell", "C": "$HOME", "D": "4", "E": "", "F": "a=b", "G": ""}


@pytest.mark.parametrize(
    ("entries", "files", "words"),
    [
        (["HF_TOKEN"], [], "no such variable"),
        (["=x"], [], "no name"),
        (["A B=x"], [], "no name"),
        ([], ["/no/such/file"], "cannot be read"),
    ],
)
def test_variables_that_cannot_be_given_are_refused(entries: list[str], files: list[str], words: str) -> None:
    with pytest.raises(PlatformError, match=words) as caught:
        train_order.variables(entries, files, {})
    assert caught.value.code == "USAGE"


def test_what_a_training_prints_is_shown_above_its_progress() -> None:
    stream = io.StringIO()
    printed = ["== 2026-11-23T12:00:00Z training: python x", "loading", '{"epoch": 1}', "\x1b]0;title\x07", "{}"]
    batches = [printed, [f"line {i}" for i in range(train_watch.AT_ONCE + 3)], []]
    with train_watch.lines(Console(stderr=stream)) as view:
        while train_watch._tell(view, Printing(batches)):
            pass
    said = stream.getvalue().splitlines()
    assert said[:4] == ["loading", "\\u001b]0;title\\u0007", "{}", "line 0"]
    assert said[-1] == "... 3 more lines are in the log"


class Printing(train_watch.TrainingOutput):
    """A training that prints these batches of lines."""

    def __init__(self, batches: list[list[str]]) -> None:
        self.batches = batches

    def news(self) -> list[str]:
        return self.batches.pop(0)


def test_a_built_in_training_of_several_workers_runs_again_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(parallel, "check", asked.append)
    ordered = again(job(config={"workers": 2}, epochs=7), monkeypatch)
    assert (ordered.workers, ordered.config.epochs) == (2, 7)
    assert ordered.config.hidden_units == parallel.CONFIG.hidden_units
    assert asked == [2]


def again(before: Job, monkeypatch: pytest.MonkeyPatch) -> client.Order:
    """The order that train.rerun places, of a training of that row."""
    ordered: list[client.Order] = []
    monkeypatch.setattr(train_show, "running", lambda _: (None, None))
    monkeypatch.setattr(client, "find", lambda *_: before)
    monkeypatch.setattr(client, "record_of", lambda *_: {})
    monkeypatch.setattr(train, "_ordered", lambda *given: ordered.append(given[2]))
    train.again(Context(None, None, Console(environ={})), before.id, detach=False)  # type: ignore[arg-type]
    return ordered[0]
