"""Pids in the state file that now belong to others: those are never signalled, and `up` goes on."""

from __future__ import annotations

import json
import os
from typing import Any

import psutil
import pytest

from tests.faults.conftest import Victim
from tests.faults.native import tools
from tests.faults.native.tools import Deposit


def _blame(victim: Victim, innocent: psutil.Process, **facts: Any) -> None:
    """Write the pid of an innocent process down as that of the supervisor and of every service."""

    def change(found: dict[str, Any]) -> dict[str, Any]:
        services = {n: {**e, "pid": innocent.pid, **facts} for n, e in found["services"].items()}
        return {"supervisor": {**found["supervisor"], "pid": innocent.pid}, "services": services}

    tools.rewrite(tools.state_file(victim), change)


@pytest.mark.parametrize(
    "commands",
    [
        (("status", 9), ("restart", 9), ("logs", 0), ("up", 0)),
        (("doctor", 0), ("down", 0)),
        (("reset -s redis --yes", 0), ("down", 0)),
    ],
    ids=["status, restart, up", "down", "reset"],
)
def test_a_process_that_got_the_pid_of_a_service_is_never_signalled(
    running: Victim, commands: tuple[tuple[str, int], ...]
) -> None:
    """As after a power cut: the files are there, the processes are not, the pids belong to others."""
    tools.kill_all(running, "supervisor", *running.state()["services"])
    tools.assert_nothing_runs(running)
    with tools.bystander() as leader:
        assert os.getsid(leader.pid) == leader.pid
        _blame(running, leader)
        for words, code in commands:
            done = running.invoke(*words.split())
            assert done.returncode == code, f"{words}: {done.stderr}"
        assert leader.is_running()
        assert leader.status() != psutil.STATUS_ZOMBIE
    if commands[-1][0] == "up":
        tools.assert_runs_once(running)


def test_a_recycled_pid_beside_services_that_run(running: Victim, deposit: Deposit) -> None:
    before = tools.pids(running)
    tools.kill_all(running, "supervisor", "redis")
    with tools.bystander() as innocent:
        tools.rewrite(
            tools.state_file(running),
            lambda found: {
                **found,
                "services": {**found["services"], "redis": {**found["services"]["redis"], "pid": innocent.pid}},
            },
        )
        running.up()
        assert innocent.is_running()
        after = tools.pids(running)
        assert {n for n in before if after[n] != before[n]} == {"redis"}
        assert after["redis"] != innocent.pid
        assert innocent.status() != psutil.STATUS_ZOMBIE
    deposit.check()


def test_a_recycled_pid_in_the_lock_file_keeps_nobody_out(running: Victim) -> None:
    """The lock is the kernel's; what is written in the file is only for the message."""
    with tools.bystander() as innocent:
        text = json.dumps({"pid": innocent.pid, "command": "up", "since": 1.0})
        (running.stack_home / "lock").write_text(text)
        running.up()
        assert innocent.is_running()


def test_a_pid_in_postgresqls_own_lock_file_that_belongs_to_another(stopped: Victim) -> None:
    """As after a power cut: PostgreSQL's postmaster.pid names a process of its own user that is no PostgreSQL."""
    data = tools.data_directories(stopped)["postgres"]
    owner = data.stat()
    with tools.bystander(owner.st_uid) as innocent:
        file = data / "postmaster.pid"
        file.write_text(f"{innocent.pid}\n{data}\n1700000000\n{stopped.env['POSTGRES_PORT']}\n\n127.0.0.1\n")
        os.chown(file, owner.st_uid, owner.st_gid)
        file.chmod(0o600)
        done = stopped.invoke("up")
        assert innocent.is_running()
        assert done.returncode == 0, done.stderr
    tools.assert_runs_once(stopped)
