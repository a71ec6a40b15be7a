"""Observability in the cluster, proved by its own check: targets answer, the queries of the dashboards parse."""

from __future__ import annotations

import pytest

from tests.smoke.platform import Platform


def test_the_check_of_observability_finds_no_failure(platform: Platform) -> None:
    if platform.service("prometheus") is None:
        pytest.skip(f"prometheus was not started: {platform.gap('prometheus')}")
    checks = platform.data("obs.check", timeout=900)["checks"]
    assert [check for check in checks if check["status"] == "fail"] == []
    up = {
        check["id"].split(".")[1] for check in checks if check["id"].startswith("target.") and check["status"] == "ok"
    }
    assert {"prometheus", "temporal", "postgres", "redis"} <= up
