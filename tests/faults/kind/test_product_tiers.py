"""Snapshots that cross: from containers and from plain processes into a cluster, and from the cluster back."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests.faults.kind.product import Product, product
from tests.smoke.stage import compose_lacks

pytestmark = pytest.mark.usefixtures("rig")


@pytest.fixture(scope="module")
def made(rig: dict[str, str]) -> Iterator[Product]:
    """One stack that runs now on one tier, now on another; all of them end with it."""
    with product(PLATFORM_LIGHT="no") as one:
        either = Product(replace(one.stage, env={k: v for k, v in one.stage.env.items() if k != "PLATFORM_TIER"}))
        try:
            yield either
        finally:
            for tier in ("native", "compose"):
                either.stage.invoke("down", "--tier", tier)


def on(made: Product, tier: str, *words: str) -> Any:
    """The `data` of a task on a tier."""
    return made.data(*words, "--tier", tier)


def trained(made: Product, tier: str) -> tuple[str, Any]:
    """A finished training on a tier: its name, and what it left in the object store."""
    job = str(on(made, tier, "train.run", "--epochs", "1")["job"])
    return job, artifacts(made, tier, job)


def artifacts(made: Product, tier: str, job: str) -> Any:
    """What a training left, with the digest of each file."""
    found = on(made, tier, "train.show", job)["artifacts"]
    assert found
    return found


def smoke(made: Product, tier: str) -> None:
    """The contract suite against the running tier."""
    argv = [sys.executable, "-m", "pytest", "-q", "tests/smoke", "--tier", tier, "--ignore", f"tests/smoke/{tier}"]
    env = dict(made.stage.env) | {"PLATFORM_TIER": tier}
    done = subprocess.run(argv, cwd=made.stage.root, env=env, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stdout[-5000:]


def test_a_training_of_compose_is_there_in_a_cluster_and_back(made: Product) -> None:
    if reason := compose_lacks():
        pytest.skip(reason)
    made.invoke("up", "--tier", "compose")
    job, before = trained(made, "compose")
    made.invoke("snapshot.create", "boxes", "--tier", "compose")
    made.invoke("down", "--tier", "compose")

    made.invoke("snapshot.restore", "boxes", "--tier", "kind", "--yes")
    assert artifacts(made, "kind", job) == before
    smoke(made, "kind")
    later, result = trained(made, "kind")

    made.invoke("snapshot.create", "cluster", "--tier", "kind")
    made.invoke("snapshot.verify", "cluster", "--tier", "kind")
    made.invoke("kind.stop")
    made.invoke("snapshot.restore", "cluster", "--tier", "compose", "--yes")
    assert artifacts(made, "compose", job) == before
    assert artifacts(made, "compose", later) == result
    trained(made, "compose")
    made.invoke("down", "--tier", "compose")


def test_a_training_of_native_is_there_in_a_cluster_but_not_the_history_of_its_workflow(made: Product) -> None:
    made.invoke("up", "--tier", "native")
    job, before = trained(made, "native")
    made.invoke("snapshot.create", "plain", "--tier", "native")
    made.invoke("down", "--tier", "native")

    made.invoke("kind.up")
    stuck = ("snapshot.restore", "plain", "--tier", "kind", "--yes")
    refused = made.error(*stuck, expect=8)
    assert "--skip temporal" in json.dumps(refused)
    done = made.invoke(*stuck, "--skip", "temporal", "--json", expect=11)
    assert json.loads(done.stdout)["data"]["leftOut"].keys() == {"temporal"}
    assert artifacts(made, "kind", job) == before
    trained(made, "kind")
