from __future__ import annotations

import io
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from infra import waiting
from infra.errors import PlatformError
from infra.waiting import FAILED, HEARTBEAT, READY, Item, Wait, culprit, last_lines, live_table
from tests.unit.helpers import Said, Stream, console

START = 1000.0


class World:
    """A fake clock and the states that a poll finds as time goes on."""

    def __init__(self, said: Said, states: Callable[[float], Sequence[Item]]) -> None:
        self.said, self.states = said, states
        self.now, self.polls = START, 0

    def poll(self) -> Sequence[Item]:
        self.polls += 1
        assert self.polls < 100_000, "the wait does not end"
        return self.states(self.now - START)

    def sleep(self, seconds: float) -> None:
        self.now += max(seconds, 0.25)

    def wait(self, timeout: float | None = None) -> None:
        Wait(self.said, self.poll, timeout, clock=lambda: self.now, sleep=self.sleep).until_ready()

    def failing(self, timeout: float | None = None) -> PlatformError:
        with pytest.raises(PlatformError) as caught:
            self.wait(timeout)
        return caught.value

    @property
    def elapsed(self) -> float:
        return self.now - START


def world(*items: Item, ready_after: float = 1e9) -> World:
    def states(now: float) -> Sequence[Item]:
        return [Item(i.name, READY) for i in items] if now >= ready_after else items

    return World(console(), states)


# --- the end of a wait


def test_nothing_is_said_when_everything_is_ready_at_the_first_look() -> None:
    there = world(Item("redis", READY), Item("postgres", READY))
    there.wait()
    assert (there.polls, there.elapsed) == (1, 0.0)
    assert (there.said.out, there.said.err) == ("", "")


def test_a_wait_for_nothing_ends() -> None:
    world().wait()


def test_each_change_is_one_line_with_the_time_it_took() -> None:
    there = world(Item("redis", "starting"), Item("postgres", READY), ready_after=3.0)
    there.wait()
    assert there.said.err.splitlines() == ["  redis            ready (3.0 s)"]


def test_crashes_are_told_while_they_happen_but_only_once_each() -> None:
    def states(now: float) -> Sequence[Item]:
        if now < 1 or 2 <= now < 3:
            return [Item("redis", "starting", "connection refused")]
        return [Item("redis", "backoff", "ended by itself (exit 1)")] if now < 2 else [Item("redis", READY)]

    there = World(console(), states)
    there.wait()
    assert there.said.err.splitlines() == [
        "  redis            backoff: ended by itself (exit 1)",
        "  redis            ready (3.0 s)",
    ]


def test_a_failed_service_ends_the_wait_at_once_and_is_blamed_instead_of_its_victims() -> None:
    victim = Item("mlflow", "waiting", "waits for postgres", needs=("postgres",), budget=5)
    there = world(victim, Item("redis", "starting"), Item("postgres", FAILED, "exit 1; gave up after 5 tries"))
    error = there.failing()
    assert there.elapsed == 0
    assert (error.code, error.exit, error.what) == ("SERVICE_FAILED", 7, "postgres failed")
    assert error.why == "exit 1; gave up after 5 tries"
    assert error.steps[0] == "invoke logs -s postgres"
    assert error.details["service"] == "postgres"


def test_a_refused_login_ends_the_wait_at_once_and_says_how_to_get_in() -> None:
    error = world(Item("postgres", "starting", "password authentication failed", fatal=True)).failing()
    assert (error.code, error.exit) == ("LOGIN_REFUSED", 5)
    assert "postgres" in error.what
    assert any("invoke reset -s postgres" in step for step in error.steps)


# --- budgets


def test_a_service_that_is_late_is_named_with_the_time_it_had() -> None:
    there = world(Item("redis", READY), Item("temporal", "starting", "HTTP 503", budget=30))
    error = there.failing()
    assert (error.code, error.exit) == ("WAIT_TIMEOUT", 6)
    assert error.what == "temporal was not ready within 30 s"
    assert error.why == "HTTP 503"
    assert there.elapsed == 30.25


RECOVERS = "FATAL:  the database system is not yet accepting connections"


def test_a_server_that_recovers_after_a_crash_may_take_longer() -> None:
    def states(now: float) -> Sequence[Item]:
        return [Item("postgres", READY) if now >= 300 else Item("postgres", "starting", RECOVERS, budget=60)]

    there = World(console(), states)
    there.wait()
    assert 300 <= there.elapsed < 301
    assert f"still waiting for postgres (30 s): {RECOVERS}" in there.said.err


def test_a_recovery_is_not_waited_for_without_end() -> None:
    there = world(Item("postgres", "starting", RECOVERS, budget=60))
    error = there.failing()
    assert (error.code, there.elapsed > waiting.RECOVERY) == ("WAIT_TIMEOUT", True)
    assert "invoke wait" in error.steps[0]


def test_the_users_own_limit_ends_the_wait_for_a_recovery() -> None:
    there = world(Item("postgres", "starting", RECOVERS, budget=60))
    assert "invoke wait" in there.failing(20).steps[0]
    assert there.elapsed < 21


def test_the_budget_runs_from_when_all_that_is_needed_is_ready() -> None:
    def states(now: float) -> Sequence[Item]:
        postgres = Item("postgres", READY if now >= 50 else "starting", budget=60)
        return [postgres, Item("mlflow", "waiting", needs=("postgres", "not-awaited"), budget=20)]

    there = World(console(), states)
    assert there.failing().what == "mlflow was not ready within 20 s"
    assert there.elapsed == 70.25


def test_what_is_not_awaited_is_not_waited_for() -> None:
    there = world(Item("mlflow", "starting", needs=("postgres",), budget=10))
    assert there.failing().details["service"] == "mlflow"
    assert there.elapsed == 10.25


def test_a_service_is_not_blamed_for_what_it_needs_and_lost_again() -> None:
    def states(now: float) -> Sequence[Item]:
        lost = Item("postgres", READY if now < 2 else "backoff", "ended by itself", budget=600)
        return [lost, Item("mlflow", "starting", needs=("postgres",), budget=20)]

    error = World(console(), states).failing()
    assert (error.code, error.details["service"]) == ("WAIT_TIMEOUT", "postgres")


def test_the_overall_time_limit_wins_over_longer_budgets() -> None:
    victim = Item("mlflow", "waiting", needs=("postgres",), budget=600)
    there = world(victim, Item("postgres", "starting", budget=600))
    error = there.failing(timeout=10)
    assert error.code == "WAIT_TIMEOUT"
    assert error.what == "postgres was not ready within 10 s"
    assert there.elapsed == 10.25


def test_a_budget_wins_over_a_longer_overall_limit() -> None:
    there = world(Item("postgres", "starting", budget=5))
    assert there.failing(timeout=100).what == "postgres was not ready within 5.2 s"


# --- what is said meanwhile


def test_a_heartbeat_names_the_blocker_and_how_long_it_has_taken() -> None:
    victim = Item("mlflow", "waiting", "waits for postgres", needs=("postgres",))
    there = world(victim, Item("postgres", "starting", "the database system is starting up"), ready_after=40)
    there.wait()
    beats = [line for line in there.said.err.splitlines() if "still waiting" in line]
    assert len(beats) == int(40 // (HEARTBEAT + 0.25))
    assert beats[0] == "  still waiting for postgres (15 s): the database system is starting up"


def test_a_change_puts_the_heartbeat_off() -> None:
    def states(now: float) -> Sequence[Item]:
        first = READY if now >= 10 else "starting"
        return [Item("redis", first), Item("postgres", READY if now >= 24 else "starting")]

    there = World(console(), states)
    there.wait()
    assert "still waiting" not in there.said.err


# --- the log of the culprit


def test_the_last_twenty_lines_of_the_log_come_with_the_error(tmp_path: Path) -> None:
    log = tmp_path / "postgres.log"
    log.write_text("".join(f"line {n}\n\n" for n in range(100)))
    error = world(Item("postgres", FAILED, log=log)).failing()
    assert error.details["log"] == [f"line {n}" for n in range(80, 100)]
    assert error.details["path"] == str(log)


def test_lines_of_a_log_cannot_harm_the_terminal(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    log.write_bytes(b"\x1b[31mred\x1b[0m\x07\ttab \xff\xfe\n" + b"x" * 1000 + b"\n")
    red, long = last_lines(log)
    assert red == "[31mred[0m\ttab \ufffd\ufffd"
    assert len(long) == 400


def test_only_the_end_of_a_large_log_is_read(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    log.write_text("".join(f"{n:09}\n" for n in range(200_000)))
    assert last_lines(log, 2) == ["000199998", "000199999"]


@pytest.mark.parametrize("name", [None, "missing.log", "."])
def test_a_log_that_is_not_there_gives_no_lines(tmp_path: Path, name: str | None) -> None:
    assert last_lines(tmp_path / name if name else None) == []


# --- who is to blame


@pytest.mark.parametrize(
    ("items", "blamed"),
    [
        ([Item("a", "starting"), Item("b", FAILED)], "b"),
        ([Item("a", "waiting", needs=("b",)), Item("b", "starting")], "b"),
        ([Item("a", "waiting", needs=("b",)), Item("b", "waiting", needs=("c",)), Item("c", "backoff")], "c"),
        ([Item("a", READY), Item("b", "starting", needs=("a",))], "b"),
        ([Item("a", "waiting", needs=("b",)), Item("b", "waiting", needs=("a",))], "a"),
        ([Item("a", FAILED, needs=("b",)), Item("b", FAILED)], "b"),
        ([Item("a", READY)], "a"),
    ],
)
def test_the_first_one_whose_own_needs_are_met_is_the_culprit(items: list[Item], blamed: str) -> None:
    assert culprit(items).name == blamed


# --- on a terminal


@pytest.fixture
def _terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", Stream(tty=True))


def rendered(items: Sequence[Item], said: Said) -> str:
    from rich.console import Console as Terminal

    screen = io.StringIO()
    began = {i.name: START for i in items}
    Terminal(file=screen, width=120).print(live_table(items, began, START + 12, said))
    return screen.getvalue()


def test_the_table_shows_state_time_and_what_is_waited_for() -> None:
    items = [Item("redis", READY, "old detail"), Item("mlflow", "waiting", "waits for [postgres]"), Item("x", FAILED)]
    redis, mlflow, failed = rendered(items, console()).splitlines()
    assert redis.split() == ["✓", "redis", "ready"]
    assert mlflow.split() == ["·", "mlflow", "waiting", "12", "s", "waits", "for", "[postgres]"]
    assert failed.split()[:3] == ["✗", "x", "failed"]


def test_the_table_has_plain_symbols_where_the_stream_is_not_utf8() -> None:
    assert rendered([Item("redis", READY)], console(encoding="cp1252")).split() == ["+", "redis", "ready"]


@pytest.mark.parametrize("detail", ["[/]", "[bold", "got '[red]x[/red]'", "[/nothing]"])
def test_details_are_text_and_no_markup(detail: str) -> None:
    assert detail in rendered([Item("redis", "starting", detail)], console())


@pytest.mark.usefixtures("_terminal")
def test_a_terminal_gets_the_live_table_and_one_line_at_the_end() -> None:
    there = world(Item("redis", "starting"), Item("postgres", "starting"), ready_after=1)
    there.said = console(tty=True)
    there.wait()
    assert there.said.out == ""
    assert "redis, postgres: ready" in there.said.err


@pytest.mark.usefixtures("_terminal")
def test_a_terminal_gets_the_same_error() -> None:
    there = world(Item("redis", FAILED, "why"))
    there.said = console(tty=True)
    assert there.failing().code == "SERVICE_FAILED"
    assert "ready" not in there.said.err.splitlines()[-1]


def test_the_states_that_are_no_news_are_real_states() -> None:
    assert set(waiting.QUIET) == {"waiting", "starting"}
