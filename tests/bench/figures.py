"""A measured figure, and how long a task takes."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping
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
