"""Lines of log files: whole, in little memory, also while they are written."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest

from infra import loglines
from infra.loglines import CHUNK, LONGEST, Follower

CUT = "... (a line that is too long to show)"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


def test_the_last_lines(log: Path) -> None:
    log.write_bytes("one\ntwo\u2028still two\nthree \xff\nno end".encode("latin-1", "replace"))
    assert loglines.last(log, 2) == ["three \ufffd", "no end"]
    assert len(loglines.last(log, 0)) == 4
    assert loglines.last(log.with_name("none"), 5) == []


def test_a_line_that_is_too_long_is_cut_and_says_so(log: Path) -> None:
    log.write_bytes(b"before\n" + b"x" * (8 * CHUNK) + b"\nafter\n" + b"y" * LONGEST + b"\nlast")
    tracemalloc.start()
    before, cut, after, longest, last = loglines.last(log, 0)
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
