"""A sweep: one command trained with several values of its parameters; which values, and which of them did best."""

from __future__ import annotations

import itertools
import math
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from infra import setting_rules
from infra.errors import PlatformError

MOST = 500
"""Trainings of one sweep."""
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_RANGE = re.compile(r"(?:(log|int):)?([^:]+)\.\.([^:]+)")
_EXAMPLE = "--grid lr=0.1,0.01, or --random lr=log:0.0001..0.1"

Values = Mapping[str, str]


@dataclass(frozen=True)
class Goal:
    """The metric by which trainings are compared, and whether less of it is better."""

    metric: str
    least: bool


@dataclass(frozen=True)
class Trial:
    """One training of a sweep: its values, its state, and the last value of the metric (None: it has none)."""

    job: str
    values: Values
    state: str
    value: float | None


def grid(entries: Sequence[str]) -> list[dict[str, str]]:
    """Return every combination of `name=value,value` entries, the last name changing fastest.

    Raises:
        PlatformError: USAGE.
    """
    named = [_named(entry, "--grid") for entry in entries]
    _check_names([name for name, _ in named])
    choices = [[(name, value) for value in _values(name, text)] for name, text in named]
    if math.prod(map(len, choices)) > MOST:
        raise _unusable(f"the grid has more than {MOST} points")
    return [dict(point) for point in itertools.product(*choices)]


def drawn(entries: Sequence[str], count: int, seed: int) -> list[dict[str, str]]:
    """Return `count` points drawn at random; the same seed gives the same ones.

    Args:
        entries: `name=low..high` (evenly), `name=log:low..high`, `name=int:low..high` or `name=value,value`.

    Raises:
        PlatformError: USAGE.
    """
    named = [_named(entry, "--random") for entry in entries]
    _check_names([name for name, _ in named])
    if not 1 <= count <= MOST:
        raise _unusable(f"--trials {count} is not between 1 and {MOST}")
    source = random.Random(seed)
    return [{name: _draw(name, text, source) for name, text in named} for _ in range(count)]


def applied(words: Sequence[str], values: Values) -> list[str]:
    """Return a command with values in place of `{name}`; a value never becomes several words.

    Raises:
        PlatformError: USAGE for a name that the command does not have.
    """
    unused = [name for name in values if not any(f"{{{name}}}" in word for word in words)]
    if unused:
        raise _unusable(
            f"--command has no {{{unused[0]}}}", f"add it, e.g. --command 'python train.py --x {{{unused[0]}}}'"
        )
    pattern = re.compile("|".join(re.escape(f"{{{name}}}") for name in values))
    return [pattern.sub(lambda found: values[found[0][1:-1]], word) for word in words] if values else list(words)


def goal(metric: str, wanted: str) -> Goal:
    """Return what is best; '' for `wanted`: the least of a loss or an error, the most of anything else.

    Raises:
        PlatformError: USAGE.
    """
    if wanted not in ("", "min", "max"):
        raise _unusable(f"--goal {wanted} is neither min nor max", "--goal min")
    return Goal(metric, wanted == "min" if wanted else smaller_is_better(metric))


SMALLER = ("loss", "error", "perplexity", "mse", "mae", "wer", "cer")
"""Parts of the names of metrics that are better when they are smaller."""


def smaller_is_better(metric: str) -> bool:
    """Return whether the least value of a metric is its best."""
    return any(part in metric.lower() for part in SMALLER)


def ranked(trials: Sequence[Trial], wanted: Goal) -> list[Trial]:
    """Return the trainings, best first; those without a number last, in their order."""

    def place(trial: Trial) -> tuple[bool, float]:
        if trial.value is None or math.isnan(trial.value):
            return True, 0.0
        return False, trial.value if wanted.least else -trial.value

    return sorted(trials, key=place)


def _named(entry: str, option: str) -> tuple[str, str]:
    name, equals, text = entry.partition("=")
    if not equals or not _NAME.fullmatch(name) or not text.strip():
        raise _unusable(f"{option} {entry!r} is not name=values")
    return name, text


def _check_names(names: Sequence[str]) -> None:
    double = {name for name in names if names.count(name) > 1}
    if double:
        raise _unusable(f"the parameter {min(double)} is given twice")


def _values(name: str, text: str) -> list[str]:
    found = list(setting_rules.words(text))
    if len(found) != text.count(",") + 1:
        raise _unusable(f"a value of {name} is empty: {text!r}")
    return found


def _draw(name: str, text: str, source: random.Random) -> str:
    found = _RANGE.fullmatch(text)
    if not found:
        return source.choice(_values(name, text))
    kind, low, high = found[1], *(_number(name, bound) for bound in (found[2], found[3]))
    if not low < high or (kind == "log" and low <= 0):
        raise _unusable(f"{name}={text} is no range")
    if kind == "int":
        return str(source.randint(math.ceil(low), math.floor(high)))
    if kind == "log":
        return f"{math.exp(source.uniform(math.log(low), math.log(high))):.6g}"
    return f"{source.uniform(low, high):.6g}"


def _number(name: str, text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise _unusable(f"a bound of {name} is not a number: {text!r}")
    return found


def _unusable(what: str, step: str = _EXAMPLE) -> PlatformError:
    return PlatformError("USAGE", what, steps=(step,))
