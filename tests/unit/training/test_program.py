from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from infra.supervision import process
from infra.training import program
from infra.training.program import Tail, TrainingProgram
from infra.training.report import LONGEST_LINE

# Starts a child of its own, says its pid and waits.
PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print("child", child.pid, flush=True)
time.sleep(600)
"""
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('here', flush=True); time.sleep(600)"
)


class Enough(Exception):
    """The reason to stop."""


def plan(tmp_path: Path, code: str) -> TrainingProgram:
    env = dict(os.environ)
    return TrainingProgram([sys.executable, "-c", code], tmp_path, env, tmp_path / "job.log", tmp_path / "job.pid.json")


def until(lines: list[str], word: str) -> Callable[[], None]:
    """A beat that stops the program once a line with that word has come."""

    def beat() -> None:
        if any(word in line for line in lines):
            raise Enough

    return beat


def started(pid: int) -> float:
    found = process.identify(pid)
    assert found
    return found.create_time


def gone(pid: int) -> bool:
    end = time.monotonic() + 5
    while psutil.pid_exists(pid) and time.monotonic() < end:
        if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.02)
    return not psutil.pid_exists(pid)


def test_lines_and_exit_status(tmp_path: Path) -> None:
    lines: list[str] = []
    code = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"
    wanted = plan(tmp_path, code)
    assert program.run(wanted, lines.append, lambda: None) == 3
    assert sorted(lines) == ["err", "out"]
    assert sorted(program.last_lines(wanted.log)) == ["err", "out"]
    assert not wanted.pid_file.exists()


def test_the_whole_environment_is_the_given_one(tmp_path: Path) -> None:
    lines: list[str] = []
    env = {k: v for k, v in os.environ.items() if k in ("SYSTEMROOT", "UNIT_TESTS_RUN")} | {"ONLY": "this"}
    wanted = TrainingProgram(
        [sys.executable, "-c", "import os; print(os.environ['ONLY'], 'HOME' in os.environ)"],
        tmp_path,
        env,
        tmp_path / "log",
        tmp_path / "pid",
    )
    assert program.run(wanted, lines.append, lambda: None) == 0
    assert lines == ["this False"]


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    wanted = TrainingProgram(["./nothing"], tmp_path, dict(os.environ), tmp_path / "log", tmp_path / "pid")
    with pytest.raises(FileNotFoundError):
        program.run(wanted, print, lambda: None)


def test_stopping_ends_the_whole_tree(tmp_path: Path) -> None:
    lines: list[str] = []
    with pytest.raises(Enough):
        program.run(plan(tmp_path, PARENT), lines.append, until(lines, "child"))
    assert gone(int(lines[0].split()[1]))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM that could be ignored")
def test_a_program_that_will_not_stop_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "GRACE", 0.3)
    lines: list[str] = []
    began = time.monotonic()
    with pytest.raises(Enough):
        program.run(plan(tmp_path, STUBBORN), lines.append, until(lines, "here"))
    assert time.monotonic() - began < 8


def test_children_that_outlive_the_program_are_ended(tmp_path: Path) -> None:
    lines: list[str] = []
    code = PARENT.replace("time.sleep(600)\n", "time.sleep(1.5)\n")
    assert program.run(plan(tmp_path, code), lines.append, lambda: None) == 0
    assert gone(int(lines[0].split()[1]))


def test_a_child_in_a_session_of_its_own_is_ended_though_its_parent_was_gone_at_once(tmp_path: Path) -> None:
    apart = "stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True"
    code = PARENT.replace('600)"])', f'600)"], {apart})').removesuffix("time.sleep(600)\n")
    lines: list[str] = []
    assert program.run(plan(tmp_path, code), lines.append, lambda: None) == 0
    assert gone(int(lines[0].split()[1]))


def test_what_an_earlier_try_left_is_ended_first(tmp_path: Path) -> None:
    left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    pid_file = tmp_path / "job.pid.json"
    pid_file.write_text(json.dumps({"processes": [[left.pid, started(left.pid)]]}))
    assert program.run(plan(tmp_path, "pass"), print, lambda: None) == 0
    assert gone(left.pid)
    left.wait(timeout=5)


def test_a_recycled_pid_is_left_alone(tmp_path: Path) -> None:
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    pid_file = tmp_path / "job.pid.json"
    pid_file.write_text(json.dumps({"processes": [[stranger.pid, started(stranger.pid) - 100]]}))
    try:
        assert program.end_stale(pid_file) == 0
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_tail_gives_whole_lines_only(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"old\n")
    tail = Tail(path, 4)
    with open(path, "ab") as file:
        file.write(b"one\r\ntw")
        file.flush()
        assert (tail.read(), list(tail.lines())) == (True, ["one"])
        file.write(b"o\n\xff\n")
        file.flush()
        assert (tail.read(), list(tail.lines())) == (True, ["two", "�"])
        assert (tail.read(), list(tail.lines())) == (False, [])


def test_a_line_that_is_too_long_is_passed_over_in_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "log"
    size = 8 * program._CHUNK
    path.write_bytes(b"before\n" + b"x" * size + b"\nafter\n" + b"y" * 100_000 + b"\nlast\n")
    tail, lines = Tail(path), list[str]()
    while tail.read():
        lines += tail.lines()
        assert len(tail._rest) <= LONGEST_LINE
    assert lines == ["before", "after", "last"]


def test_signs_of_life_go_on_while_more_is_printed_than_can_be_read(tmp_path: Path) -> None:
    beats: list[int] = []
    lines: list[str] = []
    code = "import sys; sys.stdout.write('a line\\n' * 1_500_000)"
    assert program.run(plan(tmp_path, code), lines.append, lambda: beats.append(len(lines))) == 0
    assert len(lines) == 1_500_000
    assert max(b - a for a, b in zip([0, *beats], beats, strict=False)) <= program._CHUNK // 7 + 1


def test_last_lines_look_back_to_the_start_of_the_try(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("before\n" + "".join(f"{i}\n\n" for i in range(30)))
    assert program.last_lines(path, len("before\n")) == [str(i) for i in range(10, 30)]
    assert program.last_lines(path, 10**6) == []
    assert program.last_lines(tmp_path / "none") == []
