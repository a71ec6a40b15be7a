"""The commands of README.md, as a newcomer would use them: a fresh clone, in an awkward place."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from infra import catalog
from infra.settings import ROOT
from tests.smoke.stage import Completed, clean_environment, free_ports, processes_of, run

LIMIT = 1800.0
COMMANDS = ["./scripts/start-infra.sh", "./scripts/run-tests.sh"]

pytestmark = [
    pytest.mark.skipif(shutil.which("git") is None, reason="there is no git on this machine"),
    pytest.mark.skipif(os.name == "nt", reason="the scripts for Windows are .ps1 files"),
]


class Clone:
    """A fresh clone whose ports are free ones."""

    def __init__(self, root: Path) -> None:
        self.root = root
        # On the tier that needs nothing: where Docker and the images are, another one would be chosen.
        self.env = clean_environment() | free_ports() | {"PLATFORM_TIER": "native"}

    def script(self, *argv: str) -> Completed:
        """Run a command of the README in the clone."""
        return run([*argv], self.root, self.env, LIMIT)

    def invoke(self, *arguments: str) -> Completed:
        """Run a task with the environment that the script has made."""
        return run(
            [str(self.root / ".venv" / "bin" / "python"), "-m", "invoke", *arguments], self.root, self.env, LIMIT
        )

    def left_over(self) -> list[psutil.Process]:
        """Its processes."""
        return processes_of(self.root, "")


@pytest.fixture(scope="module")
def clone() -> Iterator[Clone]:
    """A clone of HEAD below a private directory with blanks and non-ASCII letters in its name."""
    if not git("rev-parse", "--verify", "--quiet", "HEAD"):
        pytest.skip("this checkout is no git repository with a commit")
    place = Path(tempfile.mkdtemp(prefix="walk through ü 플랫폼 ")).resolve()
    made = Clone(place / "the checkout")
    try:
        git("clone", "--quiet", str(ROOT), str(made.root))
        yield made
    finally:
        made.script(COMMANDS[0], "--stop")
        made.invoke("reset", "--yes")
        for process in made.left_over():
            process.kill()
        shutil.rmtree(place, ignore_errors=True)


def git(*arguments: str) -> str:
    """Run git in this checkout; '' when it fails."""
    argv = ["git", "-C", str(ROOT), *arguments]
    done = subprocess.run(argv, capture_output=True, encoding="utf-8", check=False)
    return (done.stdout.strip() or "done") if done.returncode == 0 else ""


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
