"""Installs wheels into a directory, with the environment's pip or, where it was made by uv, with that."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from tests.rig import cache

_PIP = ("pip", "install", "--disable-pip-version-check", "--no-compile")
_UV = ("uv", "pip", "install")


def install(into: Path, log: Path, *arguments: str | Path) -> None:
    """Install exactly what is named, without dependencies, into a directory.

    Raises:
        RigProblem: the installer failed.
    """
    tool = _PIP if importlib.util.find_spec("pip") else _UV
    argv = [sys.executable, "-m", *tool, "--quiet", "--no-deps", "--target", into, *arguments]
    cache.run(argv, log, env={"PIP_ROOT_USER_ACTION": "ignore"})
