"""What a training prints never stops the platform: odd numbers and names, a flood, a line without an end."""

from __future__ import annotations

import contextlib
import math
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from infra.training.jobs import Jobs
from tests.faults.conftest import WORKER, Victim
from tests.faults.training.tools import Training, start
from tests.smoke.platform import PYTHON

ODD = r"""
import json
print('{"epoch": 1, "metrics": {"big": ' + "9" * 400 + ', "ok": 1}}')
for name in ("a\0b", "\ud800", "x" * 9000, "", "a\nb", "\x1b[2J", "ok2"):
    print(json.dumps({"epoch": 2, "metrics": {name: 2}}))
print('{"epoch": 3, "epochs": 3, "metrics": {"loss": NaN, "up": Infinity, "ok": 3}}')
print("{" * 60000)
print('{"epoch": ' + "9" * 5000 + "}")
print("\0\x9b2J\x1b]0;title\x07")
"""
FLOOD = """
for i in range(1, 200_001):
    print('{"epoch": %d, "epochs": 200000, "metrics": {"loss": %f}}' % (i, 1 / i))
"""
ENDLESS = """
import sys
for _ in range(150):
    sys.stdout.write("x" * 1_000_000)
print()
print('{"epoch": 7, "metrics": {"after": 1}}')
"""


@pytest.fixture(scope="module")
def worker(platform: Victim) -> Iterator[Victim]:
    """A platform with a worker, which the tests must leave alive."""
    platform.invoke("train.run", "--command", f"{PYTHON} -c pass", check=True)
    before = platform.pid(WORKER)
    yield platform
    assert platform.pid(WORKER) == before


def printing(worker: Victim, tmp_path: Path, code: str) -> Training:
    path = tmp_path / "prints.py"
    path.write_text(code)
    return start(worker, "--command", f'"{sys.executable}" "{path}"')


def metrics(training: Training) -> dict[tuple[int, str], float]:
    with contextlib.closing(Jobs(training.contract)) as jobs:
        return {(m.epoch, m.name): m.value for m in jobs.metrics(training.id)}


def test_odd_lines_are_log_lines(worker: Victim, tmp_path: Path) -> None:
    training = printing(worker, tmp_path, ODD)
    job = training.until_final()
    assert (job.state, job.attempt, job.error) == ("succeeded", 1, None)
    found = metrics(training)
    assert math.isnan(found.pop((3, "loss")))
    assert found == {(1, "ok"): 1.0, (2, "ok2"): 2.0, (3, "up"): math.inf, (3, "ok"): 3.0}
    shown = worker.stage.data("train.show", training.id)
    assert shown["metrics"] == {"loss": "NaN", "up": "Infinity", "ok": 3.0}


def test_what_it_prints_reaches_no_terminal_as_it_is(worker: Victim, tmp_path: Path) -> None:
    printing(worker, tmp_path, f"{ODD}\nraise SystemExit(3)").until_final()
    path = tmp_path / "prints.py"
    done = worker.invoke("train.run", "--command", f'"{sys.executable}" "{path}"')
    assert done.returncode == 1
    assert "\\u001b]0;title" in done.stderr
    shown = worker.invoke("train.list").stdout + worker.invoke("logs", "--tail", "0").stdout
    assert not {"\x1b", "\x9b", "\x07", "\0"} & set(done.stderr + done.stdout + shown)


@pytest.mark.skipif(sys.platform == "win32", reason="modes of POSIX")
def test_logs_are_private(worker: Victim) -> None:
    logs = [path for path in worker.stack_home.rglob("*.log*") if path.is_file()]
    assert {"worker.log", "supervisor.log", "postgres.log"} <= {path.name for path in logs}
    assert [path for path in logs if stat.S_IMODE(path.stat().st_mode) & 0o077] == []
    assert stat.S_IMODE((worker.stack_home / "training" / "jobs").stat().st_mode) == 0o700


def test_a_flood_costs_no_try(worker: Victim, tmp_path: Path) -> None:
    training = printing(worker, tmp_path, FLOOD)
    job = training.until_final()
    assert (job.state, job.attempt, job.epoch, job.epochs) == ("succeeded", 1, 200_000, 200_000)
    assert len(metrics(training)) == 200_000


def test_a_line_without_an_end_fills_no_memory(worker: Victim, tmp_path: Path) -> None:
    process = psutil.Process(worker.pid(WORKER))
    before = most = process.memory_info().rss
    training = printing(worker, tmp_path, ENDLESS)
    while not training.row().final:
        most = max(most, process.memory_info().rss)
    assert training.row().state == "succeeded"
    assert metrics(training) == {(7, "after"): 1.0}
    assert most - before < 60_000_000
