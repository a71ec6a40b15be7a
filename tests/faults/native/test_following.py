"""Logs that are followed while things happen to them: a restart, a flood, a reader that goes, a worker that dies."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from infra.settings import ROOT
from tests.faults.conftest import WORKER, Victim
from tests.faults.training.tools import Training, start, until
from tests.smoke.platform import PYTHON
from tests.smoke.stage import GONE, HANG
from tests.terminal import on_terminal

FLOOD = 200_000_000
"""Bytes of a log."""
ROOM = 80_000_000
"""Bytes that a reader of it may take more than one that reads a few lines: buffers, not the log."""
COUNTS = """
import os, pathlib, sys, time
for number in range(10_000):
    print("line", number, "of", os.getpid(), flush=True)
    if pathlib.Path(sys.argv[1]).exists():
        break
    time.sleep(0.1)
"""
FLOODS = """
line = "x" * 999
for _ in range({count}):
    print(line)
print("the end")
"""


class Reader:
    """A task that runs in the background; what it prints goes to a file."""

    def __init__(self, victim: Victim, out: Path, *words: str) -> None:
        self.out = out
        argv = [sys.executable, "-m", "invoke", *words]
        with out.open("wb") as file:
            self.process = subprocess.Popen(
                argv, cwd=ROOT, env=victim.env, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT
            )

    @property
    def said(self) -> str:
        """Everything so far."""
        return self.out.read_text(encoding="utf-8", errors="replace")

    def until(self, seen: Callable[[str], bool], what: str) -> None:
        """Wait until it has printed something; fails when it ends before."""

        def there() -> bool:
            alive = self.process.poll() is None
            return seen(self.said) or not alive

        until(there, what)
        assert seen(self.said), f"{what}: it ended with {self.process.poll()}: {self.said[-2000:]}"


@pytest.fixture
def reading(platform: Victim, tmp_path: Path) -> Iterator[Callable[..., Reader]]:
    """Starts readers; they are gone at the end."""
    made: list[Reader] = []

    def one(*words: str) -> Reader:
        made.append(Reader(platform, tmp_path / f"out{len(made)}", *words))
        return made[-1]

    yield one
    for reader in made:
        with contextlib.suppress(ProcessLookupError):
            reader.process.kill()
        reader.process.wait(GONE)


@pytest.fixture
def counting(platform: Victim, tmp_path: Path) -> Iterator[tuple[Training, Path]]:
    """A training that counts until a file is there."""
    program, enough = tmp_path / "counts.py", tmp_path / "enough"
    program.write_text(COUNTS)
    found = start(platform, "--command", shlex.join([PYTHON, str(program), str(enough)]))
    yield found, enough
    enough.touch()
    platform.invoke("train.cancel", found.id)


def programs(said: str) -> set[str]:
    """The processes whose lines were printed."""
    return set(re.findall(r"^line \d+ of (\d+)$", said, re.MULTILINE))


def test_logs_are_followed_across_a_restart_of_the_service(platform: Victim, reading: Callable[..., Reader]) -> None:
    reader = reading("logs", "-f", "redis", "--tail", "1")
    reader.until(bool, "a first line")
    platform.invoke("restart", "-s", "redis", check=True)
    reader.until(lambda said: "Ready to accept connections" in said, "lines of the new process")
    again = reader.said.count("Ready to accept connections")
    platform.invoke("down", check=True)
    platform.up()
    reader.until(lambda said: said.count("Ready to accept connections") > again, "lines after down and up")
    reader.process.send_signal(signal.SIGINT)
    assert reader.process.wait(GONE) == 130
    assert "Traceback" not in reader.said


def test_a_worker_that_is_killed_is_no_end_of_what_is_followed(
    platform: Victim, reading: Callable[..., Reader], counting: tuple[Training, Path]
) -> None:
    training, enough = counting
    attached = reading("train.attach", training.id)
    logs = reading("train.logs", training.id, "-f")
    for reader in (attached, logs):
        reader.until(lambda said: bool(programs(said)), "a first line")
    platform.kill(WORKER)
    for reader in (attached, logs):
        reader.until(lambda said: len(programs(said)) > 1, "lines of the program that begins again")
    enough.touch()
    assert attached.process.wait(HANG) == 0, attached.said
    assert logs.process.wait(HANG) == 0, logs.said
    assert training.row().state == "succeeded"
    assert "Traceback" not in attached.said + logs.said


def test_a_reader_that_goes_ends_quietly_and_the_training_goes_on(
    platform: Victim, counting: tuple[Training, Path]
) -> None:
    training, _ = counting
    training.until_log("line 3 of")
    for task in (f"train.logs {training.id} -f", "logs -f temporal"):
        line = f"{shlex.quote(sys.executable)} -m invoke {task} | head -n 1"
        argv = ["sh", "-c", line]
        done = subprocess.run(
            argv, cwd=ROOT, env=platform.env, capture_output=True, encoding="utf-8", check=False, timeout=HANG
        )
        assert (len(done.stdout.splitlines()), done.stderr) == (1, ""), task
    assert training.row().state == "running"


def test_a_closed_terminal_ends_the_watching_alone(platform: Victim, counting: tuple[Training, Path]) -> None:
    training, _ = counting
    argv = [sys.executable, "-m", "invoke", "train.attach", training.id]
    with on_terminal(argv, ROOT, platform.env, 80) as session:
        session.until(lambda drawn: "line " in drawn)
        session.hang_up()
        session.process.wait(GONE)
    before = training.log()
    until(lambda: len(training.log()) > len(before), "the training to go on")
    assert training.row().state == "running"


def highest(victim: Victim, *words: str) -> int:
    """The most memory that a task takes, in bytes; its output is read and thrown away."""
    argv = [sys.executable, "-m", "invoke", *words]
    most, process = 0, subprocess.Popen(argv, cwd=ROOT, env=victim.env, stdout=subprocess.DEVNULL)
    watched = psutil.Process(process.pid)
    while process.poll() is None:
        with contextlib.suppress(psutil.Error):
            most = max(most, watched.memory_info().rss)
        time.sleep(0.02)
    assert process.returncode == 0
    return most


def test_a_log_of_200_mb_is_read_in_little_memory(platform: Victim, tmp_path: Path) -> None:
    program = tmp_path / "floods.py"
    program.write_text(FLOODS.format(count=FLOOD // 1000))
    small = platform.invoke(
        "train.run", "--command", f"{PYTHON} -c 'print(1)'", "-o", "name", check=True
    ).stdout.strip()
    before = highest(platform, "train.logs", small)
    command = shlex.join([PYTHON, str(program)])
    whole = highest(platform, "train.run", "--command", command)
    log = max((platform.stack_home / "training" / "jobs").glob("*.log"), key=os.path.getmtime)
    assert log.stat().st_size > FLOOD
    assert whole < before + ROOM, "watched while it floods"
    for words in (("--tail", "3"), (), ("-f",)):
        assert highest(platform, "train.logs", "latest", *words) < before + ROOM, words
    done = platform.invoke("train.logs", "latest", "--tail", "2", check=True)
    assert done.stdout.splitlines()[-1] == "the end" or "the end" in done.stdout
    service = platform.stack_home / "native" / "logs" / "redis.log"
    with service.open("ab") as file:
        file.writelines(b"y" * 999 + b"\n" for _ in range(FLOOD // 1000))
    for options in (["--tail", "0"], ["--tail", "5"], ["--grep", "y$", "--tail", "2"]):
        assert highest(platform, "logs", "redis", *options) < before + ROOM, options
