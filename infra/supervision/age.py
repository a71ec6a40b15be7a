"""The age of what runs: a service of our own code goes on with the code that it was started with."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from infra.settings import ROOT
from infra.supervision import client

SUPERVISOR = "supervisor"
_CLOCKS = 1.0
"""Seconds by which the clocks of processes and files may differ."""


def outdated(stack_home: Path, root: Path = ROOT) -> list[str]:
    """Return the supervisors and services below a state directory that started before their code last changed."""
    homes = sorted({path.parent for path in stack_home.glob(f"*/{client.STATE}")})
    found = [
        name for home in homes for name, started, code in _started(home) if changed(root, code) > started + _CLOCKS
    ]
    return sorted(set(found))


def _started(home: Path) -> Iterator[tuple[str, float, str]]:
    """Return what runs our code here: its name, when it started (seconds since 1970), its package."""
    import psutil

    packages = {spec.name: package(spec.argv) for spec in client.desired(home)}
    running = {state.name: state.identity for state in client.survivors(home) if packages.get(state.name)}
    for name, identity in {SUPERVISOR: client.supervisor_identity(home), **running}.items():
        live = identity.process() if identity else None
        if live is not None:
            with contextlib.suppress(psutil.Error):  # it has just ended
                yield name, live.create_time(), packages.get(name, "infra.supervision")


def package(argv: list[str]) -> str:
    """Return our package that `python -m` runs; '' for any other program."""
    module = argv[argv.index("-m") + 1] if "-m" in argv[:-1] else ""
    return module.removesuffix(".worker") if module.startswith(("infra.", "apps.")) else ""


def changed(root: Path, code: str) -> float:
    """Return when a package or module was last changed (seconds since 1970), e.g. by `git pull`; 0 for none."""
    times, place = [0.0], root / code.replace(".", "/")
    for path in (place.with_suffix(".py"), *place.glob("**/*.py")):
        with contextlib.suppress(OSError):  # it may vanish meanwhile
            times.append(path.stat().st_mtime)
    return max(times)
