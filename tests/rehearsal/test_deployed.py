"""The site as it was deployed: every wave is ready, nothing is left to do, applications find what they need."""

from __future__ import annotations

from tests.rehearsal.conftest import Table
from tests.rehearsal.stage import Stage


def test_every_wave_is_ready(stage: Stage, table: Table) -> None:
    found = {f["about"]: f for f in stage.data("status")["findings"]}
    waves = [name for name in found if name[:2].isdigit()]
    ready = [name for name in waves if found[name]["state"] == "ok"]
    table.add("deployment into an empty cluster", "every wave is ready", f"{len(ready)} of {len(waves)} waves")
    assert len(waves) == 4
    assert ready == waves, found


def test_nothing_is_left_to_do(stage: Stage) -> None:
    todo = [c for c in stage.data("diff")["changes"] if c["action"] in ("create", "change", "refused")]
    assert todo == []


def test_applications_find_what_they_need(stage: Stage, table: Table) -> None:
    done = stage.task("smoke", "--training", "--output", "json")
    checks = stage.answer(done)["checks"]
    good = [c["check"] for c in checks if c["ok"]]
    table.add("smoke, from inside the cluster", "everything works", f"{len(good)} of {len(checks)}")
    assert [c for c in checks if not c["ok"]] == []
    assert {"database platform", "redis", "external storage", "temporal", "mlflow", "training"} <= set(good)
