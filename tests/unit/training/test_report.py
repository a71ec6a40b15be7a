"""The door for lines: what is a report, and that nothing else is a fault."""

from __future__ import annotations

import json
import math

import pytest

from infra.training import report
from infra.training.report import LONGEST_NAME, Report, as_json, parse_progress

ODD_NAMES = ["a\0b", "\ud800", "x" * (LONGEST_NAME + 1), "", "a\nb", "\x1b[2J", "\x9b2J", "\u202e"]


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ('{"epoch": 3, "epochs": 10, "metrics": {"loss": 0.1}}', Report(3, 10, {"loss": 0.1})),
        ('  {"epoch": 0}', Report(0, 0, {})),
        ('{"epoch": 1, "metrics": {"a": 1, "b": "x", "c": true, "d": null, "e": [1]}}', Report(1, 0, {"a": 1.0})),
        ('{"epoch": 1, "metrics": {"loss": Infinity, "b": -1e999}}', Report(1, 0, {"loss": math.inf, "b": -math.inf})),
        ('{"epoch": 1, "metrics": {"verlust µ/이": 1}}', Report(1, 0, {"verlust µ/이": 1.0})),
        ('{"epoch": 3', None),
        ('{"epoch": "3"}', None),
        ('{"epoch": true}', None),
        ('{"epoch": -1}', None),
        ('{"epoch": 3000000000}', None),
        ('{"epoch": 3, "metrics": [1]}', None),
        ('{"epoch": 3, "epochs": null}', None),
        ('{"loss": 0.1}', None),
        ("epoch 3", None),
        ("[1]", None),
        ("{" * 60_000, None),
        ('{"epoch": 1, "x": "' + "y" * 70_000 + '"}', None),
        ('{"epoch": ' + "9" * 5000 + "}", None),
    ],
)
def test_progress_in_a_line(line: str, found: Report | None) -> None:
    assert parse_progress(line) == found


def test_a_diverged_training_is_seen_as_one() -> None:
    found = parse_progress('{"epoch": 1, "epochs": 3, "metrics": {"loss": NaN, "ok": 0.5}}')
    assert found is not None
    assert math.isnan(found.metrics["loss"])
    assert as_json({**found.metrics, "up": math.inf, "down": -math.inf}) == {
        "loss": "NaN",
        "ok": 0.5,
        "up": "Infinity",
        "down": "-Infinity",
    }
    assert [float(str(value)) for value in as_json({"up": math.inf, "down": -math.inf}).values()] == [
        math.inf,
        -math.inf,
    ], "those who watch read it back"


def test_a_number_that_is_too_large_harms_no_other() -> None:
    assert parse_progress(json.dumps({"epoch": 1, "metrics": {"big": 10**400, "ok": 1}})) == Report(1, 0, {"ok": 1.0})


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_name_that_a_server_cannot_hold_harms_no_other(name: str) -> None:
    line = json.dumps({"epoch": 1, "metrics": {name: 1, "ok": 2}})
    assert parse_progress(line) == Report(1, 0, {"ok": 2.0})


def test_a_line_has_a_limit_of_metrics() -> None:
    many = {f"m{i}": i for i in range(report.MOST_METRICS + 5)}
    found = parse_progress(json.dumps({"epoch": 1, "metrics": many}))
    assert found is not None
    assert len(found.metrics) == report.MOST_METRICS
