"""The supervisor in a thread of this process, with delays that a test can wait for."""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from infra.supervision import client, supervisor
from infra.supervision.client import State
from infra.supervision.supervisor import Board, Supervisor, rotate
from tests.unit.helpers import answering, eventually, free_port, serving
from tests.unit.tiers.services import FAILING, listening, lives, pids, reach, spec, state, supervised

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "FIRST_DELAY", 0.01)
    monkeypatch.setattr(supervisor, "GIVE_UP_AFTER", 3)


def known(home: Path, name: str) -> State:
    found = state(home, name)
    assert found is not None
    return found


def detail(home: Path, name: str) -> str:
    found = state(home, name)
    return found.detail if found else ""


# --- the order of starts

GATED = """
import os, socket, sys, time
while not os.path.exists(sys.argv[1]): time.sleep(0.01)
s = socket.create_server(("127.0.0.1", int(sys.argv[2])))
time.sleep(600)
"""


def test_a_service_waits_for_what_it_needs_and_says_so(tmp_path: Path) -> None:
    port, gate = free_port(), tmp_path / "gate"
    first = listening(tmp_path, "first", port)
    first = replace(first, argv=[*first.argv[:3], GATED, str(gate), str(port)])
    with supervised(tmp_path, [spec(tmp_path, "second", needs=["first"]), first]):
        eventually(lambda: detail(tmp_path, "first") == "connection refused")
        second = known(tmp_path, "second")
        assert (second.state, second.detail, second.pid) == ("waiting", "waits for first", None)
        gate.touch()
        reach(tmp_path, "ready", "first", "second")


def test_independent_services_do_not_wait_for_each_other(tmp_path: Path) -> None:
    slow = spec(tmp_path, "slow", probe={"kind": "tcp", "host": "127.0.0.1", "port": free_port()})
    with supervised(tmp_path, [slow, spec(tmp_path, "quick")]):
        reach(tmp_path, "ready", "quick")
        assert known(tmp_path, "slow").state == "starting"


WRITING = """
import os, sys, time
os.close(os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY, 0o666))
time.sleep(600)
"""


def test_a_service_makes_files_as_its_specification_says(tmp_path: Path) -> None:
    """Those of a server are nobody else's, whatever the shell that started the supervisor allows."""
    before = os.umask(0o002)
    try:
        made = [spec(tmp_path, name) for name in ("server", "worker")]
        argv = [sys.executable, "-c", WRITING]
        closed, plain = (replace(s, argv=[*argv, str(tmp_path / f"made-by-{s.name}")]) for s in made)
        assert client.Spec.__dataclass_fields__["umask"].default == 0o077
        with supervised(tmp_path, [replace(closed, umask=0o077), replace(plain, umask=-1)]):
            eventually(lambda: len(list(tmp_path.glob("made-by-*"))) == 2)
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.glob("made-by-*")}
    assert modes == {"made-by-server": 0o600, "made-by-worker": 0o664}


# --- crashes


def test_a_service_that_crashes_again_and_again_is_given_up_visibly(tmp_path: Path) -> None:
    with supervised(tmp_path, [spec(tmp_path, "bad", FAILING), spec(tmp_path, "good")]):
        reach(tmp_path, "failed", "bad")
        found = known(tmp_path, "bad")
        assert found.detail == f"ended by itself (exit 3); gave up after {supervisor.GIVE_UP_AFTER} tries"
        assert (found.restarts, found.pid) == (supervisor.GIVE_UP_AFTER, None)
        assert (tmp_path / "logs" / "bad.log").read_text() == "it broke\n" * supervisor.GIVE_UP_AFTER
        assert known(tmp_path, "good").state == "ready"


def test_the_delay_doubles_up_to_a_limit_and_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "LONGEST_DELAY", 0.02)
    monkeypatch.setattr(supervisor, "GIVE_UP_AFTER", 4)
    told: list[str] = []
    real = Board.put

    def put(board: Board, name: str, **facts: object) -> None:
        told.extend([str(facts["detail"])] if facts.get("state") == "backoff" else [])
        real(board, name, **facts)

    monkeypatch.setattr(Board, "put", put)
    with supervised(tmp_path, [spec(tmp_path, "bad", FAILING)]):
        reach(tmp_path, "failed", "bad")
    delays = [line.rpartition("; next try in ")[2] for line in told]
    assert delays == ["0.01 s", "0.02 s", "0.02 s"]


def test_a_service_that_is_killed_says_by_which_signal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "FIRST_DELAY", 600.0)
    monkeypatch.setattr(supervisor, "LONGEST_DELAY", 600.0)
    with supervised(tmp_path, [spec(tmp_path, "job")]):
        reach(tmp_path, "ready", "job")
        os.kill(known(tmp_path, "job").pid or 0, signal.SIGKILL)
        reach(tmp_path, "backoff", "job")
        assert known(tmp_path, "job").detail == "ended by itself (signal 9); next try in 600 s"


def test_crashes_are_forgotten_after_a_steady_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "STEADY", 0.0)
    with supervised(tmp_path, [spec(tmp_path, "job")]) as made:
        for count in range(1, supervisor.GIVE_UP_AFTER + 2):
            reach(tmp_path, "ready", "job")
            eventually(lambda: made.runners["job"].crashes == 0)
            os.kill(known(tmp_path, "job").pid or 0, signal.SIGKILL)
            eventually(lambda n=count: known(tmp_path, "job").restarts == n)  # type: ignore[misc]
        reach(tmp_path, "ready", "job")


def test_a_program_that_is_not_there_fails_with_the_reason(tmp_path: Path) -> None:
    missing = replace(spec(tmp_path, "job"), argv=["/no/such/program"])
    with supervised(tmp_path, [missing]):
        reach(tmp_path, "failed", "job")
        assert "cannot start: " in known(tmp_path, "job").detail
        assert "/no/such/program" in known(tmp_path, "job").detail


def test_a_directory_that_is_not_there_fails_with_the_reason(tmp_path: Path) -> None:
    with supervised(tmp_path, [replace(spec(tmp_path, "job"), cwd=str(tmp_path / "gone"))]):
        reach(tmp_path, "failed", "job")
        assert "gone" in known(tmp_path, "job").detail


def test_asking_again_for_a_failed_service_tries_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And its old failure is not taken for the outcome: the wish has another fingerprint than the failed state."""
    monkeypatch.setattr(client, "start_supervisor", lambda home: None)
    gate = tmp_path / "gate"
    code = f"import os, sys, time; os.path.exists({str(gate)!r}) or sys.exit(1); time.sleep(600)"
    job = spec(tmp_path, "job", code)
    with supervised(tmp_path, [job]):
        reach(tmp_path, "failed", "job")
        old = known(tmp_path, "job").fingerprint
        gate.touch()
        client.ensure(tmp_path, [job])
        assert [s.fingerprint for s in client.desired(tmp_path)] != [old]
        reach(tmp_path, "ready", "job")


# --- readiness


def test_a_service_that_is_late_says_what_is_missing_and_goes_on(tmp_path: Path) -> None:
    probe = {"kind": "tcp", "host": "127.0.0.1", "port": free_port()}
    with supervised(tmp_path, [spec(tmp_path, "job", probe=probe, budget=0.0)]):
        eventually(lambda: "connection refused (not ready after 0 s)" in detail(tmp_path, "job"))
        assert known(tmp_path, "job").state == "starting"


def test_a_refused_login_is_marked_as_hopeless(tmp_path: Path) -> None:
    with serving(answering(b"-NOAUTH Authentication required.\r\n")) as port:
        probe = {"kind": "redis", "host": "127.0.0.1", "port": port}
        with supervised(tmp_path, [spec(tmp_path, "redis", probe=probe)]):
            eventually(lambda: detail(tmp_path, "redis") == "NOAUTH Authentication required.")
            assert known(tmp_path, "redis").fatal


# --- what cannot be written


def test_a_state_file_that_cannot_be_written_does_not_stop_the_supervision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(supervisor, "write_atomic", full)
    with supervised(tmp_path, [spec(tmp_path, "job")]) as made:
        eventually(lambda: made.board.state("job") == "ready")
        before = made.board.entries["job"]["pid"]
        os.kill(before, signal.SIGKILL)
        eventually(lambda: made.board.state("job") == "ready" and made.board.entries["job"]["pid"] != before)
        after = made.board.entries["job"]["pid"]
    assert not lives(after)
    assert "cannot write the state file" in capsys.readouterr().out


def test_each_change_is_in_the_file_with_the_time_of_the_last_new_state(tmp_path: Path) -> None:
    board = Board(tmp_path)
    board.put("job", state="starting")
    since = known(tmp_path, "job").since
    board.put("job", detail="refused")
    assert (known(tmp_path, "job").since, known(tmp_path, "job").detail) == (since, "refused")
    board.put("job", state="ready")
    assert known(tmp_path, "job").since > since
    written = json.loads((tmp_path / client.STATE).read_text())
    assert written["supervisor"]["pid"] == os.getpid()
    board.drop("job")
    assert state(tmp_path, "job") is None


# --- stopping


@pytest.fixture
def stopper(tmp_path: Path) -> list[str]:
    """A program that stops a service where signals do not reach it, as pg_ctl does on Windows."""
    code = f"import os, sys; open({str(tmp_path / 'stopped')!r}, 'w').close(); os.kill(int(sys.argv[1]), 9)"
    return [spec(tmp_path, "x").argv[0], "-S", "-c", code]


def test_a_service_with_a_program_to_stop_it_is_stopped_by_that(tmp_path: Path, stopper: list[str]) -> None:
    with supervised(tmp_path, [spec(tmp_path, "job")]) as made:
        reach(tmp_path, "ready", "job")
        pid = pids(tmp_path)["job"]
        made.runners["job"].spec = replace(made.runners["job"].spec, stop_argv=[*stopper, str(pid)])
    assert (tmp_path / "stopped").exists()
    assert not lives(pid)


def test_a_service_that_waits_or_failed_is_stopped_without_delay(tmp_path: Path) -> None:
    waiting = spec(tmp_path, "waiting", needs=["never"])
    with supervised(tmp_path, [waiting, spec(tmp_path, "bad", FAILING)]) as made:
        reach(tmp_path, "failed", "bad")
        reach(tmp_path, "waiting", "waiting")
    assert made.runners == {}


def test_services_that_need_each_other_are_stopped_all_the_same(tmp_path: Path) -> None:
    specs = [spec(tmp_path, "a", needs=["b"]), spec(tmp_path, "b", needs=["a"])]
    with supervised(tmp_path, specs) as made:
        reach(tmp_path, "waiting", "a", "b")
    assert made.runners == {}


def test_a_supervisor_of_nothing_ends(tmp_path: Path) -> None:
    (tmp_path / client.DESIRED).write_text('{"shutdown": true, "services": []}')
    Supervisor(tmp_path).serve()


# --- logs


def test_a_log_that_has_grown_is_put_aside_while_its_writer_goes_on(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    with open(log, "ab", buffering=0) as writer:
        for number in range(4):
            writer.write(b"%d" % number * 11)
            rotate(log, limit=10, keep=2)
        writer.write(b"4")
        rotate(log, limit=10, keep=2)
    assert log.read_bytes() == b"4"
    kept = {p.name: p.read_bytes() for p in tmp_path.glob("x.log.*")}
    assert kept == {"x.log.1": b"3" * 11, "x.log.2": b"2" * 11}


def test_a_log_that_is_not_there_is_no_error(tmp_path: Path) -> None:
    rotate(tmp_path / "missing.log")
    assert list(tmp_path.iterdir()) == []


def test_the_supervisor_rotates_the_logs_of_services_that_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[Path] = []
    monkeypatch.setattr(supervisor, "rotate", limits.append)
    with supervised(tmp_path, [spec(tmp_path, "job")]):
        eventually(lambda: tmp_path / "logs" / "job.log" in limits)
