"""Programs that work on clusters: where they are, which versions, and what to install instead."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from infra import catalog, shell, stack
from infra.errors import PlatformError
from infra.settings import Settings

VERSION_OPTIONS: Mapping[str, tuple[str, ...]] = {
    "kind": ("version",),
    "kubectl": ("version", "--client"),
    "helm": ("version", "--short"),
}


@dataclass(frozen=True)
class KubeProgram:
    """A program that was found: its absolute path and version, e.g. (0, 33, 0)."""

    name: str
    path: str
    version: tuple[int, ...]

    @property
    def shown(self) -> str:
        """The version for people."""
        return ".".join(map(str, self.version)) or "of unknown version"


def parse(text: str) -> tuple[int, ...]:
    """Return the first version in what a program says of itself; () when there is none."""
    found = re.search(r"v?(\d+)\.(\d+)(?:\.(\d+))?", text)
    return tuple(int(part) for part in found.groups() if part is not None) if found else ()


def locate(name: str, settings: Settings) -> str | None:
    """Return the program's path: in PLATFORM_KIND_BIN first, then on PATH."""
    own = settings.text("PLATFORM_KIND_BIN")
    inside = shutil.which(name, path=str(Path(own).expanduser())) if own else None
    return str(Path(inside).absolute()) if inside else shell.find(name)


def missing(settings: Settings) -> list[str]:
    """Return the names of the programs that are nowhere."""
    return [tool.name for tool in catalog.KUBE_TOOLS if locate(tool.name, settings) is None]


def steps(names: Sequence[str]) -> tuple[str, ...]:
    """List what to install."""
    known = {tool.name: tool for tool in catalog.KUBE_TOOLS}
    return tuple(
        f"install {name} {'.'.join(map(str, known[name].minimum))} or newer: {known[name].install}" for name in names
    )


def require(names: Sequence[str], settings: Settings, memory: Path) -> dict[str, KubeProgram]:
    """Return some of the programs, with their versions.

    Args:
        names: which ones.
        settings: they may name a directory with them.
        memory: a file that remembers versions by path, size and time, since asking costs a second.

    Raises:
        PlatformError: PROGRAM_MISSING for every one that is missing or too old, with what to install.
    """
    absent = [name for name in missing(settings) if name in names]
    if absent:
        raise PlatformError(
            "PROGRAM_MISSING",
            f"{' and '.join(absent)} {'is' if len(absent) == 1 else 'are'} not installed",
            why="looked in PLATFORM_KIND_BIN and on PATH",
            steps=(*steps(absent), "or set PLATFORM_KIND_BIN to the directory that contains them"),
        )
    found = {name: program for name, program in installed(settings, memory).items() if name in names}
    _refuse_old(found)
    return found


def installed(settings: Settings, memory: Path) -> dict[str, KubeProgram]:
    """Return the installed programs, of whatever version; `memory` as for `require`."""
    places = {tool.name: locate(tool.name, settings) for tool in catalog.KUBE_TOOLS}
    return _versions({name: path for name, path in places.items() if path is not None}, memory)


def _refuse_old(found: Mapping[str, KubeProgram]) -> None:
    old = [found[t.name] for t in catalog.KUBE_TOOLS if t.name in found and found[t.name].version[:2] < t.minimum]
    if old:
        mute = [p.name for p in old if not p.version]
        texts = (
            [f"too old: {', '.join(f'{p.name} {p.shown}' for p in old if p.version)}"] if len(mute) < len(old) else []
        )
        texts += [f"{', '.join(mute)} does not report its version"] if mute else []
        raise PlatformError(
            "PROGRAM_MISSING",
            "; ".join(texts),
            why=", ".join(p.path for p in old),
            steps=(*steps([p.name for p in old]), "or set PLATFORM_KIND_BIN to the directory that contains them"),
        )


def _versions(paths: Mapping[str, str], memory: Path) -> dict[str, KubeProgram]:
    known = stack.read_json(memory) or {}
    found, fresh = {}, {}
    for name, path in paths.items():
        status = Path(path).stat()
        key = f"{path} {status.st_size} {status.st_mtime_ns}"
        version = tuple(known[key]) if isinstance(known.get(key), list) else _ask(name, path)
        found[name], fresh[key] = KubeProgram(name, path, version), list(version)
    if fresh != known and memory.parent.is_dir():
        stack.write_atomic(memory, json.dumps(fresh) + "\n", sync=False)
    return found


def _ask(name: str, path: str) -> tuple[int, ...]:
    said = shell.run([path, *VERSION_OPTIONS[name]], limit=20, check=False)
    return parse(said.out) or parse(said.err)
