"""A fresh clone of this checkout in an awkward place, for tests that use it as people do."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import psutil
import pytest

from infra.settings import ROOT
from tests.smoke.stage import Completed, clean_environment, free_ports, processes_of, run

LIMIT = 1800.0
START = "./scripts/start-infra.sh"

USABLE = [
    pytest.mark.skipif(shutil.which("git") is None, reason="there is no git on this machine"),
    pytest.mark.skipif(os.name == "nt", reason="the scripts for Windows are .ps1 files"),
]


class Clone:
    """A fresh clone whose ports are free ones, and which other stacks of this user know nothing of."""

    def __init__(self, root: Path) -> None:
        self.root = root
        # On the tier that needs nothing: where Docker and the images are, another one would be chosen.
        self.env = clean_environment() | free_ports() | {"PLATFORM_TIER": "native"}
        self.env["XDG_STATE_HOME"] = str(root.parent / "state of the user")

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

    def end(self) -> None:
        """Leave nothing behind."""
        self.script(START, "--stop")
        self.invoke("reset", "--yes")
        for process in self.left_over():
            process.kill()
        shutil.rmtree(self.root.parent, ignore_errors=True)


def git(*arguments: str, cwd: Path = ROOT) -> str:
    """Run git, in this checkout if no other is named; '' when it fails."""
    me = ["-c", "user.name=walker", "-c", "user.email=walker@example.org", "-c", "commit.gpgsign=false"]
    argv = ["git", "-C", str(cwd), *me, *arguments]
    done = subprocess.run(argv, capture_output=True, encoding="utf-8", check=False)
    return (done.stdout.strip() or "done") if done.returncode == 0 else ""
