"""Snapshots between the full Temporal, whose storage is databases, and the light one with a file in its container."""

from __future__ import annotations

import json
from dataclasses import replace

from tests.faults.data.db_tools import refused
from tests.smoke.stage import Stage, stage


def light(made: Stage) -> Stage:
    return replace(made, env={**made.env, "PLATFORM_LIGHT": "yes"})


def test_temporals_storage_is_refused_first_and_can_be_left_out_both_ways() -> None:
    with stage("compose") as made:
        made.invoke("up", check=True)
        made.invoke("snapshot.create", "full", check=True)
        made.invoke("down", check=True)
        small = light(made)
        small.invoke("up", check=True)
        before = small.data("compose.ps")
        refused(small.invoke("snapshot.restore", "full", "--yes"), 8, "--skip temporal", "nothing was changed")
        assert [c["id"] for c in small.data("compose.ps")] == [c["id"] for c in before]
        done = small.invoke("snapshot.restore", "full", "--skip", "temporal", "--yes", "--json")
        assert done.returncode == 11, done.stderr
        assert json.loads(done.stdout)["data"]["leftOut"].keys() == {"temporal"}
        small.invoke("train.run", "--epochs", "1", check=True)

        done = small.invoke("snapshot.create", "small", "--json")
        assert done.returncode == 11, done.stderr
        assert json.loads(done.stdout)["data"]["leftOut"].keys() == {"temporal"}
        done = made.invoke("snapshot.restore", "small", "--yes", "--json")
        assert done.returncode == 0, done.stderr
        assert "temporal" not in json.loads(done.stdout)["data"]["restored"]
        made.invoke("train.run", "--epochs", "1", check=True)
