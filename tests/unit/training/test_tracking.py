from __future__ import annotations

import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from infra import endpoints, settings
from infra.training import contract, mlflow_client, tracking
from infra.training.jobs import Metric
from infra.training.tracking import MLflowBackend, Subject, Tracking
from tests.unit.training.mlflow_server import Tracking as Server
from tests.unit.training.mlflow_server import serving

SUBJECT = Subject("job", "digits", {"epochs": 3}, 1000)
AT = datetime(2026, 11, 23, tzinfo=UTC)


def history(epochs: int) -> list[Metric]:
    return [Metric(e, name, e / 10, AT) for e in range(1, epochs + 1) for name in ("train_loss", "val_accuracy")]


class Shaky:
    """A backend that can be out of order."""

    name, url = "shaky", "http://shaky/1"

    def __init__(self) -> None:
        self.broken = False
        self.calls: list[str] = []
        self.sent = 0

    def open(self, subject: Subject) -> None:
        self._do("open")

    def sync(self, history: Sequence[Metric]) -> None:
        self._do("sync")
        self.sent = len(history)

    def close(self, status: str, artifacts: Mapping[str, bytes], at: int) -> None:
        self._do(f"close {status}")

    def _do(self, what: str) -> None:
        self.calls.append(what)
        if self.broken:
            raise RuntimeError("out of order\nmore")


def test_a_failure_is_named_and_left_alone_until_the_end() -> None:
    backend, said = Shaky(), list[str]()
    found = Tracking([backend], SUBJECT, said.append)
    found.start()
    backend.broken = True
    for epoch in (1, 2, 3):
        found.sync(history(epoch))
    assert backend.calls == ["open", "sync"]
    assert found.outcome == {"shaky": {"state": "failed", "reason": "out of order"}}
    backend.broken = False
    found.finish("FINISHED", history(3), {}, 0)
    assert found.outcome == {"shaky": {"state": "ok", "url": "http://shaky/1", "run": ""}}
    assert backend.sent == 6
    assert said == ["warning: shaky: out of order"]


def test_one_that_never_works_harms_nobody() -> None:
    broken, fine = Shaky(), Shaky()
    broken.broken, fine.name = True, "fine"
    found = Tracking([broken, fine], SUBJECT, lambda text: None)
    found.start()
    found.sync(history(1))
    found.finish("FINISHED", history(1), {}, 0)
    assert {name: o["state"] for name, o in found.outcome.items()} == {"shaky": "failed", "fine": "ok"}
    assert fine.calls == ["open", "sync", "sync", "close FINISHED"]


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as made:
        yield made


def steps(server: Server) -> list[int]:
    (run,) = server.runs.values()
    return [m["step"] for m in run["metrics"] if m["key"] == "val_accuracy"]


def test_a_resumed_training_finds_its_run_and_sends_each_epoch_once(server: Server) -> None:
    for done, status in ((2, "KILLED"), (5, "FINISHED")):
        backend = MLflowBackend(server.uri)
        found = Tracking([backend], SUBJECT)
        found.start()
        for epoch in range(1, done + 1):
            found.sync(history(epoch))
        found.finish(status, history(done), {"report.json": b"{}"}, 5)
        backend.disconnect()
        assert found.outcome["mlflow"]["run"] == "run1"
        assert server.runs["run1"]["info"]["status"] == status
    assert steps(server) == [1, 2, 3, 4, 5]


def test_epochs_missed_while_mlflow_was_away_are_sent_at_the_end(server: Server) -> None:
    backend = MLflowBackend(server.uri)
    found = Tracking([backend], SUBJECT, lambda text: None)
    found.start()
    found.sync(history(1))
    server.refuse = True
    found.sync(history(2))
    server.refuse = False
    found.sync(history(3))
    found.finish("FINISHED", history(3), {}, 5)
    backend.disconnect()
    assert steps(server) == [1, 2, 3]


def with_backends(names: str) -> contract.Contract:
    values = endpoints.contract(endpoints.build(settings.load(environ={}), ("mlflow", "clearml")))
    return contract.read({**values, "OBSERVABILITY_BACKENDS": names})


def test_clearml_that_is_not_installed_is_skipped_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("infra.training.clearml_client.installed", lambda: False)
    found = tracking.tracking_for(with_backends("database,clearml"), SUBJECT)
    found.start()
    assert found.outcome["clearml"]["state"] == "skipped"
    assert "clearml is not installed" in capsys.readouterr().out


def test_a_tracker_that_does_not_run_is_skipped_with_the_next_step(capsys: pytest.CaptureFixture[str]) -> None:
    values = endpoints.contract(endpoints.build(settings.load(environ={}), ()))
    found = tracking.tracking_for(contract.read({**values, "OBSERVABILITY_BACKENDS": "database,mlflow"}), SUBJECT)
    found.start()
    assert found.outcome["mlflow"]["state"] == "skipped"
    said = "warning: not tracked in mlflow: it is not running; next step: invoke up --obs"
    assert said in capsys.readouterr().out


def test_the_database_is_no_backend_of_its_own() -> None:
    found = tracking.tracking_for(with_backends("database"), SUBJECT)
    found.start()
    found.finish("FINISHED", [], {}, 0)
    assert found.outcome == {}


@pytest.fixture
def mute() -> Iterator[str]:
    """The address of a server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_a_silent_mlflow_is_known_by_a_short_question_with_the_next_step(
    mute: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mlflow_client, "PROBE", (0.1, 0.1))
    monkeypatch.setattr(mlflow_client, "TIMEOUT", (0.2, 0.2))
    said: list[str] = []
    found = Tracking([MLflowBackend(mute)], SUBJECT, said.append)
    found.start()
    assert said == [f"warning: mlflow: {mute} does not answer (ReadTimeout); next step: invoke up --obs"]
    found.finish("FINISHED", history(1), {}, 5)
    assert found.outcome["mlflow"]["state"] == "failed"


def test_the_question_whether_mlflow_answers_takes_less_than_ten_seconds() -> None:
    connect, answer = mlflow_client.PROBE
    assert 2 * connect + answer < 10, "localhost has two addresses"


class FakeTask:
    """As much of clearml.Task as is used."""

    made: list[dict[str, Any]]
    told: list[tuple[str, object]]

    @classmethod
    def get_task(cls, project_name: str, task_name: str) -> SimpleNamespace | None:
        return SimpleNamespace(id="t1") if cls.made else None

    @classmethod
    def init(cls, **options: Any) -> SimpleNamespace:
        cls.made.append(options)
        told = cls.told
        logger = SimpleNamespace(report_scalar=lambda **values: told.append(("scalar", values["iteration"])))
        return SimpleNamespace(
            connect=lambda params: told.append(("params", params)),
            get_logger=lambda: logger,
            get_output_log_web_page=lambda: "http://clearml/t1",
            upload_artifact=lambda name, artifact_object: told.append(("file", name)),
            flush=lambda wait_for_uploads: None,
            mark_stopped=lambda: told.append(("stopped", None)),
            mark_failed=lambda: None,
            close=lambda: told.append(("closed", None)),
        )


def test_clearml_gets_a_task_and_a_resumed_training_continues_it(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeTask.made, FakeTask.told = [], []
    monkeypatch.setitem(sys.modules, "clearml", SimpleNamespace(Task=FakeTask))
    for status in ("KILLED", "FINISHED"):
        found = Tracking([tracking.ClearMLBackend()], SUBJECT)
        found.start()
        found.sync(history(2))
        found.finish(status, history(2), {"report.json": b"{}", "weights.npz": b""}, 0)
        assert found.outcome["clearml"]["url"] == "http://clearml/t1"
    assert [m["continue_last_task"] for m in FakeTask.made] == [False, "t1"]
    assert FakeTask.told.count(("file", "report.json")) == 2
    assert ("stopped", None) in FakeTask.told
    assert [e for kind, e in FakeTask.told if kind == "scalar"] == [1, 1, 2, 2] * 2
