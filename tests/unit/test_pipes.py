from __future__ import annotations

import sys

import pytest

from infra import pipes
from infra.errors import PlatformError

WRITES = [sys.executable, "-c", "import sys; sys.stdout.buffer.write(bytes(300_000))"]
COUNTS = [sys.executable, "-c", "import sys; print(len(sys.stdin.buffer.read()))"]


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_what_one_writes_the_other_reads() -> None:
    done = pipes.run(WRITES, COUNTS, limit=30)
    assert (done.code, done.out.strip()) == (0, "300000")


def test_a_reader_that_fails_is_what_is_told_and_the_writer_ends() -> None:
    endless = python("import sys\nwhile True: sys.stdout.buffer.write(bytes(1000))")
    done = pipes.run(endless, python("raise SystemExit('no room')"), limit=30)
    assert (done.code, done.last_line) == (1, "no room")


def test_a_writer_that_fails_is_what_is_told_although_the_reader_was_content() -> None:
    done = pipes.run(python("raise SystemExit('no such image')"), COUNTS, limit=30)
    assert (done.code, done.last_line) == (1, "no such image")


def test_both_end_when_the_time_is_over() -> None:
    done = pipes.run(python("import time; time.sleep(60)"), COUNTS, limit=0.5)
    assert done.code != 0


@pytest.mark.parametrize("argv", [(["no-such-program"], COUNTS), (WRITES, ["no-such-program"])])
def test_a_program_that_is_not_there(argv: tuple[list[str], list[str]]) -> None:
    with pytest.raises(PlatformError) as caught:
        pipes.run(*argv, limit=30)
    assert caught.value.code == "PROGRAM_MISSING"
