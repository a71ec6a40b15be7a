"""What follows something ends with its reader: real pipes, a real process."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from infra.settings import ROOT

pytestmark = pytest.mark.skipif(os.name == "nt", reason="a closed pipe is found out by writing on Windows")

FOLLOWS = """
import sys, time
from infra.readers import following
with following(sys.stdout):
    print("one", flush=True)
    {body}
print("after", file=sys.stderr, flush=True)
sys.stdin.read()
print("still here", file=sys.stderr)
"""
WAITS = "time.sleep(600)"


def started(body: str) -> subprocess.Popen[str]:
    """A program that follows something for its stdout."""
    argv = [sys.executable, "-c", FOLLOWS.format(body=body)]
    pipe = subprocess.PIPE
    return subprocess.Popen(argv, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe, text=True, encoding="utf-8")


@pytest.mark.parametrize("body", [WAITS, "import queue; queue.Queue().get()"])
def test_it_ends_when_its_reader_goes_although_nothing_more_is_written(body: str) -> None:
    with started(body) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        assert child.stdout.readline() == "one\n"
        child.stdout.close()
        assert child.wait(60) == 0
        assert child.stderr.read() == ""


def test_ctrl_c_is_the_usual_end() -> None:
    with started(WAITS) as child:
        assert child.stdout is not None
        child.stdout.readline()
        child.send_signal(2)
        assert child.wait(60) == 130


def test_a_block_that_ends_by_itself_goes_on_and_is_not_interrupted_later() -> None:
    with started("pass") as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stderr is not None
        assert child.stderr.readline() == "after\n"
        child.stdout.close()
        child.stdin.close()
        assert child.wait(60) == 0
        assert child.stderr.read() == "still here\n"
