"""What the shell of a user holds goes to the trainings that were ordered in it, and to no server."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.faults.conftest import WORKER, Victim
from tests.faults.native.tools import with_settings
from tests.faults.training.tools import start
from tests.smoke.stage import stage

TOKEN = "token-of-the-shell-that-started-it"
TELL = """
import json, os, sys
names = "HF_TOKEN", "CUDA_VISIBLE_DEVICES", "ONLY_IN_THE_SECOND", "TRAINING_JOB_ID", "POSTGRES_PASSWORD"
json.dump({name: os.environ.get(name) for name in names}, open(sys.argv[1], "w"))
"""


@pytest.fixture(scope="module")
def started() -> Iterator[Victim]:
    """A platform whose `up` was called in a shell with a token."""
    with stage("native", HF_TOKEN=TOKEN, SECRET_OF_THE_SHELL=TOKEN) as made:
        victim = Victim(made)
        victim.up()
        yield victim


@pytest.fixture
def tell(tmp_path: Path) -> Path:
    """A training that writes down what it sees of its environment."""
    path = tmp_path / "tell.py"
    path.write_text(TELL)
    return path


def seen(victim: Victim, tell: Path, **shell: str) -> dict[str, str | None]:
    """What a training sees that was ordered in a shell with these variables."""
    answer = tell.with_suffix(".json")
    done = with_settings(victim, **shell).invoke(
        "train.run", "--command", f'"{sys.executable}" "{tell}" "{answer}"', check=True
    )
    assert done.returncode == 0
    found: dict[str, str | None] = json.loads(answer.read_text())
    return found


def test_no_server_and_no_worker_holds_a_token_of_the_shell(started: Victim, tell: Path) -> None:
    seen(started, tell)
    processes = [psutil.Process(started.pid(name)) for name in (*started.state()["services"], "supervisor", WORKER)]
    assert [p.name() for p in processes if TOKEN in p.environ().values()] == []
    assert psutil.Process(started.pid(WORKER)).environ()["PATH"] == started.env["PATH"]


def test_each_training_has_the_environment_of_the_shell_that_ordered_it(started: Victim, tell: Path) -> None:
    first = seen(started, tell, HF_TOKEN="A", CUDA_VISIBLE_DEVICES="0")
    second = seen(started, tell, HF_TOKEN="B", CUDA_VISIBLE_DEVICES="1", ONLY_IN_THE_SECOND="yes")
    assert (first["HF_TOKEN"], first["CUDA_VISIBLE_DEVICES"], first["ONLY_IN_THE_SECOND"]) == ("A", "0", None)
    assert (second["HF_TOKEN"], second["CUDA_VISIBLE_DEVICES"], second["ONLY_IN_THE_SECOND"]) == ("B", "1", "yes")
    assert first["TRAINING_JOB_ID"] != second["TRAINING_JOB_ID"]


def test_the_environment_of_a_training_outlives_the_worker(started: Victim, tmp_path: Path) -> None:
    program = tmp_path / "twice.py"
    program.write_text(
        "import os, signal, time\n"
        "print('try', os.environ['TRAINING_ATTEMPT'], os.environ.get('HF_TOKEN'), flush=True)\n"
        "os.environ['TRAINING_ATTEMPT'] == '1' and time.sleep(600)\n"
    )
    training = start(
        with_settings(started, HF_TOKEN="of-this-training"), "--command", f'"{sys.executable}" "{program}"'
    )
    training.until_log("try 1 of-this-training")
    started.kill(WORKER)
    assert training.until_final().state == "succeeded"
    assert "try 2 of-this-training" in training.log()


def test_the_values_are_nowhere_once_the_training_has_ended(started: Victim, tell: Path) -> None:
    value = "a-value-that-nobody-else-has"
    assert seen(started, tell, HF_TOKEN=value)["HF_TOKEN"] == value
    holding = [p for p in started.stack_home.rglob("*") if p.is_file() and value.encode() in p.read_bytes()]
    assert holding == []
