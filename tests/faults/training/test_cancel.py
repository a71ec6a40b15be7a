"""Cancelling, interrupting and failing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from infra.settings import ROOT
from tests.faults.conftest import Victim
from tests.faults.training.tools import Training, execute, processes_with, start, until
from tests.smoke.platform import PYTHON
from tests.smoke.stage import HANG

# Two processes that ignore the request to stop, and progress.
STUBBORN = """
import json, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", sys.argv[1]])
print(json.dumps({"epoch": 1, "epochs": 9, "metrics": {"loss": 0.5}}), flush=True)
time.sleep(600)
"""


@pytest.fixture
def stubborn(tmp_path: Path) -> Path:
    path = tmp_path / "my train.py"
    path.write_text(STUBBORN)
    return path


def test_cancel_in_the_middle(platform: Victim) -> None:
    training = start(platform, "--epochs", "5000")
    training.until_epoch(3)
    done = platform.invoke("train.cancel", training.id)
    assert done.returncode == 0
    assert training.row().state == "cancelled"
    assert processes_with(training.id) == []
    again = platform.invoke("train.cancel", training.id)
    assert (again.returncode, "nothing to cancel" in again.stdout) == (0, True)


def test_cancel_while_it_waits_for_its_dataset(platform: Victim) -> None:
    training = start(platform, "--epochs", "5000")
    assert platform.invoke("train.cancel", training.id).returncode == 0
    assert training.row().state == "cancelled"
    assert processes_with(training.id) == []


def test_cancel_kills_a_program_that_will_not_stop_and_its_children(platform: Victim, stubborn: Path) -> None:
    mark = f"mark-{os.getpid()}"
    training = start(platform, "--command", f'"{sys.executable}" "{stubborn}" {mark}')
    training.until_epoch(1)
    assert len(processes_with(mark)) == 2
    assert platform.invoke("train.cancel", training.id).returncode == 0
    assert processes_with(mark) == []
    assert training.row().state == "cancelled"


def test_a_watched_training_that_is_cancelled_elsewhere_is_no_success(platform: Victim) -> None:
    watcher = watch(platform, "--epochs", "5000")
    training = Training(platform, job_of(watcher))
    training.until_epoch(1)
    platform.invoke("train.cancel", training.id, check=True)
    answer, _ = watcher.communicate(timeout=HANG)
    envelope = json.loads(answer)
    assert watcher.returncode == 1
    assert envelope["error"]["code"] == "TASK_FAILED"
    assert "cancelled" in envelope["error"]["message"]


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT for a process of another console")
def test_ctrl_c_leaves_the_training_running(platform: Victim) -> None:
    watcher = watch(platform, "--epochs", "5000")
    training = Training(platform, job_of(watcher))
    training.until_epoch(1)
    watcher.send_signal(signal.SIGINT)
    _, said = watcher.communicate(timeout=HANG)
    assert watcher.returncode == 130
    assert f"invoke train.cancel {training.id}" in said
    assert training.row().state == "running"
    platform.invoke("train.cancel", training.id, check=True)


def watch(platform: Victim, *arguments: str) -> subprocess.Popen[str]:
    """A `train.run` that waits for the end."""
    argv = [sys.executable, "-m", "invoke", "train.run", "--json", *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(argv, cwd=ROOT, env=platform.env, stdout=pipe, stderr=pipe, text=True)


def job_of(watcher: subprocess.Popen[str]) -> str:
    """The id in the first line that it says about its job."""
    assert watcher.stderr is not None
    while not (line := watcher.stderr.readline()).startswith("job "):
        assert line, "it ended without naming its job"
    return line.split()[1].rstrip(",")


def test_a_failing_program_gives_its_last_lines(platform: Victim, tmp_path: Path) -> None:
    program = tmp_path / "fails.py"
    program.write_text("for i in range(40): print('line', i)\nraise SystemExit('the data is bad')\n")
    done = platform.invoke("train.run", "--command", f'"{sys.executable}" "{program}"')
    assert done.returncode == 1
    assert "| line 39" in done.stderr
    assert "| the data is bad" in done.stderr
    assert "| line 20" not in done.stderr
    assert "Traceback" not in done.stderr


def test_a_training_without_a_log_is_not_said_to_have_one_in_a_cluster(platform: Victim) -> None:
    platform.invoke("train.run", "--command", f"{PYTHON} -c pass", check=True)  # makes the tables
    execute(platform, "INSERT INTO experiments (name) VALUES ('silent') ON CONFLICT DO NOTHING")
    insert = """
        INSERT INTO jobs (id, experiment_id, state, error, created_at, finished_at)
        SELECT %s, id, 'failed', 'it did not begin', now(), now() FROM experiments WHERE name = 'silent'
    """
    execute(platform, insert, "silent-20261123-000000")
    for words in (["train.attach"], ["train.logs"], ["train.logs", "-f"], ["train.show"]):
        done = platform.invoke(words[0], "silent-20261123-000000", *words[1:])
        assert done.returncode == {"train.attach": 1, "train.show": 0}.get(words[0], 9), done.stderr
        assert not [w for w in ("cluster", "pod") if w in done.stderr + done.stdout], done.stderr + done.stdout
        assert ".log" not in done.stdout, "a path of a file that is not there"
    assert "worker.log" in platform.invoke("train.attach", "silent-20261123-000000").stderr


def test_a_program_that_is_killed_is_run_again(platform: Victim, tmp_path: Path) -> None:
    program = tmp_path / "killed.py"
    program.write_text(
        "import os, signal, sys\n"
        "print('try', os.environ['TRAINING_ATTEMPT'], os.environ['TRAINING_JOB_ID'], flush=True)\n"
        "os.environ['TRAINING_ATTEMPT'] == '1' and os.kill(os.getpid(), signal.SIGTERM)\n"
    )
    training = start(platform, "--command", f'"{sys.executable}" "{program}"')
    assert training.until_final().state == "succeeded"
    assert f"try 2 {training.id}" in training.log()


def test_a_trainer_that_is_no_longer_the_current_try_stops_itself(platform: Victim) -> None:
    training = start(platform, "--epochs", "5000")
    training.until_epoch(2)
    current = training.row().attempt
    # The old trainer of a worker that was cut off: the same job, an attempt that is over.
    execute(platform, "UPDATE jobs SET attempt = attempt + 1 WHERE id = %s", training.id)
    until(lambda: f"job {training.id} is no longer at attempt {current}" in training.log(), "the old try to stop")
    platform.invoke("train.cancel", training.id)
    assert training.until_final().final


def test_a_job_whose_workflow_is_gone_does_not_stay_running(platform: Victim) -> None:
    execute(platform, "INSERT INTO experiments (name) VALUES ('lost') ON CONFLICT DO NOTHING")
    insert = """
        INSERT INTO jobs (id, experiment_id, state, created_at)
        SELECT %s, id, 'running', now() - interval '1 hour' FROM experiments WHERE name = 'lost'
    """
    execute(platform, insert, "lost-20261123-000000")
    done = platform.invoke("train.show", "lost-20261123-000000", "--json")
    shown = json.loads(done.stdout)["data"]
    assert (shown["state"], "workflow is gone" in shown["error"]) == ("failed", True)


@pytest.mark.parametrize(
    ("change", "undo"),
    [
        (
            "UPDATE schema_migrations SET sha256 = 'x' || sha256 WHERE number = 1",
            "UPDATE schema_migrations SET sha256 = substr(sha256, 2) WHERE number = 1",
        ),
        (
            "INSERT INTO schema_migrations (number, name, sha256) VALUES (9999, 'later', '')",
            "DELETE FROM schema_migrations WHERE number = 9999",
        ),
    ],
)
def test_a_database_of_another_version_is_refused(platform: Victim, change: str, undo: str) -> None:
    platform.invoke("train.run", "--command", f"{PYTHON} -c pass", check=True)
    execute(platform, change)
    try:
        done = platform.invoke("train.run", "--command", f"{PYTHON} -c pass", "--json")
    finally:
        execute(platform, undo)
    assert (done.returncode, json.loads(done.stdout)["error"]["code"]) == (8, "DATA_INCOMPATIBLE")
    assert platform.invoke("train.run", "--command", f"{PYTHON} -c pass").returncode == 0


def test_an_unknown_job(platform: Victim) -> None:
    training = start(platform, "--command", f"{PYTHON} -c pass")
    training.until_final()
    done = platform.invoke("train.show", f"{training.id[:-1]}x")
    assert done.returncode == 9
    assert f"did you mean {training.id}?" in done.stderr


def test_a_second_run_sends_no_image_again(platform: Victim) -> None:
    training = start(platform, "--epochs", "1")
    assert training.until_final().state == "succeeded"
    again = start(platform, "--epochs", "1")
    assert again.until_final().state == "succeeded"
    assert "1797 images, 0 sent" in again.log()
