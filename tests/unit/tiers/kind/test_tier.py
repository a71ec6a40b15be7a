"""The kind tier where it asks no cluster."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from infra import endpoints
from infra.tiers.kind.tier import Kind
from tests.unit.helpers import context_of


@pytest.mark.parametrize(
    ("services", "out", "logs"),
    [(("loki", "prometheus"), "", True), (("loki",), "grafana,alloy", False), (("prometheus",), "", False)],
)
def test_logs_are_carried_where_loki_runs_and_alloy_is_not_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, services: tuple[str, ...], out: str, logs: bool
) -> None:
    context = context_of(tmp_path, PLATFORM_LEAVE_OUT=out)
    built = endpoints.build(context.settings, ())
    monkeypatch.setattr(Kind, "endpoints", lambda _self: replace(built, services=services))
    seen = Kind(context).observed()
    assert seen.logs is logs
    assert set(seen.absent) == {"mlflow", "prometheus", "loki", "grafana", "clearml"} - set(services)
