"""kill -9 of services, of the supervisor, of everything: back by itself or by `up`, and nothing lost."""

from __future__ import annotations

import signal
import sys
from functools import partial
from pathlib import Path

import pytest

from infra.supervision import client as supervise
from infra.supervision.client import Spec
from infra.tiers.native.services import CORE
from tests.faults.conftest import Victim
from tests.faults.native import tools
from tests.faults.native.tools import Deposit

MANY = 3
"""Lives of a supervisor that is killed at random moments of a start."""


@pytest.mark.parametrize("service", CORE)
def test_a_killed_service_comes_back_by_itself_with_its_data(running: Victim, deposit: Deposit, service: str) -> None:
    before = tools.pids(running)
    tools.kill_all(running, service)
    tools.until(f"{service} to be back", lambda: tools.is_ready(running, service, old=before[service]))
    deposit.check()
    after = tools.pids(running)
    assert {name for name in CORE if after[name] != before[name]} == {service}
    assert running.state()["services"][service]["restarts"] > 0
    tools.assert_runs_once(running)


def test_all_services_killed_at_once_come_back_by_themselves(running: Victim, deposit: Deposit) -> None:
    before = tools.pids(running)
    tools.kill_all(running, *CORE)
    tools.until("all to be back", lambda: all(tools.is_ready(running, n, old=before[n]) for n in CORE))
    deposit.check()
    tools.assert_runs_once(running)


def test_up_right_after_a_kill_waits_for_the_service_that_is_just_coming_back(
    running: Victim, deposit: Deposit
) -> None:
    tools.kill_all(running, "postgres", "minio-results")
    running.up()
    deposit.check()
    assert tools.whole(running)


def test_a_killed_supervisor_is_reported_and_the_next_up_adopts_the_services(running: Victim, deposit: Deposit) -> None:
    before = tools.pids(running)
    supervisor = running.pid("supervisor")
    tools.kill_all(running, "supervisor")
    deposit.check()
    code, envelope = tools.answer(running, "status")
    assert code == 7
    assert envelope["data"]["state"] == "degraded"
    assert {s["state"] for s in envelope["data"]["services"]} == {"unsupervised"}
    assert all("its supervisor has ended" in s["detail"] for s in envelope["data"]["services"])
    assert "invoke up" in running.invoke("status", "--why").stdout
    running.up()
    assert tools.pids(running) == before
    assert running.pid("supervisor") != supervisor
    assert running.invoke("status").returncode == 0
    deposit.check()
    tools.assert_runs_once(running)
    tools.kill_all(running, "redis")
    tools.until("an adopted service to be restarted", lambda: tools.is_ready(running, "redis", old=before["redis"]))


def test_a_killed_supervisor_and_killed_services_are_repaired_by_up(running: Victim, deposit: Deposit) -> None:
    before = tools.pids(running)
    tools.kill_all(running, "supervisor", "postgres", "minio-datasets")
    code, envelope = tools.answer(running, "status")
    states = {s["name"]: s["state"] for s in envelope["data"]["services"]}
    assert (code, states["postgres"], states["minio-datasets"]) == (7, "stopped", "stopped")
    running.up()
    after = tools.pids(running)
    assert {name for name in CORE if after[name] != before[name]} == {"postgres", "minio-datasets"}
    deposit.check()
    tools.assert_runs_once(running)


@pytest.mark.fault(24)
def test_everything_killed_at_once_is_started_again_by_up(running: Victim, deposit: Deposit) -> None:
    tools.kill_all(running, "supervisor", *CORE)
    tools.assert_nothing_runs(running)
    assert running.invoke("status").returncode == 9
    running.up()
    deposit.check()
    tools.assert_runs_once(running)


def test_down_stops_services_that_lost_their_supervisor(running: Victim, deposit: Deposit) -> None:
    tools.kill_all(running, "supervisor")
    done = running.invoke("down", check=True)
    assert "stopped" in done.stdout
    tools.assert_nothing_runs(running)
    assert running.invoke("status").returncode == 9
    running.up()
    deposit.check()


def test_down_right_after_everything_was_killed_says_that_nothing_ran(running: Victim) -> None:
    tools.kill_all(running, "supervisor", *CORE)
    tools.assert_nothing_runs(running)
    assert "nothing was running" in running.invoke("down", check=True).stdout
    assert running.invoke("status").returncode == 9


def test_a_supervisor_killed_while_it_starts_services_leaves_no_duplicate(stopped: Victim) -> None:
    """Killed at moments that hit the starting of processes; the next `up` finds each of them again."""
    for life in range(MANY):
        process = tools.start(stopped, "up")
        # The first life ends before a process is written down, later ones after some were.
        tools.until("services", partial(_more_run, stopped, life + 2))
        for supervisor in filter(tools.is_supervisor, stopped.stage.left_over()):
            supervisor.send_signal(signal.SIGKILL)
        tools.ended(process)  # it starts another supervisor, or says what is wrong
    stopped.up()
    assert tools.whole(stopped)
    tools.assert_runs_once(stopped)


def _more_run(victim: Victim, count: int) -> bool:
    return len(tools.roots(victim)) > count


def test_sigterm_ends_the_supervisor_and_all_services_in_order(running: Victim, deposit: Deposit) -> None:
    supervisor = tools.process_of(running, "supervisor")
    supervisor.terminate()
    tools.assert_nothing_runs(running)
    log = (running.stack_home / "native" / "logs" / "postgres.log").read_text(encoding="utf-8", errors="replace")
    assert "database system is shut down" in log.splitlines()[-1]
    assert running.invoke("status").returncode == 9
    running.up()
    deposit.check()
    tools.assert_runs_once(running)


@pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")
def test_sigterm_stops_a_service_before_what_it_needs(tmp_path: Path) -> None:
    """A small directory of its own: base <- middle <- top, each of which notes its end."""
    ends = tmp_path / "ends"
    code = (
        "import signal, sys, time\n"
        "def end(*_):\n"
        "    time.sleep(0.1)\n"
        "    open(sys.argv[1], 'a').write(sys.argv[2] + '\\n')\n"
        "    sys.exit()\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "print('on', flush=True)\n"
        "while True: time.sleep(1)\n"
    )
    needs = {"base": [], "middle": ["base"], "top": ["middle"]}
    specs = []
    for name, before in needs.items():
        (tmp_path / name).mkdir()
        argv = [sys.executable, "-c", code, str(ends), name]
        specs.append(Spec(name, argv, str(tmp_path / name), str(tmp_path / f"{name}.log"), needs=before))
    try:
        supervise.ensure(tmp_path, specs)
        logs = [Path(s.log) for s in specs]
        tools.until("all to run", lambda: all(log.exists() and "on" in log.read_text() for log in logs))
        identity = supervise.supervisor_identity(tmp_path)
        assert identity is not None
        supervisor = identity.process()
        assert supervisor is not None
        left = supervise.survivors(tmp_path)
        supervisor.terminate()
        tools.until("the supervisor's end", lambda: not tools.alive(identity.pid))
        assert ends.read_text().split() == ["top", "middle", "base"]
        assert len(left) == len(specs)
        assert not [s for s in left if s.pid and tools.alive(s.pid)]
    finally:
        supervise.stop(tmp_path)
