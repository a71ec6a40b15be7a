"""The command line killed, interrupted or terminated in the middle; two of them at once."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Set
from functools import partial
from pathlib import Path

import psutil
import pytest

from tests.faults.conftest import Victim
from tests.faults.native import tools
from tests.faults.native.tools import Deposit

RANDOM_KILLS = 5


def _holder(victim: Victim) -> dict[str, object]:
    try:
        found = json.loads((victim.stack_home / "lock").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _locked_by(victim: Victim, process: subprocess.Popen[str]) -> bool:
    return _holder(victim).get("pid") == process.pid or process.poll() is not None


def _native(victim: Victim) -> Path:
    return victim.stack_home / "native"


def _initdb_at_work(victim: Victim, seen: Set[Path] = frozenset()) -> bool:
    """Files appear in a directory, none of those `seen`, that is going to be PostgreSQL's."""
    return any(p.parent not in seen for p in _native(victim).glob("data/.postgres-new*/PG_VERSION"))


# Moments of a first `up`, in their order.
MOMENTS: dict[str, Callable[[Victim], object]] = {
    "it has the lock": _holder,
    "the supervisor has started": lambda v: (_native(v) / "supervisor.lock").exists(),
    "initdb is at work": _initdb_at_work,
    "the data directory is there": lambda v: (_native(v) / "data" / "postgres" / "PG_VERSION").exists(),
    "PostgreSQL starts": lambda v: v.state().get("services", {}).get("postgres", {}).get("pid"),
    "PostgreSQL is ready": lambda v: tools.is_ready(v, "postgres"),
}


def _reached(victim: Victim, moment: str, process: subprocess.Popen[str], seen: Set[Path]) -> bool:
    there = _initdb_at_work(victim, seen) if moment == "initdb is at work" else MOMENTS[moment](victim)
    return bool(there) or process.poll() is not None


def _assert_data_directory_whole_or_absent(victim: Victim) -> None:
    data = _native(victim) / "data" / "postgres"
    assert not data.exists() or (data / "global" / "pg_control").stat().st_size == 8192


def test_up_killed_at_every_stage_of_a_first_start_is_repaired_by_the_next_up(unused: Victim) -> None:
    for moment in MOMENTS:
        process = tools.start(unused, "up")
        seen = set(_native(unused).glob("data/.postgres-new*"))
        tools.until(moment, partial(_reached, unused, moment, process, seen))
        process.kill()
        done = tools.ended(process)
        assert done.returncode in (0, -signal.SIGKILL), f"{moment}: {done.stderr}"
        _assert_data_directory_whole_or_absent(unused)
    unused.up()
    tools.assert_runs_once(unused)
    Deposit(unused).put().check()
    assert unused.invoke("status").returncode == 0


def test_up_killed_at_random_moments_of_a_later_start_is_repaired_by_the_next_up(stopped: Victim) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    for _ in range(RANDOM_KILLS):
        process = tools.start(stopped, "up")
        time.sleep(chance.uniform(0, 2))
        process.kill()
        done = tools.ended(process)
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        if chance.random() < 0.4:
            stopped.invoke("down", check=True)
            tools.assert_nothing_runs(stopped)
    stopped.up()
    tools.assert_runs_once(stopped)
    Deposit(stopped).put().check()


def test_down_killed_in_the_middle_is_finished_by_the_next_one(running: Victim, deposit: Deposit) -> None:
    process = tools.start(running, "down")
    tools.until("the lock", lambda: _locked_by(running, process))
    process.kill()
    tools.ended(process)
    running.invoke("down", check=True)
    tools.assert_nothing_runs(running)
    running.up()
    deposit.check()


def test_ctrl_c_in_a_first_up_once_or_twice_ends_it_cleanly(unused: Victim) -> None:
    for moment, times in (("initdb is at work", 1), ("initdb is at work", 2), ("PostgreSQL starts", 2)):
        process = tools.start(unused, "up")
        seen = set(_native(unused).glob("data/.postgres-new*"))
        tools.until(moment, partial(_reached, unused, moment, process, seen))
        for _ in range(times):
            os.killpg(process.pid, signal.SIGINT)
        tools.refused(tools.ended(process), 130, "interrupted", "invoke up goes on from there", "invoke down stops it")
        _assert_data_directory_whole_or_absent(unused)
    unused.up()
    tools.assert_runs_once(unused)


@pytest.mark.parametrize("times", [1, 2, 5], ids=["once", "twice", "in anger"])
def test_ctrl_c_in_a_later_up_ends_it_cleanly(running: Victim, times: int) -> None:
    process = tools.start(running, "up")
    tools.until("the lock", lambda: _locked_by(running, process))
    for _ in range(times):
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.01)
    done = tools.ended(process)
    tools.refused(done, 130, "interrupted", "invoke up goes on from there")
    assert "KeyboardInterrupt" not in done.stderr
    tools.assert_runs_once(running)


def test_ctrl_c_in_a_start_is_made_good_by_the_next_up(stopped: Victim) -> None:
    process = tools.start(stopped, "up")
    tools.until("the lock", lambda: _locked_by(stopped, process))
    os.killpg(process.pid, signal.SIGINT)
    tools.refused(tools.ended(process), 130, "interrupted")
    stopped.up()
    tools.assert_runs_once(stopped)


def test_sigterm_in_up_ends_it_with_its_own_code(running: Victim) -> None:
    process = tools.start(running, "up")
    tools.until("the lock", lambda: _locked_by(running, process))
    process.terminate()
    tools.refused(tools.ended(process), 143, "terminated", "run the same command again")
    tools.assert_runs_once(running)


def test_ctrl_c_in_json_still_answers_with_one_object(running: Victim) -> None:
    process = tools.start(running, "up", "--json")
    tools.until("the lock", lambda: _locked_by(running, process))
    os.killpg(process.pid, signal.SIGINT)
    done = tools.ended(process)
    assert done.returncode == 130
    assert json.loads(done.stdout)["error"]["code"] == "INTERRUPTED"


@pytest.mark.fault(13)
def test_of_two_ups_at_once_the_second_is_told_who_is_at_work(stopped: Victim) -> None:
    first = tools.start(stopped, "up")
    tools.until("the lock", lambda: _locked_by(stopped, first))
    psutil.Process(first.pid).suspend()  # or it may be over before the second begins
    try:
        said = tools.refused(stopped.invoke("up"), 12, f"pid {first.pid}", "`up`", "since", "LOCKED")
    finally:
        psutil.Process(first.pid).resume()
    assert "wait until it finishes" in said
    assert tools.ended(first).returncode == 0
    tools.assert_runs_once(stopped)


def test_many_ups_at_once_start_everything_once(stopped: Victim) -> None:
    several = [tools.start(stopped, "up") for _ in range(4)]
    codes = sorted(tools.ended(process).returncode for process in several)
    assert codes[0] == 0
    assert set(codes) <= {0, 12}
    tools.assert_runs_once(stopped)


@pytest.mark.fault(13)
def test_nothing_gets_in_between_while_down_is_at_work(running: Victim) -> None:
    supervisor = psutil.Process(running.pid("supervisor"))
    supervisor.suspend()  # or `down` may be over before the others begin
    first = tools.start(running, "down")
    tools.until("the lock", lambda: _locked_by(running, first))
    others = [tools.start(running, *words) for words in (("up",), ("down",), ("restart",), ("reset", "--yes"))]
    for other in others:
        tools.refused(tools.ended(other), 12, f"pid {first.pid}", "`down`", "LOCKED")
    supervisor.resume()
    assert tools.ended(first).returncode == 0
    tools.assert_nothing_runs(running)
