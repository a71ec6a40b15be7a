"""The directories of programs for PLATFORM_KIND_BIN: kind, kubectl, helm; and one with Helm 3 in its place."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.rig import cache, parts
from tests.rig.kind import programs

SOURCE = Path(__file__).parent / "bin"
SYS_RESOURCE = 24
"""Number of the capability in capability.h."""


def directory(helm: int = 4) -> Path:
    """Where the programs are."""
    return cache.path("kind-bin" if helm == 4 else f"kind-bin-helm{helm}")


def present() -> bool:
    """Whether both directories are as they should be."""
    return all(_mark(helm).is_file() and _mark(helm).read_text() == key(helm) for helm in (4, 3))


def key(helm: int) -> str:
    """What a directory is made from."""
    below = (p.key() for p in (programs.HYPERKUBE, programs.KIND, _helm(helm)))
    return cache.key(cache.key_of_files(SOURCE), str(lacks_capability()), *below)


def make(log: Path) -> None:
    """Make both directories.

    Raises:
        RigProblem: a program cannot be built.
    """
    for helm in (4, 3):
        with cache.fresh(directory(helm)) as unfinished:
            _fill(unfinished, helm, log)


def lacks_capability() -> bool:
    """Whether the processes of this machine can never have CAP_SYS_RESOURCE, so that --privileged fails."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    bounds = next(int(line.split()[1], 16) for line in lines if line.startswith("CapBnd:"))
    return not bounds >> SYS_RESOURCE & 1


def _fill(folder: Path, helm: int, log: Path) -> None:
    shutil.copytree(SOURCE, folder, dirs_exist_ok=True)
    if not lacks_capability():
        shutil.rmtree(folder / "shim")
    (folder / "kind.real").symlink_to(parts.ready(programs.KIND, "kind-kind", log) / "kind")
    (folder / "helm").symlink_to(parts.ready(_helm(helm), f"kind-helm{helm}", log) / "helm")
    (folder / "kubectl").symlink_to(parts.ready(programs.HYPERKUBE, "kind-hyperkube", log) / "hyperkube")
    (folder / _mark(helm).name).write_text(key(helm), encoding="utf-8")


def _helm(major: int) -> programs.Program:
    return programs.HELM if major == 4 else programs.HELM_3


def _mark(helm: int) -> Path:
    return directory(helm) / ".key"
