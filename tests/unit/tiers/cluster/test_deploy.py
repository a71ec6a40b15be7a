"""What of the cluster counts as deployed by us, and what every cluster gets first."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from infra import catalog
from infra.kube.releases import Deployed
from infra.settings import ROOT
from infra.tiers.cluster import deploy, overrides
from infra.tiers.kind.cluster import KEPT_CLASS
from tests.unit.kube import objects as o
from tests.unit.tiers.kind.fakes import Answers, cluster_of

OURS = Deployed("redis", "platform", 3, "deployed", "a-mark", 3)


@pytest.mark.parametrize(
    ("noted", "mark"),
    [({"redis": 3}, "a-mark"), ({"redis": 2}, ""), ({}, "a-mark"), ({"temporal": 1}, "a-mark")],
)
def test_a_release_that_somebody_else_has_changed_is_not_as_wanted(
    tmp_path: Path, noted: dict[str, int], mark: str
) -> None:
    made = cluster_of(tmp_path)
    made.remember(revisions=noted)
    found = deploy._untouched(made, {"redis": OURS})
    assert (found["redis"].fingerprint, found["redis"].revision) == (mark, 3)


def test_only_revisions_of_what_was_deployed_are_noted(tmp_path: Path) -> None:
    made = cluster_of(tmp_path)
    made.remember(revisions={"temporal": 4, "redis": 1})
    secrets = [o.helm_secret("redis", 2, "deployed"), o.helm_secret("minio", 7, "deployed")]
    api: Any = Answers({"/api/v1/secrets": secrets})
    deploy._note_revisions(made, api, ["redis"])
    assert made.record["revisions"] == {"temporal": 4, "redis": 2}


def test_what_is_set_now_wins_over_what_was_set_before() -> None:
    assert overrides.merged(["a=1", "b.c=2"], ["a=3"]) == ["b.c=2", "a=3"]


def test_every_cluster_gets_namespaces_storage_class_and_a_note_of_whose_it_is(tmp_path: Path) -> None:
    (tmp_path / "kind").symlink_to(ROOT / "kind")
    made = cluster_of(tmp_path)
    found = [json.loads(text) for text in deploy.basics(made).split("---\n") if text.strip()]
    kinds = [entry["kind"] for entry in found]
    spaces = {e["metadata"]["name"]: e["metadata"].get("labels", {}) for e in found if e["kind"] == "Namespace"}
    assert set(spaces) == set(catalog.NAMESPACES)
    assert spaces["training"]["pod-security.kubernetes.io/enforce"] == "restricted"
    assert kinds.count("Namespace") == len(spaces)
    classes = [entry["metadata"]["name"] for entry in found if entry["kind"] == "StorageClass"]
    assert classes == [KEPT_CLASS]
    assert found[-1]["data"]["stack"] == made.context.stack.name
