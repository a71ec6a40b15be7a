"""What a program reports on its way into the database: a flood, a database that hangs, one that refuses."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence

import psycopg
import pytest
from temporalio import activity
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from infra import catalog
from infra.training import recorder
from infra.training.contract import Contract
from infra.training.jobs import Row, Superseded
from infra.training.patience import Unavailable
from infra.training.recorder import Recorder, Stop
from infra.training.request import Request
from tests.unit.helpers import eventually

NOWHERE = Contract(dict.fromkeys(catalog.CONTRACT_NAMES, "redis://127.0.0.1:1/0"))
REQUEST = Request("mine-1", command=["python"])


class Table:
    """The metrics of a job, in a database that may hang or fail."""

    def __init__(self) -> None:
        self.rows: dict[tuple[int, str], float] = {}
        self.statements = 0
        self.epochs = 0
        self.failures: list[Exception] = []
        self.answers = threading.Event()
        self.answers.set()

    def record_rows(self, job: str, attempt: int, rows: Sequence[Row]) -> None:
        self.statements += 1
        self.answers.wait(30)
        if self.failures:
            raise self.failures.pop(0)
        assert len({(row.epoch, row.name) for row in rows}) == len(rows), "a statement may touch a row once"
        self.rows.update({(row.epoch, row.name): row.value for row in rows})

    def set_epochs(self, job: str, attempt: int, epochs: int) -> None:
        self.epochs = epochs

    def close(self) -> None:
        pass


@pytest.fixture
def table() -> Table:
    return Table()


@pytest.fixture
def temporal(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Temporal's side: the heartbeats."""
    monkeypatch.setattr(recorder, "PAUSE", 0.05)
    monkeypatch.setattr(recorder, "_IDLE", 0.01)
    beats: list[object] = []
    monkeypatch.setattr(activity, "heartbeat", lambda *details: beats.append(details))
    monkeypatch.setattr(activity, "is_cancelled", lambda: False)
    monkeypatch.setattr(activity, "is_worker_shutdown", lambda: False)
    return beats


def opened(table: Table) -> Recorder:
    return Recorder(NOWHERE, REQUEST, 1, table)  # type: ignore[arg-type]


def line(epoch: int, epochs: int = 0, **metrics: float) -> str:
    return json.dumps({"epoch": epoch, "epochs": epochs, "metrics": metrics})


def beating(made: Recorder) -> None:
    with made:
        made.line(line(1, loss=1))
        while True:
            made.beat()


def failing(made: Recorder) -> None:
    with made:
        made.line(line(1, loss=1))
        raise KeyError("the reason")


def test_a_flood_is_written_in_few_statements_and_completely(table: Table, temporal: list[object]) -> None:
    with opened(table) as made:
        for epoch in range(1, 20_001):
            made.line(line(epoch, 20_000, loss=1 / epoch, lr=0.1))
    assert (len(table.rows), table.epochs) == (40_000, 20_000)
    assert table.rows[20_000, "loss"] == 1 / 20_000
    assert table.statements < 2000


def test_the_newest_value_of_an_epoch_stays(table: Table, temporal: list[object]) -> None:
    with opened(table) as made:
        for value in range(1000):
            made.line(line(1, loss=value))
    assert table.rows == {(1, "loss"): 999.0}


def test_a_database_that_hangs_holds_no_heartbeat_up(table: Table, temporal: list[object]) -> None:
    table.answers.clear()
    with opened(table) as made:
        made.line(line(1, loss=1))
        eventually(lambda: table.statements == 1)
        before = len(temporal)
        for _ in range(5):
            made.beat()
        assert len(temporal) == before + 5
        table.answers.set()
    assert table.rows == {(1, "loss"): 1.0}


def test_a_database_that_is_away_gets_everything_when_it_is_back(table: Table, temporal: list[object]) -> None:
    table.failures = [Unavailable("away")] * 3
    with opened(table) as made:
        made.line(line(1, loss=1))
        made.line(line(1, loss=2))
    assert table.rows == {(1, "loss"): 2.0}
    assert table.statements == 4
    assert len(temporal) > 0, "signs of life go on while it is waited for"


def test_a_database_that_stays_away_costs_the_try(
    table: Table, temporal: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "PATIENCE", 0.2)
    table.failures = [Unavailable("away")] * 1000
    with pytest.raises(ApplicationError, match="too long") as caught, opened(table) as made:
        made.line(line(1, loss=1))
    assert not caught.value.non_retryable


def test_what_is_refused_is_final_and_named(table: Table, temporal: list[object]) -> None:
    table.failures = [psycopg.errors.DataError("the value is no value")]
    with pytest.raises(ApplicationError, match="the value is no value") as caught, opened(table) as made:
        made.line(line(1, loss=1))
    assert caught.value.non_retryable


def test_a_newer_try_stops_this_one(table: Table, temporal: list[object]) -> None:
    table.failures = [Superseded("job mine-1 is no longer at attempt 1")]
    with pytest.raises(Stop, match="no longer"):
        beating(opened(table))


def test_the_reason_of_a_failure_is_not_hidden(table: Table, temporal: list[object]) -> None:
    table.failures = [psycopg.errors.DataError("refused too")]
    with pytest.raises(KeyError, match="the reason"):
        failing(opened(table))


def test_memory_is_bounded_while_the_database_is_away(
    table: Table, temporal: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "MOST_UNWRITTEN", 10)
    table.answers.clear()
    with opened(table) as made:
        made.line(line(0, first=1))
        eventually(lambda: table.statements == 1)
        for epoch in range(1, 101):
            made.line(line(epoch, loss=1))
        table.answers.set()
    assert sorted(table.rows) == [(0, "first"), *((epoch, "loss") for epoch in range(91, 101))]


def test_the_built_in_training_records_by_itself(table: Table, temporal: list[object]) -> None:
    with Recorder(NOWHERE, Request("digits-1", epochs=3), 1, table) as made:  # type: ignore[arg-type]
        made.line(line(2, 3, loss=1))
        made.beat()
    assert (made.epoch, table.statements) == (2, 0)


def test_a_heartbeat_tells_the_epoch() -> None:
    environment, beats = ActivityEnvironment(), []
    environment.on_heartbeat = lambda *details: beats.append(details)

    def work() -> None:
        made = Recorder(NOWHERE, Request("digits-1", epochs=3), 1)
        made.line(line(2, 3))
        made.beat()

    environment.run(work)
    assert beats == [(2,)]
