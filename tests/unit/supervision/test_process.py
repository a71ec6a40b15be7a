from __future__ import annotations

import contextlib
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import psutil
import pytest

from infra.supervision import process
from infra.supervision.process import Identity
from tests.unit.helpers import eventually

PYTHON = [sys.executable, "-S", "-c"]
SLEEP = [*PYTHON, "import time; time.sleep(600)"]
posix = pytest.mark.skipif(os.name == "nt", reason="sessions and signals of POSIX")


@contextlib.contextmanager
def spawned(directory: Path, argv: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """A service as the supervisor starts it; killed with its whole session at the end."""
    with open(directory / "log", "ab") as log:
        child = process.spawn(argv, cwd=directory, log=log, env=process.environment({}))
    with child:
        identity = process.identify(child.pid)
        assert identity is not None
        try:
            yield child
        finally:
            process.end_all(process.session_members(identity), grace=0)
            child.kill()


def identity_of(child: subprocess.Popen[bytes]) -> Identity:
    found = process.identify(child.pid)
    assert found is not None
    return found


def said(directory: Path) -> str:
    return (directory / "log").read_text()


@posix
@pytest.mark.parametrize(("umask", "mode"), [(0o077, 0o600), (-1, 0o664)])
def test_files_of_a_service_are_private_unless_they_are_the_users(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(0o002)
    try:
        with open(tmp_path / "log", "ab") as log:
            argv = [*PYTHON, "open('made', 'w')"]
            process.spawn(argv, cwd=tmp_path, log=log, env=process.environment({}), umask=umask).wait()
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "made").stat().st_mode) == mode


# --- the environment of a service


def test_a_service_gets_what_every_program_needs_and_nothing_else_of_the_shell() -> None:
    others = ["PGDATA", "PGPASSWORD", "MINIO_ROOT_USER", "RCLONE_CONFIG", "TEMPORAL_ADDRESS", "MLFLOW_TRACKING_URI"]
    others += [
        "PYTHONPATH",
        "AWS_PROFILE",
        "ROOT_ACCESS_KEY",
        "HF_TOKEN",
        "GITHUB_TOKEN",
        "SSH_AUTH_SOCK",
        "LD_PRELOAD",
    ]
    kept = {"PATH": "/bin", "HOME": "/h", "LANG": "C", "LC_ALL": "C", "TZ": "UTC", "TMPDIR": "/t", "SystemRoot": "C:/W"}
    kept |= {"LD_LIBRARY_PATH": "/l", "CUDA_VISIBLE_DEVICES": "0", "NVIDIA_VISIBLE_DEVICES": "all"}
    assert process.environment({}, {**dict.fromkeys(others, "x"), **kept}) == kept


def test_a_setting_names_what_more_a_service_gets() -> None:
    shell = {"HF_TOKEN": "t", "OTHER": "o", "THIRD": "3"}
    found = process.environment({process.PASSED: "HF_TOKEN, OTHER,NOT_THERE"}, shell)
    assert found == {"HF_TOKEN": "t", "OTHER": "o", process.PASSED: "HF_TOKEN, OTHER,NOT_THERE"}


def test_what_the_specification_says_is_added_last() -> None:
    assert process.environment({"PATH": "/ours", "AWS_REGION": "r"}, {"PATH": "/bin", "AWS_PROFILE": "p"}) == {
        "PATH": "/ours",
        "AWS_REGION": "r",
    }


def test_the_present_environment_is_the_base(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_SOMETHING", "1")
    assert process.environment({})["LC_SOMETHING"] == "1"


# --- starting


def test_options_for_posix_and_windows() -> None:
    assert process.spawn_options(False, None) == {"start_new_session": True}
    dropped = {"start_new_session": True, "user": 7, "group": 8, "extra_groups": []}
    assert process.spawn_options(False, (7, 8)) == dropped
    assert process.spawn_options(True, (7, 8)) == {"creationflags": 0x08000200}


@posix
def test_a_service_leads_a_session_of_its_own_in_its_directory(tmp_path: Path) -> None:
    tell = "import os, time; print(os.getsid(0), os.getcwd(), os.isatty(0), flush=True); time.sleep(600)"
    with spawned(tmp_path, [*PYTHON, tell]) as child:
        eventually(lambda: said(tmp_path).endswith("\n"))
        assert said(tmp_path).split() == [str(child.pid), str(tmp_path.resolve()), "False"]


def test_output_is_appended_to_the_log(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("before\n")
    with spawned(tmp_path, [*PYTHON, "import sys; print('out', flush=True); print('err', file=sys.stderr)"]) as child:
        child.wait()
    assert said(tmp_path).splitlines() == ["before", "out", "err"]


def test_a_program_that_is_not_there_is_an_os_error(tmp_path: Path) -> None:
    with open(tmp_path / "log", "ab") as log, pytest.raises(FileNotFoundError):
        process.spawn(["/no/such/program"], cwd=tmp_path, log=log, env={})


# --- recognising


def test_a_running_process_is_recognised_by_its_identity(tmp_path: Path) -> None:
    with spawned(tmp_path, SLEEP) as child:
        found = identity_of(child).process()
        assert found is not None
        assert found.pid == child.pid


def test_another_process_with_the_same_pid_is_not_taken_for_it(tmp_path: Path) -> None:
    with spawned(tmp_path, SLEEP) as child:
        earlier = Identity(child.pid, identity_of(child).create_time - 5.0)
        assert earlier.process() is None
        assert process.session_members(earlier) == []


def test_a_process_that_has_ended_is_not_there_even_before_it_is_reaped(tmp_path: Path) -> None:
    with spawned(tmp_path, SLEEP) as child:
        identity = identity_of(child)
        child.kill()
        eventually(lambda: identity.process() is None)
        child.wait()
        assert identity.process() is None
        assert process.identify(child.pid) is None


def test_a_clock_that_is_set_makes_no_stranger_of_a_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Psutil adds the boot time, which moves with the clock; a supervisor must not restart everything for that."""
    if sys.platform != "linux":
        pytest.skip("elsewhere the system keeps the start time itself")
    with spawned(tmp_path, SLEEP) as child:
        identity, booted = identity_of(child), psutil.boot_time()
        monkeypatch.setattr(psutil._pslinux, "boot_time", lambda: booted + 3600)
        assert psutil.Process(child.pid).create_time() > booted + 3600
        assert identity.process() is not None


def test_a_lost_process_is_found_by_its_directory_and_program(tmp_path: Path) -> None:
    directory = tmp_path / "rün dir"
    directory.mkdir()
    with spawned(directory, SLEEP) as child:
        eventually(lambda: process.in_directory(directory, sys.executable) is not None)
        assert process.in_directory(directory, sys.executable) == identity_of(child)
        assert process.in_directory(directory, "/usr/bin/postgres") is None
        assert process.in_directory(tmp_path, sys.executable) is None


_FORKING = "import subprocess, sys, time; subprocess.Popen(sys.argv[1:]); print('up', flush=True); time.sleep(600)"


def test_of_a_family_in_one_directory_the_parent_is_found(tmp_path: Path) -> None:
    with spawned(tmp_path, [*PYTHON, _FORKING, *SLEEP]) as child:
        eventually(lambda: said(tmp_path) == "up\n" and len(psutil.Process(child.pid).children()) == 1)
        assert process.in_directory(tmp_path, sys.executable) == identity_of(child)


# --- stopping


class FakeProcess:
    """What ask_to_stop uses of a psutil.Process."""

    def __init__(self, error: Exception | None = None) -> None:
        self.sent: list[Any] = []
        self.error = error

    def send_signal(self, number: Any) -> None:
        if self.error:
            raise self.error
        self.sent.append(number)


def fake(error: Exception | None = None) -> tuple[FakeProcess, psutil.Process]:
    made = FakeProcess(error)
    return made, cast("psutil.Process", made)


@posix
@pytest.mark.parametrize(("name", "number"), [("TERM", signal.SIGTERM), ("INT", signal.SIGINT)])
def test_each_service_gets_its_own_signal(name: str, number: int) -> None:
    kept, given = fake()
    process.ask_to_stop(given, name, windows=False)
    assert kept.sent == [number]


def test_on_windows_it_is_control_break_to_the_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signal, "CTRL_BREAK_EVENT", "break", raising=False)
    kept, given = fake()
    process.ask_to_stop(given, "INT", windows=True)
    assert kept.sent == ["break"]


@pytest.mark.parametrize("error", [psutil.NoSuchProcess(1), psutil.AccessDenied(1), ProcessLookupError()])
@pytest.mark.parametrize("windows", [True, False])
def test_a_process_that_has_gone_meanwhile_is_no_error(error: Exception, windows: bool) -> None:
    process.ask_to_stop(fake(error)[1], "TERM", windows=windows)


STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
# Starts a grandchild and ends, so that the grandchild belongs to nobody but still to the session.
_ABANDONING = "import subprocess, sys; subprocess.Popen(sys.argv[1:])"


@posix
def test_a_grandchild_that_left_its_parent_is_swept_with_the_session(tmp_path: Path) -> None:
    stubborn = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
    )
    abandoned = [*PYTHON, _ABANDONING, *PYTHON, stubborn]
    with spawned(tmp_path, [*PYTHON, _FORKING, *abandoned]) as child:
        eventually(lambda: said(tmp_path).count("up") == 2 and len(_session(child)) == 2)
        identity, members = identity_of(child), _session(child)
        assert len(process.tree(psutil.Process(child.pid))) < 3, "the tree alone does not find it"
        child.kill()
        child.wait()
        process.end_all(process.session_members(identity), grace=0.1)
        assert not [m for m in members if _lives(m)]


def _session(child: subprocess.Popen[bytes]) -> list[psutil.Process]:
    return [p for p in process.session_members(identity_of(child)) if _lives(p)]


def _lives(member: psutil.Process) -> bool:
    return member.is_running() and member.status() != psutil.STATUS_ZOMBIE


@posix
def test_the_session_of_this_test_is_not_that_of_a_service(tmp_path: Path) -> None:
    with spawned(tmp_path, SLEEP) as child:
        assert [p.pid for p in process.session_members(identity_of(child))] == [child.pid]


def test_whoever_ends_processes_spares_itself(tmp_path: Path) -> None:
    with spawned(tmp_path, SLEEP) as child:
        process.end_all([psutil.Process(), psutil.Process(child.pid)])
        assert child.wait() != 0


def test_a_tree_has_its_children_first(tmp_path: Path) -> None:
    with spawned(tmp_path, [*PYTHON, _FORKING, *SLEEP]) as child:
        eventually(lambda: len(process.tree(psutil.Process(child.pid))) == 2)
        assert process.tree(psutil.Process(child.pid))[-1].pid == child.pid


def test_the_tree_of_a_process_that_has_gone_is_empty(tmp_path: Path) -> None:
    with spawned(tmp_path, SLEEP) as child:
        gone = psutil.Process(child.pid)
    assert process.tree(gone) == []


def test_waiting_for_the_end_of_a_process(tmp_path: Path) -> None:
    with spawned(tmp_path, SLEEP) as child:
        live = psutil.Process(child.pid)
        assert not process.wait_gone(live, 0.05, child)
        child.kill()
        assert process.wait_gone(live, 20, child)
        assert process.wait_gone(live, 0)


@posix
def test_a_zombie_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a container nobody may reap the orphans; waiting for them would make every stop slow."""
    with spawned(tmp_path, SLEEP) as child, monkeypatch.context() as patch:
        zombie = psutil.Process(child.pid)
        os.kill(child.pid, signal.SIGKILL)
        eventually(lambda: zombie.status() == psutil.STATUS_ZOMBIE)
        patch.setattr(time, "sleep", lambda _: pytest.fail("it waits"))
        process.end_all([zombie], grace=600)


def test_a_proxy_is_not_asked_for_this_machine() -> None:
    found = process.environment({}, {"HTTP_PROXY": "http://proxy:3128", "no_proxy": "intern"})
    assert found["NO_PROXY"] == found["no_proxy"] == "intern,127.0.0.1,localhost"
    assert "NO_PROXY" not in process.environment({}, {"A": "1"})
