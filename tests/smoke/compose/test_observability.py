"""Observability, proved by its own check after a training: targets, dashboards, logs, an alert."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from tests.smoke.platform import Platform

Checks = Mapping[str, Mapping[str, Any]]


@pytest.fixture(scope="module")
def checks(platform: Platform) -> Checks:
    """What `obs.check --alerts` finds after a training, by id."""
    if platform.service("prometheus") is None:
        pytest.skip(f"prometheus was not started: {platform.gap('prometheus')}")
    done = platform.invoke("train.run", "--epochs", "2", timeout=600)
    assert done.returncode == 0, done.stderr
    found = platform.data("obs.check", "--alerts", timeout=900)
    return {check["id"]: check for check in found["checks"]}


def test_nothing_fails(checks: Checks) -> None:
    assert [c for c in checks.values() if c["status"] == "fail"] == []


def test_every_target_that_was_started_is_up(checks: Checks) -> None:
    jobs = {c["id"].split(".")[1] for c in checks.values() if c["id"].startswith("target.") and c["status"] == "ok"}
    assert {"prometheus", "temporal"} <= jobs


@pytest.mark.parametrize("board", ["overview", "training", "temporal"])
def test_queries_of_a_dashboard_give_data(checks: Checks, board: str) -> None:
    assert checks[f"dashboard.{board}.json"]["status"] == "ok", checks[f"dashboard.{board}.json"]["text"]


def test_an_alert_fires_and_clears(checks: Checks) -> None:
    assert checks["alert"]["status"] == "ok", checks["alert"]["text"]


def test_a_log_line_arrives_in_loki(checks: Checks, platform: Platform) -> None:
    for name in ("loki", "alloy"):
        if platform.gap(name):
            pytest.skip(f"{name}: {platform.gap(name)}")
    assert checks["logs"]["status"] == "ok", checks["logs"]["text"]
