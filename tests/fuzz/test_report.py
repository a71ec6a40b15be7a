"""What a program may print: nothing of it is a fault, and what is taken for a report every server can hold."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st

from infra.training import program, report
from infra.training.program import Tail
from infra.training.report import Report, as_json, parse_progress

ANY_TEXT = st.text(st.characters(), max_size=300)  # also halves of characters and the null character
NUMBERS = st.integers() | st.integers(10**300, 10**420) | st.floats() | st.booleans()
VALUES = st.recursive(
    NUMBERS | ANY_TEXT | st.none(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ANY_TEXT, inner, max_size=4),
    max_leaves=12,
)
COUNTS = st.integers(0, 2**31) | st.integers() | VALUES
REPORTS = st.fixed_dictionaries(
    {"epoch": COUNTS}, optional={"epochs": COUNTS, "metrics": st.dictionaries(ANY_TEXT, NUMBERS) | VALUES}
)


def check(line: str) -> None:
    found = parse_progress(line)
    if found is None:
        return
    assert isinstance(found, Report)
    assert all(0 <= count < 2**31 for count in (found.epoch, found.epochs))
    for name, value in found.metrics.items():
        assert 0 < len(name) <= report.LONGEST_NAME
        assert "\0" not in name
        assert len(name.encode()) < 2_000, "an index of PostgreSQL holds it, and it is UTF-8"
        assert type(value) is float
    assert json.loads(json.dumps(as_json(found.metrics), allow_nan=False)) == as_json(found.metrics)


@given(ANY_TEXT)
def test_any_line(line: str) -> None:
    check(line)
    check("{" + line)


@given(VALUES)
def test_any_json(value: Any) -> None:
    check(json.dumps(value))
    check(json.dumps(value, ensure_ascii=False))


@given(REPORTS)
def test_almost_a_report(value: Any) -> None:
    check(json.dumps(value))
    check(json.dumps(value, ensure_ascii=False))


LINES = st.lists(st.binary(max_size=40).map(lambda text: text.replace(b"\n", b"")), max_size=20)


@given(LINES, st.integers(1, 30), st.integers(1, 25))
def test_lines_are_the_same_however_they_come(lines: list[bytes], chunk: int, longest: int) -> None:
    limits = patch.multiple(program, _CHUNK=chunk, LONGEST_LINE=longest)
    with limits, tempfile.TemporaryDirectory() as directory:
        assert _tailed(Path(directory) / "log", lines) == [
            line.decode("utf-8", "replace").rstrip("\r") for line in lines if len(line) <= longest
        ]


def _tailed(path: Path, lines: list[bytes]) -> list[str]:
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    tail, found = Tail(path), list[str]()
    while tail.read():
        found += tail.lines()
    return found
