"""Several workers of one training: they end together, begin again together, and meet at a port that is free."""

from __future__ import annotations

import importlib.util
import re
import socket
import sys
from pathlib import Path

import psutil
import pytest

from tests.faults.conftest import Victim
from tests.faults.training.tools import Training, processes_with, start, until

# Counts up in steps that both workers take together; the first one keeps the number in a file.
PROGRAM = """
import json, os, pathlib, socket, sys, time
rank, port, place = int(os.environ["RANK"]), int(os.environ["MASTER_PORT"]), pathlib.Path(sys.argv[1])
print("worker", rank, "of", os.environ["WORLD_SIZE"], "try", os.environ["TRAINING_ATTEMPT"], "port", port, flush=True)
while (place / "wait").exists() and os.environ["TRAINING_ATTEMPT"] == "1":
    time.sleep(0.05)
if rank == 0:
    server = socket.create_server(("127.0.0.1", port))
    link = server.accept()[0]
else:
    while True:
        try:
            link = socket.create_connection(("127.0.0.1", port), timeout=60)
            break
        except ConnectionRefusedError:
            time.sleep(0.05)
kept = place / "checkpoint"
step = int(kept.read_text()) if kept.exists() else 0
if step:
    print("resumed at", step, flush=True)
for step in range(step + 1, int(sys.argv[2]) + 1):
    link.sendall(b"x")
    if not link.recv(1):
        sys.exit("the other worker is gone")
    if rank == 0:
        kept.write_text(str(step))
    print(json.dumps({"epoch": step, "metrics": {"rank": rank}}), flush=True)
    time.sleep(0.1)
"""


EPOCHS = 80
"""Of the built-in training: long enough to be hit in the middle."""
jax_needed = pytest.mark.skipif(
    importlib.util.find_spec("jax") is None, reason="jax is not installed: requirements/jax.txt"
)


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "meets.py"
    path.write_text(PROGRAM)
    return path


def begin(platform: Victim, program: Path, steps: int) -> Training:
    command = f'"{sys.executable}" "{program}" "{program.parent}" {steps}'
    return start(platform, "--command", command, "--workers", "2")


def worker(training: Training, program: Path, rank: int) -> psutil.Process:
    return next(p for p in processes_with(str(program)) if p.environ().get("RANK") == str(rank))


def log_of(training: Training, rank: int) -> str:
    return training.victim.invoke("train.logs", training.id, "--rank", str(rank), check=True).stdout


def test_two_workers_and_what_is_known_of_them(platform: Victim, program: Path) -> None:
    training = begin(platform, program, 5)
    assert training.until_final().state == "succeeded"
    assert training.row().epoch == 5
    assert training.row().workers == 2
    assert "worker 0 of 2 try 1" in training.log()
    assert "worker 1" not in training.log()
    assert "worker 1 of 2 try 1" in log_of(training, 1)
    assert platform.invoke("train.logs", training.id, "--rank", "2").returncode == 2
    shown = platform.stage.data("train.show", training.id)
    assert (shown["workers"], shown["metrics"]) == (2, {"rank": 0})


@pytest.mark.parametrize("rank", [0, 1])
def test_one_worker_is_killed_and_all_begin_again_once(platform: Victim, program: Path, rank: int) -> None:
    training = begin(platform, program, 50)
    training.until_epoch(5)
    worker(training, program, rank).kill()
    job = training.until_final()
    assert (job.state, job.attempt, job.epoch) == ("succeeded", 2, 50)
    for each in (0, 1):
        said = log_of(training, each)
        assert re.findall(r"worker \d of 2 try (\d)", said) == ["1", "2"]
        assert "resumed at " in said
    assert processes_with(str(program)) == []


def test_a_worker_that_fails_by_itself_ends_all_and_is_named(platform: Victim, tmp_path: Path) -> None:
    path = tmp_path / "fails.py"
    path.write_text("import os, sys, time\nos.environ['RANK'] == '1' and sys.exit('bad data')\ntime.sleep(600)\n")
    training = start(platform, "--command", f'"{sys.executable}" "{path}"', "--workers", "3")
    job = training.until_final()
    assert (job.state, job.error) == ("failed", "the worker 1 of 3 ended with exit status 1")
    assert job.last_lines == "bad data"
    assert processes_with(str(path)) == []


def test_the_port_where_they_meet_is_taken_meanwhile(platform: Victim, program: Path) -> None:
    wait = program.parent / "wait"
    wait.touch()
    training = begin(platform, program, 3)
    until(lambda: "port " in training.log(), "the workers to start")
    said = re.search(r"port (\d+)", training.log())
    assert said is not None
    with socket.create_server(("127.0.0.1", int(said[1]))):
        wait.unlink()
        job = training.until_final()
    assert (job.state, job.attempt, job.epoch) == ("succeeded", 2, 3)
    assert len(set(re.findall(r"port (\d+)", training.log()))) == 2


def test_cancel_ends_all_workers(platform: Victim, program: Path) -> None:
    training = begin(platform, program, 6000)
    training.until_epoch(2)
    assert len(processes_with(str(program))) == 2
    assert platform.invoke("train.cancel", training.id).returncode == 0
    assert training.row().state == "cancelled"
    assert processes_with(str(program)) == []


def test_gpus_are_split_among_workers(platform: Victim, tmp_path: Path) -> None:
    path = tmp_path / "shows.py"
    path.write_text("import os; print('mine:', os.environ['CUDA_VISIBLE_DEVICES'])\n")
    order = ("--command", f'"{sys.executable}" "{path}"', "--workers", "2", "--gpus", "2")
    training = start(platform, *order, "--env", "CUDA_VISIBLE_DEVICES=0,1,2,3")
    assert training.until_final().state == "succeeded"
    assert ("mine: 0,1" in training.log(), "mine: 2,3" in log_of(training, 1)) == (True, True)
    done = platform.invoke("train.run", *order, "--env", "CUDA_VISIBLE_DEVICES=0,1,2")
    assert (done.returncode, "2 x 2 GPUs are wanted, and this machine has 3" in done.stderr) == (2, True)


@jax_needed
def test_the_built_in_training_as_two_workers_one_of_which_is_killed(platform: Victim) -> None:
    training = start(platform, "--workers", "2", "--epochs", str(EPOCHS))
    training.until_epoch(3)
    next(p for p in processes_with(training.id) if p.environ().get("RANK") == "1").kill()
    job = training.until_final()
    assert (job.state, job.error, job.attempt) == ("succeeded", None, 2)
    assert training.epochs() == list(range(1, EPOCHS + 1))
    assert "resumed at epoch " in training.log()
    assert "633 images, from epoch 1" in log_of(training, 1)
    assert (job.heldout_accuracy or 0) >= 0.95
    assert processes_with(training.id) == []
