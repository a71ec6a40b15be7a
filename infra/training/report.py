"""The door for what a program prints: a line is a report, judged here and nowhere else, or it is a log line.

Nothing that a line can hold is a fault: what does not fit stays in the log.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

LONGEST_LINE = 65_536
"""Bytes of a line that may be a report; longer ones are log lines."""
LONGEST_NAME = 250
"""Characters of a metric's name: what MLflow takes, and what fits into an index of PostgreSQL."""
MOST_METRICS = 1000
"""Metrics in one report; further ones are left to the log."""


@dataclass(frozen=True)
class Report:
    """A line of progress: the epoch, how many there will be (0: unknown), metrics by name.

    A metric may be NaN or infinite: that a training has diverged is what one wants to see.
    """

    epoch: int
    epochs: int
    metrics: Mapping[str, float]


def parse_progress(line: str) -> Report | None:
    """Read the report in a line such as `{"epoch": 3, "epochs": 10, "metrics": {"loss": 0.1}}`; None in any other."""
    if len(line) > LONGEST_LINE or not line.lstrip().startswith("{"):
        return None
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    epoch, epochs, metrics = found.get("epoch"), found.get("epochs", 0), found.get("metrics", {})
    if not (_is_count(epoch) and _is_count(epochs) and isinstance(metrics, dict)):
        return None
    good = [(name, value) for name, found in metrics.items() if (value := _number(found)) is not None and _named(name)]
    return Report(epoch, epochs, dict(good[:MOST_METRICS]))


def _is_count(value: object) -> bool:
    """Tell whether a number fits into an integer of PostgreSQL."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(value)
    except OverflowError:
        return None


def _named(name: str) -> bool:
    """Tell whether every server can hold a name: no control characters, no halves of characters, not too long."""
    return 0 < len(name) <= LONGEST_NAME and name.isprintable()


def as_json(metrics: Mapping[str, float]) -> dict[str, float | str]:
    """Return metrics as JSON can hold them: numbers that are not finite as quoted `NaN`, `Infinity`, `-Infinity`."""
    return {name: _written(value) for name, value in metrics.items()}


def _written(value: float) -> float | str:
    if value != value:
        return "NaN"
    return {float("inf"): "Infinity", float("-inf"): "-Infinity"}.get(value, value)
