"""A real supervisor with tiny programs as services: what it promises to those who ask it for something."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from infra.errors import PlatformError
from infra.settings import ROOT
from infra.supervision import client, process
from infra.supervision.client import Spec
from tests.unit.helpers import eventually, free_port
from tests.unit.tiers.services import (
    SLEEP,
    STUBBORN,
    kill_supervisor,
    listening,
    lives,
    pids,
    reach,
    spec,
    state,
    supervisor_pid,
    up,
)

pytestmark = [
    pytest.mark.skipif(os.name == "nt", reason="kill -9 and sessions of POSIX"),
    # The supervisor is meant to outlive the process that starts it.
    pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning"),
]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A tier's directory with blanks and letters that not every program likes."""
    made = tmp_path / "a b" / "한글" / "native"
    made.mkdir(parents=True)
    return made


# --- a normal life


def test_services_get_ready_and_a_second_wish_changes_nothing(home: Path) -> None:
    specs = [listening(home, "web", free_port()), spec(home, "job")]
    with up(home, specs):
        before, supervisor = pids(home), supervisor_pid(home)
        client.ensure(home, specs)
        assert lives(before["web"])
        time.sleep(0.2)
        assert (pids(home), supervisor_pid(home)) == (before, supervisor)
        assert [s.name for s in client.desired(home)] == ["web", "job"]


def test_the_wish_is_private_since_it_holds_passwords(home: Path) -> None:
    with up(home, [spec(home, "job", env={"PASSWORD": "geheim"})]):
        mode = (home / client.DESIRED).stat().st_mode
        assert stat.S_IMODE(mode) == 0o600
        assert "geheim" not in (home / client.STATE).read_text()


def test_a_killed_service_comes_back_as_a_new_process(home: Path) -> None:
    with up(home, [spec(home, "job"), spec(home, "other")]):
        before = pids(home)
        os.kill(before["job"] or 0, signal.SIGKILL)
        eventually(lambda: pids(home).get("job") not in (None, before["job"]))
        reach(home, "ready", "job")
        after = state(home, "job")
        assert after is not None
        assert after.restarts == 1
        assert pids(home)["other"] == before["other"]


def test_another_command_restarts_that_service_alone(home: Path) -> None:
    job, other = spec(home, "job"), spec(home, "other")
    with up(home, [job, other]):
        before = pids(home)
        client.ensure(home, [replace(job, env={"X": "1"}), other])
        eventually(lambda: pids(home).get("job") not in (None, before["job"]))
        assert not lives(before["job"])
        assert pids(home)["other"] == before["other"]


def test_a_restart_that_was_asked_for(home: Path) -> None:
    specs = [spec(home, "job"), spec(home, "other")]
    with up(home, specs):
        before = pids(home)
        client.restart(home, ["job"])
        eventually(lambda: pids(home).get("job") not in (None, before["job"]))
        reach(home, "ready", "job")
        after = pids(home)
        assert after["other"] == before["other"]
        client.ensure(home, specs)
        time.sleep(0.2)
        assert pids(home) == after, "the next `up` must not undo the restart with another one"


def test_those_with_certain_variables_get_other_values_of_them(home: Path) -> None:
    user, other = replace(spec(home, "user"), env={"URL": "old", "GONE": "x", "OWN": "y"}), spec(home, "other")
    with up(home, [user, other]):
        before = pids(home)
        client.renew(home, {"URL": "new", "ADDED": "z"}, ("URL", "GONE", "ADDED"))
        eventually(lambda: pids(home).get("user") not in (None, before["user"]))
        assert pids(home)["other"] == before["other"]
        found = next(s for s in client.desired(home) if s.name == "user")
        assert found.env == {"OWN": "y", "URL": "new", "ADDED": "z"}
    stopped = client.desired(home)
    client.renew(home, {"URL": "newer"}, ("URL",))
    assert client.desired(home) == stopped, "where nothing runs, nothing is started"


def test_what_is_no_longer_wanted_is_stopped(home: Path) -> None:
    job, other = spec(home, "job"), spec(home, "other")
    with up(home, [job, other]):
        before = pids(home)
        client.ensure(home, [job])
        eventually(lambda: "other" not in pids(home))
        assert not lives(before["other"])
        assert pids(home)["job"] == before["job"]


# --- stopping


def test_stop_leaves_nothing_and_says_whether_there_was_something(home: Path) -> None:
    with up(home, [spec(home, "job"), listening(home, "web", free_port())]):
        before, supervisor = pids(home), supervisor_pid(home)
        assert client.stop(home)
        assert not any(map(lives, before.values()))
        eventually(lambda: not lives(supervisor))
        assert not client.running(home)
        assert client.states(home) == {}
        assert not client.stop(home)


def test_stop_where_nothing_ever_ran(home: Path) -> None:
    assert not client.stop(home)
    assert list(home.iterdir()) == [], "and asking leaves nothing behind"
    assert not client.stop(home / "not there")


def test_a_start_after_a_stop(home: Path) -> None:
    specs = [spec(home, "job")]
    with up(home, specs):
        client.stop(home)
        client.ensure(home, specs)
        reach(home, "ready", "job")


def test_a_service_that_ignores_its_signal_is_killed_after_its_grace(home: Path) -> None:
    with up(home, [spec(home, "deaf", STUBBORN, grace=0.2)]):
        eventually(lambda: (home / "logs" / "deaf.log").read_text() == "up\n")
        pid = pids(home)["deaf"]
        assert client.stop(home)
        assert not lives(pid)


def test_a_stop_that_takes_too_long_says_what_still_runs(home: Path) -> None:
    with up(home, [spec(home, "deaf", STUBBORN, grace=60.0)]):
        eventually(lambda: (home / "logs" / "deaf.log").read_text() == "up\n")
        with pytest.raises(PlatformError) as caught:
            client.stop(home, timeout=0.2)
    assert (caught.value.code, caught.value.exit) == ("WAIT_TIMEOUT", 6)
    assert "deaf" in caught.value.what


def test_stop_works_on_a_full_disk(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with up(home, [spec(home, "job"), spec(home, "other")]):
        before = pids(home)
        monkeypatch.setattr(client, "write_atomic", full)
        assert client.stop(home)
        assert not any(map(lives, before.values()))
        assert not client.running(home)
        assert not client.stop(home)


def test_stop_that_can_neither_write_nor_ask_anybody_says_so(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with up(home, [spec(home, "job")]):
        kill_supervisor(home)
        monkeypatch.setattr(client, "write_atomic", full)
        with pytest.raises(PlatformError) as caught:
            client.stop(home)
        assert caught.value.code == "STATE_UNWRITABLE"
        assert lives(pids(home)["job"])


ORDERED = """
import signal, sys, time
def end(*_):
    with open(sys.argv[1], "a") as file: file.write(sys.argv[2])
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
print("up", flush=True)
time.sleep(600)
"""


def ordered(home: Path, name: str, *needs: str) -> Spec:
    """A service that notes when it was asked to end."""
    plain = spec(home, name, ORDERED, needs=list(needs))
    return replace(plain, argv=[*plain.argv, str(home / "order"), name])


def test_services_stop_before_what_they_need(home: Path) -> None:
    specs = [ordered(home, "a"), ordered(home, "b", "a"), ordered(home, "c", "b")]
    with up(home, specs):
        eventually(lambda: all((home / "logs" / f"{n}.log").read_text() == "up\n" for n in "abc"))
        client.stop(home)
        assert (home / "order").read_text() == "cba"


ABANDONING = f"""
import subprocess, sys, time
leaf = [sys.executable, "-S", "-c", {STUBBORN!r}]
code = "import subprocess, sys; subprocess.Popen(sys.argv[1:])"
subprocess.run([sys.executable, "-S", "-c", code, *leaf])
time.sleep(600)
"""


def session_of(home: Path, name: str) -> list[int]:
    found = state(home, name)
    assert found is not None
    assert found.identity is not None
    return [p.pid for p in process.session_members(found.identity) if lives(p.pid)]


@pytest.mark.parametrize("killed", [False, True], ids=["stopped", "crashed"])
def test_what_a_service_left_behind_is_swept(home: Path, killed: bool) -> None:
    """MLflow's children survive it and hold its port."""
    with up(home, [spec(home, "web", ABANDONING)]):
        eventually(lambda: (home / "logs" / "web.log").read_text() == "up\n")
        eventually(lambda: len(session_of(home, "web")) == 2)
        before = session_of(home, "web")
        if killed:
            os.kill(pids(home)["web"] or 0, signal.SIGKILL)
            eventually(lambda: not any(map(lives, before)))
        else:
            client.stop(home)
            assert not any(map(lives, before))


def test_sigterm_to_the_supervisor_stops_its_services(home: Path) -> None:
    with up(home, [spec(home, "job")]):
        before = pids(home)
        os.kill(supervisor_pid(home), signal.SIGTERM)
        eventually(lambda: not client.running(home))
        assert not lives(before["job"])


# --- one supervisor a directory


def test_a_second_supervisor_ends_at_once_and_harms_nothing(home: Path) -> None:
    with up(home, [spec(home, "job")]):
        before = pids(home), supervisor_pid(home)
        command = [sys.executable, "-m", "infra.supervision.supervisor", str(home)]
        assert subprocess.run(command, cwd=ROOT, check=False).returncode == 0
        assert (pids(home), supervisor_pid(home)) == before


def test_asking_again_while_it_wakes_up_starts_no_second_one(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every look of a wait asks; each further Python process would slow the start down."""
    started: list[Any] = []
    real = subprocess.Popen

    def counting(*arguments: Any, **options: Any) -> Any:
        started.append(arguments)
        return real(*arguments, **options)

    monkeypatch.setattr(subprocess, "Popen", counting)
    with up(home, []):
        for _ in range(20):
            client.start_supervisor(home)
            assert client.running(home)
    assert len(started) == 1


# --- the supervisor dies


def test_services_survive_their_supervisor_and_are_adopted(home: Path) -> None:
    specs = [spec(home, "job"), listening(home, "web", free_port())]
    with up(home, specs):
        before, supervisor = pids(home), supervisor_pid(home)
        kill_supervisor(home)
        assert {s.name for s in client.survivors(home)} == {"job", "web"}
        client.ensure(home, specs)
        eventually(lambda: supervisor_pid(home) != supervisor)
        reach(home, "ready", "job", "web")
        assert pids(home) == before
        assert all(map(lives, before.values()))


def test_an_adopted_service_is_supervised_like_any_other(home: Path) -> None:
    specs = [spec(home, "job")]
    with up(home, specs):
        before = pids(home)
        kill_supervisor(home)
        client.ensure(home, specs)
        eventually(lambda: client.running(home))
        os.kill(before["job"] or 0, signal.SIGKILL)
        eventually(lambda: pids(home).get("job") not in (None, before["job"]))


def test_stop_finds_the_services_of_a_dead_supervisor(home: Path) -> None:
    with up(home, [spec(home, "job"), spec(home, "deaf", STUBBORN, grace=0.2)]):
        before = pids(home)
        kill_supervisor(home)
        assert client.stop(home)
        assert not any(map(lives, before.values()))
        assert not client.running(home)
        assert not client.stop(home)


def test_a_new_supervisor_stops_what_is_not_wanted_as_it_runs(home: Path) -> None:
    job, other = spec(home, "job"), spec(home, "other")
    with up(home, [job, other]):
        before = pids(home)
        kill_supervisor(home)
        client.ensure(home, [replace(job, env={"X": "1"})])
        eventually(lambda: pids(home).get("job") not in (None, before["job"]))
        reach(home, "ready", "job")
        assert not any(map(lives, before.values()))


# --- the state file is damaged

DAMAGED = [
    "",
    "garbage",
    "[]",
    "null",
    '{"services": []}',
    '{"services": {"job": 5}}',
    '{"services": {"job": {"state": "ready", "pid": "x", "create_time": "y"}}}',
    '{"services": {"job": {"state": "ready", "pid": [1], "create_time": 1.0, "grace": null}}}',
    '{"services": {"job": {"state": "ready", "unknown": 1}}}',
    '{"services": {"job": {}}}',
    '{"supervisor": 7, "services": null}',
]


@pytest.fixture(scope="module")
def orphans(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, int]]:
    """A directory with a service whose supervisor is dead, and the service's pid."""
    home = tmp_path_factory.mktemp("orphans") / "native"
    with up(home, [spec(home, "job")]):
        pid = pids(home)["job"]
        assert pid is not None
        kill_supervisor(home)
        yield home, pid


@pytest.mark.parametrize("text", [*DAMAGED, None])
def test_a_service_is_recognised_without_a_sound_state_file(orphans: tuple[Path, int], text: str | None) -> None:
    home, pid = orphans
    (home / client.STATE).unlink(missing_ok=True)
    if text is not None:
        (home / client.STATE).write_text(text)
    (found,) = client.survivors(home)
    assert (found.name, found.pid) == ("job", pid)


@pytest.mark.parametrize("text", [*DAMAGED, None])
def test_questions_about_a_damaged_state_get_an_answer(home: Path, text: str | None) -> None:
    if text is not None:
        (home / client.STATE).write_text(text)
    assert client.survivors(home) == []
    assert client.supervisor_identity(home) is None
    assert not client.running(home)
    assert not client.stop(home)


@pytest.mark.parametrize("text", [DAMAGED[1], DAMAGED[2], DAMAGED[6]])
def test_services_are_adopted_in_spite_of_a_damaged_state_file(home: Path, text: str) -> None:
    specs = [spec(home, "job")]
    with up(home, specs):
        before = pids(home)
        kill_supervisor(home)
        (home / client.STATE).write_text(text)
        client.ensure(home, specs)
        reach(home, "ready", "job")
        assert pids(home) == before
        (kept,) = home.glob(f"{client.STATE}.damaged-*")
        assert kept.read_text() == text


def test_stop_works_in_spite_of_a_damaged_state_file(home: Path) -> None:
    with up(home, [spec(home, "job")]):
        before = pids(home)
        kill_supervisor(home)
        (home / client.STATE).write_text("garbage")
        assert client.stop(home)
        assert not lives(before["job"])


def test_a_damaged_wish_is_no_wish_to_stop_everything(home: Path) -> None:
    with up(home, [spec(home, "job")]):
        before = pids(home)
        for text in ("garbage", '{"services": 5}', '{"services": [{"nonsense": 1}]}'):
            (home / client.DESIRED).write_text(text)
            time.sleep(0.1)
        (home / client.DESIRED).unlink()
        time.sleep(0.1)
        assert pids(home) == before
        client.ensure(home, [spec(home, "job")])
        time.sleep(0.1)
        assert pids(home) == before


# --- pids of others


def record(home: Path, name: str, pid: int, create_time: float) -> None:
    """A state file of an earlier supervisor that knows a service by this pid."""
    entry = {"state": "ready", "pid": pid, "create_time": create_time, "fingerprint": "old", "grace": 0.1}
    (home / client.STATE).write_text(json.dumps({"supervisor": {}, "services": {name: entry}}))


@pytest.fixture
def stranger(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process of the user's own, leader of a session, that is none of our services."""
    with open(tmp_path / "stranger.log", "ab") as log:
        argv = [sys.executable, "-S", "-c", SLEEP]
        child = process.spawn(argv, cwd=tmp_path, log=log, env=process.environment({}))
    with child:
        try:
            yield child
        finally:
            child.kill()


def test_a_stranger_that_got_an_old_pid_is_left_alone(home: Path, stranger: subprocess.Popen[bytes]) -> None:
    identity = process.identify(stranger.pid)
    assert identity is not None
    record(home, "job", stranger.pid, identity.create_time - 5)
    assert client.survivors(home) == []
    assert not client.stop(home), "nothing of ours runs"
    with up(home, [spec(home, "job")]):
        eventually(lambda: pids(home).get("job") not in (None, stranger.pid))
        client.stop(home)
    assert stranger.poll() is None


def test_the_process_with_that_very_start_time_is_ours(home: Path, stranger: subprocess.Popen[bytes]) -> None:
    """The counterpart: it shows that the test above would notice a kill."""
    identity = process.identify(stranger.pid)
    assert identity is not None
    record(home, "job", stranger.pid, identity.create_time)
    assert client.stop(home)
    assert stranger.wait() != 0


def of_another_version(home: Path) -> int:
    """The pid of the supervisor, which says now that it is of an earlier version."""
    pid = supervisor_pid(home)
    found = json.loads((home / client.STATE).read_text(encoding="utf-8"))
    os.kill(pid, signal.SIGSTOP)  # else it writes the file again
    found["supervisor"]["format"] = client.FORMAT - 1
    (home / client.STATE).write_text(json.dumps(found), encoding="utf-8")
    return pid


def test_a_supervisor_of_another_version_makes_way_and_its_services_run_on(home: Path) -> None:
    specs = [spec(home, "a"), spec(home, "b")]
    with up(home, specs):
        before, old = pids(home), of_another_version(home)
        client.ensure(home, specs)
        eventually(lambda: supervisor_pid(home) != old)
        reach(home, "ready", "a", "b")
        assert pids(home) == before


def test_a_supervisor_of_another_version_makes_way_for_a_restart_too(home: Path) -> None:
    with up(home, [spec(home, "a"), spec(home, "b")]):
        before, old = pids(home), of_another_version(home)
        client.restart(home, ["a"])
        eventually(lambda: supervisor_pid(home) != old)
        eventually(lambda: pids(home).get("a") not in (None, before["a"]))
        reach(home, "ready", "a", "b")
        assert pids(home)["b"] == before["b"]
