"""Fixtures of the security tests: other users of this machine, web pages of other origins."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults.native import tools


@dataclass(frozen=True)
class Other:
    """Another user of this machine."""

    name: str
    uid: int
    gid: int

    def run(self, *argv: str, cwd: Path | str = "/", check: bool = True) -> str:
        """Run a program as that user; what it said."""
        import subprocess

        done = subprocess.run(
            argv,
            cwd=cwd,
            user=self.uid,
            group=self.gid,
            extra_groups=[],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
        assert not check or done.returncode == 0, (argv, done.stdout, done.stderr)
        return done.stdout + done.stderr


@pytest.fixture
def other() -> Other:
    """A user who is not the one that runs the platform."""
    if sys.platform == "win32" or not tools.is_root():
        pytest.skip("only root can act as a second user")
    import pwd

    entry = pwd.getpwnam("nobody")
    return Other(entry.pw_name, entry.pw_uid, entry.pw_gid)
