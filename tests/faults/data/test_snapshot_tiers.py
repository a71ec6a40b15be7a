"""A snapshot of one tier on another, with a finished training: native to Compose, and back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.faults.conftest import Victim
from tests.faults.data.db_tools import Site, offered, refused
from tests.smoke.stage import Stage, compose_lacks, stage


@pytest.fixture(scope="module")
def made() -> Iterator[Stage]:
    """One stack that runs now on the one tier, now on the other."""
    if reason := compose_lacks():
        pytest.skip(reason)
    with stage("compose") as made:
        either = replace(made, env={k: v for k, v in made.env.items() if k != "PLATFORM_TIER"})
        try:
            yield either
        finally:
            either.invoke("down", "--tier", "native")


def _on(made: Stage, tier: str, *words: str) -> Any:
    return made.data(*words, "--tier", tier)


def _keys(site: Site) -> dict[bytes, bytes | None]:
    with redis.Redis(port=site.ends.port("redis"), password=site.ends.password("redis") or None) as client:
        return {name: client.get(name) for name in sorted(client.scan_iter())}


def test_a_finished_training_crosses_to_compose_and_back(made: Stage, tmp_path: Path) -> None:
    site = Site(Victim(made), tmp_path)
    made.invoke("up", "--tier", "native", check=True)
    job = _on(made, "native", "train.run", "--epochs", "2")["job"]
    with redis.Redis(port=site.ends.port("redis"), password=site.ends.password("redis") or None) as client:
        client.mset({"a": b"\x00\xff", "b": "2"})
    before = (_on(made, "native", "train.show", job)["artifacts"], _keys(site))
    made.invoke("snapshot.create", "here", "--tier", "native", check=True)

    stuck = ("snapshot.restore", "here", "--tier", "compose", "--yes")
    refused(made.invoke(*stuck), 8, "--skip temporal", "nothing was changed")
    assert made.invoke("status", "--tier", "native").returncode == 0
    done = made.invoke(*stuck, "--skip", "temporal", "--json")
    assert done.returncode == 11, done.stderr
    assert json.loads(done.stdout)["data"]["leftOut"].keys() == {"temporal"}
    assert (_on(made, "compose", "train.show", job)["artifacts"], _keys(site)) == before
    made.invoke("train.run", "--epochs", "1", "--tier", "compose", check=True)

    made.invoke("snapshot.create", "there", "--tier", "compose", check=True)
    assert "temporal" in made.data("snapshot.show", "there")["parts"]["databases"]["databases"]
    made.invoke("snapshot.restore", "there", "--tier", "compose", "--yes", check=True)
    made.invoke("train.run", "--epochs", "1", "--tier", "compose", check=True)
    done = made.invoke("snapshot.restore", "there", "--tier", "native", "--skip", "temporal", "--yes")
    assert done.returncode == 11, done.stderr
    assert (_on(made, "native", "train.show", job)["artifacts"], _keys(site)) == before


def test_what_the_other_tier_lacks_is_told_before_and_the_rest_crosses(made: Stage, tmp_path: Path) -> None:
    site = Site(Victim(made), tmp_path)
    made.invoke("up", "--tier", "native", check=True)
    site.fill()
    with offered(site, only_here="1.0"):
        with site.link("labeler") as link:
            link.execute("create extension only_here")
        made.invoke("snapshot.create", "extended", "--tier", "native", "--skip", "temporal", check=True)
        with site.link("labeler") as link:
            link.execute("drop extension only_here")
    order = ("snapshot.restore", "extended", "--tier", "compose")
    plan = made.invoke(*order, "--dry-run", check=True)
    assert "labeler needs extension only_here 1.0: compared once compose runs" in plan.stdout
    before = site.state()
    done = made.invoke(*order, "--yes")
    assert done.returncode == 11, done.stderr
    assert "not restored: database labeler: this server lacks the extension only_here" in done.stderr
    assert {name: site.content(name) for name in ("platform", "users")} == {n: before[n] for n in ("platform", "users")}
    again = made.invoke(*order, "--dry-run", check=True)
    assert "the database labeler is LEFT OUT: compose lacks the extension only_here" in again.stdout
