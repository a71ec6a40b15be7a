from __future__ import annotations

import sys

import pytest

from infra import pipes
from infra.errors import PlatformError
from infra.shell import Result

WRITES = [sys.executable, "-c", "import sys; sys.stdout.buffer.write(bytes(300_000))"]
COUNTS = [sys.executable, "-c", "import sys; print(len(sys.stdin.buffer.read()))"]


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def run(source: list[str], target: list[str], limit: float = 30.0) -> Result:
    return pipes.start(source, target).result(limit)


def test_what_one_writes_the_other_reads() -> None:
    done = run(WRITES, COUNTS)
    assert (done.code, done.out.strip()) == (0, "300000")


def test_a_reader_that_fails_is_what_is_told_and_the_writer_ends() -> None:
    endless = python("import sys\nwhile True: sys.stdout.buffer.write(bytes(1000))")
    done = run(endless, python("raise SystemExit('no room')"))
    assert (done.code, done.last_line) == (1, "no room")


def test_a_writer_that_fails_is_what_is_told_although_the_reader_was_content() -> None:
    done = run(python("raise SystemExit('no such image')"), COUNTS)
    assert (done.code, done.last_line) == (1, "no such image")


def test_both_end_when_the_time_is_over() -> None:
    done = run(python("import time; time.sleep(60)"), COUNTS, limit=0.5)
    assert done.code != 0


@pytest.mark.parametrize("argv", [(["no-such-program"], COUNTS), (WRITES, ["no-such-program"])])
def test_a_program_that_is_not_there(argv: tuple[list[str], list[str]]) -> None:
    with pytest.raises(PlatformError) as caught:
        run(*argv)
    assert caught.value.code == "PROGRAM_MISSING"


def test_what_nobody_waits_for_is_ended_at_once() -> None:
    sleeper = python("import time; time.sleep(60)")
    pipe = pipes.start(sleeper, COUNTS)
    pipe.stop()
    assert pipe.writer.poll() is not None
    assert pipe.reader.poll() is not None
