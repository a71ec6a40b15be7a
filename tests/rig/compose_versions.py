"""Other versions of Compose than the installed one, to check the files with."""

from __future__ import annotations

from pathlib import Path

from tests.rig import cache, parts

PROGRAMS = {
    "2.24.5": parts.GoProgram("github.com/docker/compose/v2", "v2.24.5", "./cmd", "docker-compose-2.24.5"),
    "5.5.1": parts.GoProgram("github.com/docker/compose/v5", "v5.5.1", "./cmd", "docker-compose-5.5.1"),
}
"""The oldest supported one (2.24.4) is not published as a module; 2.24.5 is the next."""


def program(version: str) -> Path:
    """Where the program of that version is, once it is made; it runs by itself."""
    part = PROGRAMS[version]
    return cache.path("parts") / parts.folder_name(part, "compose") / part.name


def existing(version: str) -> Path | None:
    """The same where it is made; None elsewhere."""
    found = program(version)
    return found if found.exists() else None


def make(version: str, log: Path) -> None:
    """Build it. Raises RigProblem."""
    parts.ready(PROGRAMS[version], "compose", log)
