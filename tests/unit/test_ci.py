"""What CI runs: in which order, and what of the rig is made for it."""

from __future__ import annotations

import os
import shutil
import sys
import threading
from pathlib import Path
from typing import IO

import pytest

from scripts import ci, run_tests
from scripts.run_tests import Outcome


def test_every_session_exists() -> None:
    assert set(ci.SESSIONS) <= set(run_tests.SESSIONS)
    assert set(ci.NEEDS) <= {*run_tests.SESSIONS, *run_tests.OPT_IN}


@pytest.mark.parametrize(
    ("sessions", "made"),
    [
        (["lint", "types", "tests", "faults-native"], []),
        (["smoke-compose"], [["tests.rig.up"]]),
        (["drift", "smoke-compose"], [["tests.rig.up"], ["tests.rig.up", "--kind"]]),
        (["rehearsal"], [["tests.rig.up"], ["tests.rig.up", "--kind"], ["tests.rig.up", "--kind", "--operators"]]),
        (["apps"], [["tests.rig.up"], ["tests.rig.browser"]]),
    ],
)
def test_only_what_a_session_needs_is_made(sessions: list[str], made: list[list[str]]) -> None:
    found = list(ci.commands(ci.needs(sessions)).values())
    assert found == [[sys.executable, "-m", *words] for words in made]


def test_what_the_rig_writes_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLATFORM_RIG_CACHE", str(tmp_path))
    assert ci.settings() == {}
    (tmp_path / "rig.env").write_text("POSTGRES_IMAGE=rig/postgres:18\nRIG_PATH='/a b/bin'\nODD='a=b'\n")
    assert ci.settings() == {"POSTGRES_IMAGE": "rig/postgres:18", "RIG_PATH": "/a b/bin", "ODD": "a=b"}


@pytest.fixture
def played(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Sessions that only note their names, and a rig that waits for the first of them."""
    ran: list[str] = []

    def run(session: str, python: Path, env: dict[str, str] | None, output: IO[bytes]) -> Outcome:
        ran.append(f"{session} {'with' if (env or os.environ).get('RIG_PATH') else 'without'}")
        output.write(f"said by {session}\n".encode())
        (tmp_path / "begun").touch()
        return Outcome(session, passed=1)

    loop = f"cd {tmp_path}; until [ -e begun ]; do sleep 0.05; done; echo RIG_PATH=/rig/bin > rig.env"
    monkeypatch.setattr(ci, "commands", lambda wanted: {part: ["sh", "-c", loop] for part in wanted})
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(run_tests, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(run_tests, "run", run)
    monkeypatch.setattr(os, "geteuid", lambda: 0, raising=False)
    monkeypatch.setenv("PLATFORM_RIG_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", os.environ["PATH"])
    monkeypatch.setenv("RIG_PATH", "")
    return ran


@pytest.mark.skipif(os.name == "nt", reason="the rig is for Linux")
def test_the_rig_is_made_beside_the_sessions_that_need_none_of_it(
    played: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert ci.main(["--only", "smoke-kind", "--only", "lint"]) == 0
    assert played == ["lint without", "smoke-kind with"]
    assert os.environ["PATH"].startswith("/rig/bin:")
    assert {"said by lint", "said by smoke-kind"} <= set(capsys.readouterr().out.splitlines())


@pytest.mark.skipif(os.name == "nt", reason="the rig is for Linux")
def test_without_options_it_runs_its_own_sessions_each_once(
    played: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert ci.main([]) == 0
    assert sorted(played) == sorted(f"{s} {'with' if s in ci.NEEDS else 'without'}" for s in ci.SESSIONS)
    rows = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line.startswith(ci.SESSIONS)]
    assert rows == list(ci.SESSIONS), "the table is in their order, whichever lane ran them"


class Ready(ci.Rig):
    """A rig whose parts are made at a word."""

    def __init__(self, *made: str) -> None:
        self.parts = set(made)

    def made(self, wanted: frozenset[str]) -> bool:
        return wanted <= self.parts

    def wait(self, wanted: frozenset[str]) -> None:
        self.parts |= wanted

    def stop(self) -> None:
        self.parts.clear()


def test_two_lanes_run_side_by_side_and_the_other_one_begins_at_the_end(
    played: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The first lane's session ends only once the other lane has taken two; those are the last, the last one first."""
    (tmp_path / "results").mkdir()
    begun: list[str] = []
    both = threading.Event()

    def run(session: str, python: Path, env: dict[str, str] | None, output: IO[bytes]) -> Outcome:
        begun.append(session)
        if session == "lint":
            assert both.wait(60), f"nothing ran beside it: {begun}"
        elif len([name for name in begun if name != "lint"]) == 2:
            both.set()
        return Outcome(session, passed=1)

    monkeypatch.setattr(run_tests, "run", run)
    monkeypatch.setattr(ci, "Rig", lambda wanted: Ready(ci.CONTAINERS, ci.KIND))
    outcomes = ci.run(["lint", "drift", "smoke-compose", "smoke-kind"])
    assert [name for name in begun if name != "lint"] == ["smoke-kind", "smoke-compose", "drift"]
    assert [outcome.session for outcome in outcomes] == ["lint", "drift", "smoke-compose", "smoke-kind"]


def test_a_session_that_needs_no_rig_never_sees_its_settings(
    played: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "results").mkdir()
    queue = ci.Queue(["smoke-compose", "lint"], Ready(ci.CONTAINERS))
    monkeypatch.setenv("RIG_PATH", "/rig/bin")  # as the first session that needs the rig has set it
    assert [outcome.session for outcome in queue.lane(["smoke-compose", "lint"])] == ["smoke-compose", "lint"]
    assert played == ["smoke-compose with", "lint without"]


def test_an_ended_queue_gives_no_lane_another_session(played: list[str], tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    queue = ci.Queue(["lint", "types"], Ready())
    queue.end()
    assert queue.lane(["lint", "types"]) == []
    assert played == []


def test_a_lane_begins_with_what_can_run(played: list[str], tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    chosen = ["lint", "smoke-compose", "smoke-kind"]
    assert [o.session for o in ci.Queue(chosen, Ready()).lane(chosen[::-1])] == chosen
    every = Ready(ci.CONTAINERS, ci.KIND)
    assert [o.session for o in ci.Queue(chosen, every).lane(chosen[::-1])] == chosen[::-1]


def test_a_smoke_session_of_containers_that_is_skipped_is_a_failure(
    played: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_tests, "run", lambda session, *_: Outcome(session, skipped=1))
    monkeypatch.setattr(ci, "commands", lambda _wanted: {})
    assert ci.main(["--only", "lint"]) == 0
    assert ci.main(["--only", "smoke-compose"]) == 1
    assert played == []
