"""What CI runs: in which order, and what of the rig is made for it."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from scripts import ci, run_tests
from scripts.run_tests import Outcome


def test_every_session_exists() -> None:
    assert set(ci.SESSIONS) | set(ci.NEEDS) <= set(run_tests.SESSIONS)


def test_sessions_that_need_nothing_of_the_rig_come_first() -> None:
    needing = [session in ci.NEEDS for session in ci.SESSIONS]
    assert needing == sorted(needing)


@pytest.mark.parametrize(
    ("sessions", "made"),
    [
        (["lint", "types", "tests", "faults-native"], []),
        (["smoke-compose"], [["tests.rig.up"]]),
        (["drift", "smoke-compose"], [["tests.rig.up", "--kind"]]),
        (["apps"], [["tests.rig.up"], ["tests.rig.browser"]]),
    ],
)
def test_only_what_a_session_needs_is_made(sessions: list[str], made: list[list[str]]) -> None:
    assert ci.commands(ci.needs(sessions)) == [[sys.executable, "-m", *words] for words in made]


def test_what_the_rig_writes_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLATFORM_RIG_CACHE", str(tmp_path))
    assert ci.settings() == {}
    (tmp_path / "rig.env").write_text("POSTGRES_IMAGE=rig/postgres:18\nRIG_PATH='/a b/bin'\nODD='a=b'\n")
    assert ci.settings() == {"POSTGRES_IMAGE": "rig/postgres:18", "RIG_PATH": "/a b/bin", "ODD": "a=b"}


@pytest.fixture
def played(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Sessions that only note their names, and a rig that waits for the first of them."""
    ran: list[str] = []

    def run(session: str, python: Path) -> Outcome:
        ran.append(f"{session} {'with' if os.environ.get('RIG_PATH') else 'without'}")
        (tmp_path / "begun").touch()
        return Outcome(session, passed=1)

    loop = f"cd {tmp_path}; until [ -e begun ]; do sleep 0.05; done; echo RIG_PATH=/rig/bin > rig.env"
    monkeypatch.setattr(ci, "commands", lambda wanted: [["sh", "-c", loop]] if wanted else [])
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(ci, "RIG_LOG", tmp_path / "rig.log")
    monkeypatch.setattr(run_tests, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(run_tests, "run", run)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("PLATFORM_RIG_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", os.environ["PATH"])
    monkeypatch.setenv("RIG_PATH", "")
    return ran


@pytest.mark.skipif(os.name == "nt", reason="the rig is for Linux")
def test_the_rig_is_made_beside_the_sessions_that_need_none_of_it(played: list[str]) -> None:
    assert ci.main(["--only", "smoke-kind", "--only", "lint"]) == 0
    assert played == ["lint without", "smoke-kind with"]
    assert os.environ["PATH"].startswith("/rig/bin:")


@pytest.mark.skipif(os.name == "nt", reason="the rig is for Linux")
def test_without_options_it_runs_its_own_sessions(played: list[str]) -> None:
    assert ci.main([]) == 0
    assert [text.split()[0] for text in played] == list(ci.SESSIONS)


def test_a_smoke_session_of_containers_that_is_skipped_is_a_failure(
    played: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_tests, "run", lambda session, _python: Outcome(session, skipped=1))
    monkeypatch.setattr(ci, "commands", lambda _wanted: [])
    assert ci.main(["--only", "lint"]) == 0
    assert ci.main(["--only", "smoke-compose"]) == 1
    assert played == []
