"""The commands of README.md, as a newcomer would use them: a fresh clone, in an awkward place."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from infra import catalog
from tests.smoke.stage import run
from tests.walkthrough.clone import LIMIT, START, USABLE, Clone

COMMANDS = [START, "./scripts/run-tests.sh"]

pytestmark = USABLE


def first_block(readme: str) -> list[str]:
    """The commands of the first code block, without prompts, comments and empty lines."""
    found = re.search(r"^```\w*\n(.*?)^```", readme, re.MULTILINE | re.DOTALL)
    lines = found[1].splitlines() if found else []
    return [line.split("#")[0].strip().removeprefix("$ ") for line in lines if line.split("#")[0].strip()]


@pytest.mark.parametrize("name", ["README.md", "README.ko.md"])
def test_readme_opens_with_the_two_commands(clone: Clone, name: str) -> None:
    assert first_block((clone.root / name).read_text(encoding="utf-8")) == COMMANDS


def test_start_says_what_runs_where_and_what_next(clone: Clone) -> None:
    done = clone.script(COMMANDS[0])
    assert done.returncode == 0, done.stderr
    core = [s for s in catalog.SERVICES if s.overlay == catalog.OVERLAY_CORE]
    missing = [s.title for s in core if s.title not in done.stdout or clone.env[s.ports[0].setting] not in done.stdout]
    assert not missing
    assert "admin / devpass" in done.stdout
    assert "minioadmin / minioadmin" in done.stdout
    assert "Next:" in done.stdout


def test_a_second_start_changes_nothing(clone: Clone) -> None:
    before = {p.pid for p in clone.left_over()}
    done = clone.script(COMMANDS[0])
    assert done.returncode == 0, done.stderr
    assert "already runs" in done.stderr + done.stdout
    assert "installing" not in done.stderr
    assert {p.pid for p in clone.left_over()} == before


def test_it_starts_from_elsewhere_and_through_a_link(clone: Clone, tmp_path: Path) -> None:
    link = tmp_path / "start"
    link.symlink_to(clone.root / COMMANDS[0])
    odd = {"PYTHONHOME": "/nowhere", "PYTHONPATH": "/nowhere", "VIRTUAL_ENV": "/nowhere"}
    done = run([str(link)], tmp_path, clone.env | odd, LIMIT)
    assert done.returncode == 0, done.stderr
    assert "already runs" in done.stderr + done.stdout


def test_status_is_ready(clone: Clone) -> None:
    done = clone.invoke("status")
    assert done.returncode == 0, done.stderr


def test_an_unknown_option_is_refused(clone: Clone) -> None:
    done = clone.script(COMMANDS[0], "--with-everything")
    assert done.returncode == 2
    assert "usage:" in done.stderr
    assert "--with-everything" in done.stderr


def test_stop_leaves_no_process(clone: Clone) -> None:
    assert clone.left_over()
    done = clone.script(COMMANDS[0], "--stop")
    assert done.returncode == 0, done.stderr
    assert [str(p) for p in clone.left_over()] == []


def test_stop_again_is_no_error(clone: Clone) -> None:
    assert clone.script(COMMANDS[0], "--stop").returncode == 0
    assert clone.invoke("status").returncode == 9
