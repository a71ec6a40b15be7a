"""Lines of log files: whole, in little memory, also while they are written."""

from __future__ import annotations

import itertools
import os
import re
import time
import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from infra import loglines
from infra.loglines import CHUNK, LONGEST, Follower, LogQuery
from infra.tiers.native import logs as native_logs

CUT = "... (a line that is too long to show)"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


def test_the_last_lines(log: Path) -> None:
    log.write_bytes("one\ntwo\u2028still two\nthree \xff\nno end".encode("latin-1", "replace"))
    assert list(loglines.last([log], LogQuery(2))) == ["three \ufffd", "no end"]
    assert len(list(loglines.last([log], LogQuery(0)))) == 4
    assert list(loglines.last([log.with_name("none")], LogQuery(5))) == []


def test_a_line_that_is_too_long_is_cut_and_says_so(log: Path) -> None:
    log.write_bytes(b"before\n" + b"x" * (8 * CHUNK) + b"\nafter\n" + b"y" * LONGEST + b"\nlast")
    tracemalloc.start()
    before, cut, after, longest, last = list(loglines.last([log], LogQuery(0)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (before, after, last) == ("before", "after", "last")
    assert cut == f"{'x' * LONGEST} {CUT}"
    assert longest == "y" * LONGEST
    assert peak < 2 * CHUNK


def test_new_lines_are_given_once_and_whole(log: Path) -> None:
    log.write_bytes(b"old\n")
    follower = Follower(log)
    assert follower.news() == []
    with open(log, "ab") as file:
        file.write(b"one\ntw")
        file.flush()
        assert follower.news() == ["one"]
        file.write(b"o\nthree\n")
        file.flush()
        assert follower.news() == ["two", "three"]
    log.write_bytes(b"emptied\n")
    assert follower.news() == ["emptied"]
    log.unlink()
    assert follower.news() == []


def test_a_line_without_an_end_is_shown_once(log: Path) -> None:
    log.write_bytes(b"")
    follower = Follower(log)
    with open(log, "ab") as file:
        for _ in range(5):
            file.write(b"x" * CHUNK)
        file.write(b"\nafter\n")
    found = [line for _ in range(8) for line in follower.news()]
    assert found == [f"{'x' * LONGEST} {CUT}", "after"]


def test_from_a_place_in_the_file(log: Path) -> None:
    log.write_bytes(b"one\ntwo\n")
    assert Follower(log, 4).news() == ["two"]


# --- times, patterns, rotated files

AT = datetime(2026, 11, 30, 8, 51, 19, 47_000, tzinfo=UTC).timestamp()


@pytest.fixture(params=["UTC0", "KST-9", "EST5"])
def _zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This machine somewhere else."""
    if not hasattr(time, "tzset"):
        pytest.skip("the zone of a process cannot be set here")
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    "line",
    [
        "2026-11-30 08:51:19.047 UTC [13235] LOG:  starting PostgreSQL 18.6",
        '{"level":"warn","ts":"2026-11-30T08:51:19.047Z","msg":"x"}',
        '{"time":"2026-11-30T17:51:19.047+09:00","level":"WARN"}',
        "2026-11-30T03:21:19.0470000-05:30 x",
    ],
)
@pytest.mark.usefixtures("_zone")
def test_a_time_with_a_zone_is_the_same_everywhere(line: str) -> None:
    assert loglines.moment(line, AT) == pytest.approx(AT)


@pytest.mark.parametrize(
    "form",
    [
        "%Y/%m/%d %H:%M:%S INFO mlflow.store.db.utils: Updating",
        "13189:M %d Nov %Y %H:%M:%S.000 # WARNING",
        "I%m%d %H:%M:%S.000000 master.go:400 current",
        "%Y-%m-%d %H:%M:%S.000 KST [1] LOG:  x",
    ],
)
@pytest.mark.usefixtures("_zone")
def test_a_time_without_a_zone_is_this_machines(form: str) -> None:
    whole = float(int(AT))
    assert loglines.moment(time.strftime(form, time.localtime(whole)), AT) == whole


def test_a_year_that_is_not_written_is_the_last_one() -> None:
    new_year = datetime(2026, 1, 1, 0, 0, 5).timestamp()
    assert loglines.moment("W1231 23:59:59.000000 x", new_year) == datetime(2025, 12, 31, 23, 59, 59).timestamp()
    assert loglines.moment("W0101 00:00:01.000000 x", new_year) == datetime(2026, 1, 1, 0, 0, 1).timestamp()


@pytest.mark.parametrize("line", ["", "Temporal CLI 1.9.1", "2026-13-45 99:99:99 x", "I9999 08:51:19 x"])
def test_a_line_without_a_time_has_none(line: str) -> None:
    assert loglines.moment(line, AT) is None


def test_lines_since_a_time_with_those_that_belong_to_them() -> None:
    lines = ["banner", "2026-11-30 08:00:00 UTC old", "  detail", "2026-11-30 08:51:20 UTC new", "  detail"]
    assert list(loglines.since(lines, AT, AT + 60)) == ["banner", *lines[3:]]
    assert list(loglines.since(lines, AT, AT - 1)) == [], "nothing was written since"
    assert list(loglines.since(lines, None, 0)) == lines


def test_the_last_lines_come_from_rotated_files_as_well(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("redis.log", "redis.log.1", "redis.log.2")]
    for path, text in zip(files, ("e ERROR\nf\n", "c\nd error\n", "a error\nb\n"), strict=True):
        path.write_text(text)
    assert list(loglines.last(files, LogQuery(3))) == ["d error", "e ERROR", "f"]
    assert list(loglines.last(files, LogQuery(0))) == ["a error", "b", "c", "d error", "e ERROR", "f"]
    query = LogQuery(2, pattern=re.compile("error", re.IGNORECASE))
    assert list(loglines.last(files, query)) == ["d error", "e ERROR"]
    os.utime(files[2], (AT, AT))
    os.utime(files[1], (AT, AT))
    assert list(loglines.last(files, LogQuery(0, since=AT + 1))) == ["e ERROR", "f"]


@pytest.mark.parametrize(
    ("text", "ago"), [("90s", 90), ("10m", 600), ("1.5h", 5400), ("2d", 172_800), ("2026-11-30T08:51:19.047+00:00", 0)]
)
def test_what_a_user_means(text: str, ago: float) -> None:
    assert loglines.earliest(text, AT) == pytest.approx(AT - ago)


@pytest.mark.parametrize("text", ["", "10", "yesterday", "10w", "-5m", "10m ago"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        loglines.earliest(text, AT)


def test_lines_beyond_the_place_from_which_a_log_is_followed_are_left_to_the_follower(log: Path) -> None:
    log.write_bytes(b"one\ntwo\n")
    follower = Follower(log)
    with log.open("ab") as file:
        file.write(b"three\n")
    for tail in (0, 9):
        assert list(loglines.last([log], LogQuery(tail), follower.position)) == ["one", "two"]
    assert follower.news() == ["three"]


def test_all_lines_are_not_held_in_memory(log: Path) -> None:
    log.write_bytes(b"x" * 1000 + b"\n" + b"a line\n" * 1_000_000)
    tracemalloc.start()
    try:
        assert sum(1 for _ in loglines.last([log], LogQuery(0))) == 1_000_001
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_a_service_that_starts_later_is_followed_from_its_first_line(tmp_path: Path) -> None:
    (tmp_path / "one.log").write_text("old\n")
    found = native_logs.lines(tmp_path, (), LogQuery(1, follow=True))
    assert next(found).text == "old"
    (tmp_path / "two.log").write_text("first\nsecond\n")
    assert [(line.service, line.text) for line in itertools.islice(found, 2)] == [("two", "first"), ("two", "second")]
