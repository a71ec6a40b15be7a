"""Installs wheels into a directory: with the environment's uv, or with pip where that is all there is or knows more."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from tests.rig import cache

TOOLS = {"uv": ("uv", "pip", "install"), "pip": ("pip", "install", "--disable-pip-version-check", "--no-compile")}
"""uv is many times faster; pip's configuration may know an index or proxy that uv does not."""


def install(into: Path, log: Path, *arguments: str | Path) -> None:
    """Install exactly what is named, without dependencies, into a directory.

    Raises:
        RigProblem: no installer is there, or the last one failed.
    """
    there = [tool for name, tool in TOOLS.items() if importlib.util.find_spec(name)]
    problem = cache.RigProblem(f"{sys.executable} has neither uv nor pip")
    for tool in there:
        argv = [sys.executable, "-m", *tool, "--quiet", "--no-deps", "--target", into, *arguments]
        try:
            cache.run(argv, log, env={"PIP_ROOT_USER_ACTION": "ignore", "UV_LINK_MODE": "copy"})
            return
        except cache.RigProblem as failed:
            problem = failed
    raise problem
