"""Several workers of one training: their variables, their GPUs, and that they end together."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import psutil
import pytest
from temporalio.exceptions import ApplicationError

from infra.errors import PlatformError
from infra.training import activities, gang, program
from infra.training.activities import Step
from infra.training.program import TrainingProgram

posix = pytest.mark.skipif(os.name == "nt", reason="a signal cannot be told from an exit status on Windows")


def test_the_variables_of_a_worker() -> None:
    found = gang.rendezvous(1, 3, "127.0.0.1", 2950, gpus=2)
    assert found == {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "2950",
        "WORLD_SIZE": "3",
        "RANK": "1",
        "NODE_RANK": "1",
        "LOCAL_RANK": "0",
        "LOCAL_WORLD_SIZE": "1",
        "PET_MASTER_ADDR": "127.0.0.1",
        "PET_MASTER_PORT": "2950",
        "PET_NNODES": "3",
        "PET_NODE_RANK": "1",
        "PET_NPROC_PER_NODE": "2",
        "JAX_COORDINATOR_ADDRESS": "127.0.0.1:2950",
        "JAX_NUM_PROCESSES": "3",
        "JAX_PROCESS_ID": "1",
    }


def test_one_worker_gets_no_variables_of_many() -> None:
    assert gang.environments({}, 1, 0, 1) == [{}]
    assert gang.environments({gang.DEVICES: "3,4"}, 1, 1, 1) == [{gang.DEVICES: "3"}]


def test_the_coordinator_of_jax_listens_on_this_machine_alone() -> None:
    found = [env["JAX_COORDINATOR_BIND_ADDRESS"] for env in gang.environments({}, 2, 0, 2950)]
    assert found == ["127.0.0.1:2950"] * 2


@pytest.mark.parametrize(
    ("found", "workers", "gpus", "wanted"),
    [
        ("abcd", 2, 0, ["ab", "cd"]),
        ("abcd", 2, 1, ["a", "b"]),
        ("abc", 2, 0, ["a", "b"]),
        ("a", 3, 0, ["a", "a", "a"]),
        ("", 2, 0, ["", ""]),
    ],
)
def test_gpus_are_split(found: str, workers: int, gpus: int, wanted: list[str]) -> None:
    assert ["".join(share) for share in gang.shares(list(found), workers, gpus)] == wanted


def test_more_gpus_than_there_are() -> None:
    with pytest.raises(PlatformError, match="2 x 2 GPUs are wanted, and this machine has 3") as caught:
        gang.shares(["a", "b", "c"], 2, 2)
    assert caught.value.code == "USAGE"


@pytest.mark.parametrize(
    ("value", "wanted"),
    [("0,1", ["0", "1"]), ("", []), ("-1", []), ("0,-1,2", ["0"]), ("GPU-a, GPU-b", ["GPU-a", "GPU-b"])],
)
def test_the_gpus_that_an_environment_names(value: str, wanted: list[str]) -> None:
    assert gang.devices({gang.DEVICES: value}) == wanted


@pytest.mark.skipif(os.name == "nt", reason="the fake is a shell script")
@pytest.mark.parametrize(("ends", "wanted"), [(0, ["GPU-a", "GPU-b"]), (9, [])])
def test_the_gpus_of_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends: int, wanted: list[str]) -> None:
    fake = tmp_path / "nvidia-smi"
    fake.write_text(f'#!/bin/sh\n[ "$1" = --query-gpu=uuid ] && printf "GPU-a\\nGPU-b\\n"\nexit {ends}\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gang.devices({}) == wanted
    monkeypatch.setenv("PATH", str(tmp_path / "none"))
    assert gang.devices({}) == []


@pytest.mark.parametrize(
    ("codes", "rank"),
    [
        ([1, None], 0),
        ([None, 1], 1),
        ([1, 75], 1),
        pytest.param([1, -9], 1, marks=posix),
        pytest.param([-6, 1], 1, marks=posix),
        pytest.param([-6, 137], 1, marks=posix),
        ([0, 3, 4], 1),
        ([0, 0], 0),
    ],
)
def test_the_worker_whose_end_counts(codes: list[int | None], rank: int) -> None:
    assert activities.decisive(codes) == rank


def test_a_port_that_somebody_has_taken_is_tried_anew_with_another() -> None:
    import socket

    step = Step("worker 0 of 2", [], {"MASTER_PORT": "0"})
    with socket.create_server((gang.HOST, 0)) as other:
        port = str(other.getsockname()[1])
        with pytest.raises(ApplicationError, match=f"port {port}") as caught:
            activities._check_port(Step(step.name, [], {"MASTER_PORT": port}), 1, ["in use"])
        assert not caught.value.non_retryable
        activities._check_port(Step(step.name, [], {"MASTER_PORT": port}), 0, [])
    activities._check_port(Step(step.name, [], {"MASTER_PORT": str(gang.free_port())}), 1, [])


def programs(tmp_path: Path, *codes: str) -> list[TrainingProgram]:
    log = tmp_path / "job.log"
    logs = [gang.log_of(log, rank) for rank in range(len(codes))]
    return [
        TrainingProgram(
            [sys.executable, "-u", "-c", code], tmp_path, dict(os.environ), path, path.with_suffix(".pid.json")
        )
        for code, path in zip(codes, logs, strict=True)
    ]


def test_workers_run_at_the_same_time_and_the_first_one_is_listened_to(tmp_path: Path) -> None:
    meet = (
        "import pathlib, time\n"
        "pathlib.Path('here-{0}').touch()\n"
        "while not pathlib.Path('here-{1}').exists(): time.sleep(0.01)\n"
        "print('worker {0}')\n"
    )
    lines: list[str] = []
    found = programs(tmp_path, meet.format(0, 1), meet.format(1, 0))
    assert program.run_together(found, lines.append, lambda: None) == [0, 0]
    assert lines == ["worker 0"]
    assert (tmp_path / "job.rank1.log").read_text().split("\n") == ["worker 1", ""]
    assert not list(tmp_path.glob("*.pid.json"))


def test_one_that_fails_ends_the_others(tmp_path: Path) -> None:
    waits = "import os, time; print(os.getpid()); time.sleep(600)"
    lines: list[str] = []
    fails = "import pathlib, sys, time\nwhile not pathlib.Path('job.log').stat().st_size: time.sleep(0.01)\nsys.exit(3)"
    assert program.run_together(programs(tmp_path, waits, fails), lines.append, lambda: None) == [None, 3]
    assert not psutil.pid_exists(int((tmp_path / "job.log").read_text()))


def test_one_that_cannot_start_ends_the_others(tmp_path: Path) -> None:
    found = programs(tmp_path, "import time; time.sleep(600)", "pass")
    missing = TrainingProgram(["./nothing"], tmp_path, {}, found[1].log, found[1].pid_file)
    before = set(psutil.Process().children())
    with pytest.raises(FileNotFoundError):
        program.run_together([found[0], missing], print, lambda: None)
    assert set(psutil.Process().children()) == before


@posix
def test_the_death_of_one_is_the_reason_and_not_what_it_does_to_another(tmp_path: Path) -> None:
    dies = f"import os, time\nopen('pid', 'w').write(str(os.getpid()))\nos.kill(os.getpid(), {int(signal.SIGKILL)})"
    follows = (
        "import os, sys, time\n"
        "while not os.path.exists('pid') or not (pid := open('pid').read()): time.sleep(0.01)\n"
        "while open(f'/proc/{pid}/stat').read().split()[2] != 'Z' if os.path.exists('/proc') else False: pass\n"
        "sys.exit(1)"
    )
    codes = program.run_together(programs(tmp_path, follows, dies), print, lambda: None)
    assert codes[1] == -9
    assert activities.decisive(codes) == 1
