"""Sweeps on a real platform: some trainings at a time, the best first, and none lost."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from pathlib import Path

import pytest

from infra.training.jobs import Job, Jobs
from tests.faults.conftest import WORKER, Victim
from tests.faults.training.tools import Training, processes_with, until

PROGRAM = """
import json, pathlib, sys, time
lr, place = float(sys.argv[1]), pathlib.Path(__file__).parent
if lr < 0:
    sys.exit("no such rate")
print(json.dumps({"epoch": 1, "metrics": {"loss": (lr - 0.1) ** 2}}), flush=True)
while (place / "wait").exists():
    time.sleep(0.05)
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "tuned.py"
    path.write_text(PROGRAM)
    return path


def begin(platform: Victim, program: Path, rates: str, *more: str) -> Training:
    command = f'"{sys.executable}" "{program}" {{lr}}'
    order = ("--command", command, "--grid", f"lr={rates}", "--metric", "loss", *more)
    done = platform.invoke("train.sweep", "--detach", "--output", "name", *order, check=True)
    return Training(platform, done.stdout.strip())


def trials(sweep: Training) -> list[Job]:
    with contextlib.closing(Jobs(sweep.contract)) as jobs:
        return jobs.trials(sweep.id)


def test_a_sweep_lists_the_best_first_and_one_that_fails_harms_no_other(platform: Victim, program: Path) -> None:
    command = f'"{sys.executable}" "{program}" {{lr}}'
    order = ("--command", command, "--grid", "lr=1,-1,0.1,0.5", "--metric", "loss", "--json")
    done = platform.invoke("train.sweep", *order, check=True)
    data = json.loads(done.stdout)["data"]
    found = [(row["values"]["lr"], row["state"]) for row in data["trainings"]]
    assert found == [("0.1", "succeeded"), ("0.5", "succeeded"), ("1", "succeeded"), ("-1", "failed")]
    assert (data["state"], data["goal"], data["trainings"][0]["value"]) == ("succeeded", "min", 0)
    shown = platform.stage.data("train.show", data["job"])
    assert shown["trainings"] == data["trainings"]


def test_no_more_run_than_are_wanted_and_the_rest_waits(platform: Victim, program: Path) -> None:
    wait = program.parent / "wait"
    wait.touch()
    sweep = begin(platform, program, "1,2,3", "--parallel", "1")
    until(lambda: any(t.epoch for t in trials(sweep)), "a training to run")
    time.sleep(2)  # for another one to begin, if it would
    assert sorted(t.state for t in trials(sweep)) == ["queued", "queued", "running"]
    waiting = next(t for t in trials(sweep) if t.state == "queued")
    assert platform.stage.data("train.show", waiting.id)["state"] == "queued"
    platform.invoke("train.cancel", waiting.id, check=True)
    wait.unlink()
    assert sweep.until_final().state == "succeeded"
    assert sorted(t.state for t in trials(sweep)) == ["cancelled", "succeeded", "succeeded"]


def test_cancel_of_a_sweep_ends_all_its_trainings(platform: Victim, program: Path) -> None:
    (program.parent / "wait").touch()
    sweep = begin(platform, program, "1,2,3,4")
    until(lambda: any(t.epoch for t in trials(sweep)), "a training to run")
    assert platform.invoke("train.cancel", sweep.id).returncode == 0
    assert [t.state for t in trials(sweep)] == ["cancelled"] * 4
    assert sweep.row().state == "cancelled"
    assert processes_with(str(program)) == []


def test_a_sweep_goes_on_when_the_worker_is_killed(platform: Victim, program: Path) -> None:
    wait = program.parent / "wait"
    wait.touch()
    sweep = begin(platform, program, "1,2,3")
    until(lambda: any(t.epoch for t in trials(sweep)), "a training to run")
    platform.kill(WORKER)
    wait.unlink()
    assert sweep.until_final().state == "succeeded"
    assert [t.state for t in trials(sweep)] == ["succeeded"] * 3
    orders = platform.stack_home / "training" / "orders"
    assert [path.name for path in orders.iterdir() if path.name.startswith("sweep-")] == []


def test_a_sweep_of_which_nothing_succeeds(platform: Victim, program: Path) -> None:
    sweep = begin(platform, program, "-1,-2")
    job = sweep.until_final()
    assert (job.state, job.error) == ("failed", "none of its 2 trainings has succeeded")
