"""A measured figure, how long a task takes, and the end of a script that measures one part."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from infra.settings import ROOT


@dataclass(frozen=True)
class Figure:
    """A measured figure: its value and unit, what it is compared with, the goal, and whether that is met."""

    name: str
    value: float
    unit: str
    compared: str
    goal: float

    @property
    def met(self) -> bool:
        """Whether the value is within the goal."""
        return self.value <= self.goal


def invoke(env: Mapping[str, str], *words: str, cwd: Path = ROOT) -> float:
    """Seconds that a task takes, as a whole process."""
    began = time.perf_counter()
    argv = [sys.executable, "-m", "invoke", *words]
    subprocess.run(argv, cwd=cwd, env=dict(env), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - began


def printed(measure: Callable[[Path], list[Figure]]) -> int:
    """Measure in a directory that is gone afterwards, and print each figure; the exit code."""
    work = Path(tempfile.mkdtemp(prefix="platform-bench-"))
    work.chmod(0o755)  # PostgreSQL may run as another user
    try:
        for figure in measure(work):
            goal = f"(goal {figure.goal:g}); {figure.compared}"
            print(f"{figure.name}: {figure.value:.3g} {figure.unit} {goal}", flush=True)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return 0
