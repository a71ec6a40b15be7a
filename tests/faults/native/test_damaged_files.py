"""Files of the tool's own that are damaged: processes are recognised all the same, nothing is orphaned or doubled."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.faults.conftest import Victim
from tests.faults.native import tools
from tests.faults.native.tools import Deposit


def _write(data: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(data)


def _json(found: object) -> Callable[[Path], object]:
    return _write(json.dumps(found).encode())


def _half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _directory(path: Path) -> None:
    for _ in range(100):  # a supervisor may have written the file again in between
        with contextlib.suppress(FileExistsError):
            path.unlink()
            path.mkdir()
            break
    (path / "inside").write_text("x")


def _wrong_pids(path: Path) -> None:
    tools.rewrite(path, lambda found: {"services": {n: {**e, "pid": "x"} for n, e in found["services"].items()}})


def _huge_pids(path: Path) -> None:
    tools.rewrite(path, lambda found: {"services": {n: {**e, "pid": 1 << 70} for n, e in found["services"].items()}})


def _no_pids(path: Path) -> None:
    def forget(found: dict[str, Any]) -> dict[str, Any]:
        empty = {"pid": None, "create_time": None, "state": "waiting"}
        return {**found, "services": {n: {**e, **empty} for n, e in found["services"].items()}}

    tools.rewrite(path, forget)


STATE_DAMAGE: dict[str, Callable[[Path], object]] = {
    "garbage": _write(b"\x00\xff{\xfe" * 40),
    "empty": _write(b""),
    "cut off": _half,
    "a list": _json([1, 2]),
    "services of a wrong kind": _json({"supervisor": 7, "services": [5]}),
    "entries of a wrong kind": _json({"supervisor": {"pid": [], "create_time": {}}, "services": {"redis": {"x": 1}}}),
    "pids that are words": _wrong_pids,
    "pids that are too large": _huge_pids,
    "a directory": _directory,
    "missing": Path.unlink,
}
WISH_DAMAGE: dict[str, Callable[[Path], object]] = {
    "garbage": STATE_DAMAGE["garbage"],
    "cut off": _half,
    "a list": STATE_DAMAGE["a list"],
    "services of a wrong kind": _json({"shutdown": "no", "services": {"redis": 5}}),
    "entries of a wrong kind": _json({"services": [{"name": "redis", "argv": 7, "cwd": [], "log": None}]}),
    "a directory": _directory,
}


def _state(victim: Victim) -> Path:
    return victim.stack_home / "native" / "state.json"


def _wish(victim: Victim) -> Path:
    return victim.stack_home / "native" / "desired.json"


def _status(victim: Victim) -> tuple[int, dict[str, int | None]]:
    code, envelope = tools.answer(victim, "status")
    assert envelope["error"] is None, envelope["error"]
    return code, {s["name"]: s["pid"] for s in envelope["data"]["services"]}


@pytest.mark.parametrize("damage", STATE_DAMAGE.values(), ids=STATE_DAMAGE)
def test_a_damaged_state_file_under_a_running_supervisor(running: Victim, damage: Callable[[Path], object]) -> None:
    before = tools.pids(running)
    damage(_state(running))
    tools.until("the supervisor to write it again", lambda: tools.whole(running))
    assert tools.pids(running) == before
    tools.assert_runs_once(running)


@pytest.mark.parametrize("damage", [*STATE_DAMAGE.values(), _no_pids], ids=[*STATE_DAMAGE, "without pids"])
def test_a_damaged_state_file_without_a_supervisor(running: Victim, damage: Callable[[Path], object]) -> None:
    before = tools.pids(running)
    tools.kill_all(running, "supervisor")
    damage(_state(running))
    assert _status(running) == (7, before)
    running.up()
    assert tools.pids(running) == before
    tools.assert_runs_once(running)


@pytest.mark.parametrize("damage", WISH_DAMAGE.values(), ids=WISH_DAMAGE)
def test_a_damaged_list_of_wanted_services_under_a_running_supervisor(
    running: Victim, damage: Callable[[Path], object]
) -> None:
    before, wanted = tools.pids(running), _wish(running).read_bytes()
    damage(_wish(running))
    tools.until("it to be written again", lambda: _wish(running).is_file() and _wish(running).read_bytes() == wanted)
    assert _wish(running).stat().st_mode & 0o077 == 0
    assert tools.whole(running)
    assert tools.pids(running) == before
    tools.assert_runs_once(running)


@pytest.mark.parametrize("damage", WISH_DAMAGE.values(), ids=WISH_DAMAGE)
def test_a_damaged_list_of_wanted_services_without_a_supervisor(
    running: Victim, damage: Callable[[Path], object]
) -> None:
    before = tools.pids(running)
    tools.kill_all(running, "supervisor")
    damage(_wish(running))
    assert _status(running) == (7, before)
    running.up()
    assert tools.pids(running) == before
    assert _wish(running).stat().st_mode & 0o077 == 0
    tools.assert_runs_once(running)


def test_both_files_damaged_and_no_supervisor(running: Victim, deposit: Deposit) -> None:
    before = tools.pids(running)
    tools.kill_all(running, "supervisor")
    _state(running).write_bytes(b"{")
    _wish(running).write_bytes(b"\xff")
    assert _status(running) == (7, before)
    running.up()
    assert tools.pids(running) == before
    deposit.check()
    tools.assert_runs_once(running)


@pytest.mark.parametrize(
    ("supervised", "names"),
    [
        (True, ("state.json", "desired.json")),
        (False, ("state.json", "desired.json")),
        (False, ("state.json",)),
    ],
    ids=["supervised, both", "unsupervised, both", "unsupervised, one"],
)
def test_down_finds_everything_in_spite_of_damaged_files(
    running: Victim, supervised: bool, names: tuple[str, ...]
) -> None:
    if not supervised:
        tools.kill_all(running, "supervisor")
    for name in names:
        (running.stack_home / "native" / name).write_bytes(b'{"services": ')
    done = running.invoke("down", check=True)
    assert "stopped" in done.stdout
    tools.assert_nothing_runs(running)
    assert running.invoke("status").returncode == 9


@pytest.mark.parametrize("damage", ["garbage", "a directory"])
@pytest.mark.parametrize("name", ["stack.json", "lock", "native/supervisor.lock"])
def test_other_damaged_files_do_no_harm(running: Victim, name: str, damage: str) -> None:
    before = tools.pids(running)
    path = running.stack_home / name
    held = name == "native/supervisor.lock"
    if held:  # a running supervisor holds that very file: nobody can tell when it is another
        tools.kill_all(running, "supervisor")
    STATE_DAMAGE[damage](path)
    assert _status(running) == (7 if held else 0, before)
    running.up()
    assert tools.pids(running) == before
    tools.assert_runs_once(running)


def test_a_damaged_state_file_of_a_platform_that_does_not_run(stopped: Victim) -> None:
    for name in ("state.json", "desired.json"):
        (stopped.stack_home / "native" / name).write_bytes(b"\0\1\2")
    assert stopped.invoke("status").returncode == 9
    assert "nothing was running" in stopped.invoke("down", check=True).stdout
    stopped.up()
    tools.assert_runs_once(stopped)


def test_logs_of_the_runs_that_cannot_be_written_do_no_harm(running: Victim) -> None:
    logs = running.stack_home / "logs"
    aside = logs.with_name("logs-aside")
    logs.rename(aside)
    logs.write_text("a file")
    try:
        tools.refused(running.invoke("up"), 4, str(running.stack_home))
        assert running.invoke("status").returncode == 0
    finally:
        logs.unlink()
        shutil.move(aside, logs)
