"""What counts as put into the cluster by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from infra.errors import PlatformError
from infra.kube.kubectl_cli import OWNER
from infra.tiers.cluster import raw as cluster_raw
from infra.tiers.kind.cluster import KindCluster
from tests.unit.kube import objects as o
from tests.unit.tiers.kind.fakes import Answers, cluster_of

APPLIED: dict[str, Any] = {"annotations": {cluster_raw.APPLIED: "{}"}}


def server_side(manager: str) -> dict[str, Any]:
    return {"managedFields": [{"manager": manager, "operation": "Apply"}]}


@pytest.mark.parametrize(
    ("about", "raw"),
    [
        (APPLIED, True),
        (server_side("kubectl"), True),
        (server_side("kubectl-client-side-apply"), True),
        ({}, False),
        (server_side("kube-controller-manager"), False),
        ({**APPLIED, **server_side(OWNER)}, False),
        ({**APPLIED, "labels": {"app.kubernetes.io/managed-by": "Helm"}}, False),
        ({"annotations": {**APPLIED["annotations"], "meta.helm.sh/release-name": "redis"}}, False),
        ({**APPLIED, "ownerReferences": [{"kind": "Deployment"}]}, False),
    ],
)
def test_raw_is_what_kubectl_has_applied_and_nobody_else_keeps(about: dict[str, Any], raw: bool) -> None:
    assert cluster_raw.is_raw({"metadata": o.meta("thing", **about)}) is raw


def found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, api: Answers) -> list[cluster_raw.Raw]:
    monkeypatch.setattr(KindCluster, "api", lambda self: api)
    return cluster_raw.find(cluster_of(tmp_path))


def test_objects_come_in_the_order_of_their_removal_and_volumes_are_not_among_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lists = {path.format("platform"): [{"metadata": o.meta("a", **APPLIED)}] for path in cluster_raw.KINDS.values()}
    lists["/api/v1/namespaces/platform/persistentvolumeclaims"] = [{"metadata": o.meta("data", **APPLIED)}]
    api = Answers(lists)
    names = [thing.name for thing in found(tmp_path, monkeypatch, api)]
    assert names == [f"{kind}/a" for kind in cluster_raw.KINDS]
    assert names.index("deployment/a") < names.index("service/a") < names.index("secret/a")
    assert api.closed


def test_a_kind_that_the_cluster_does_not_know_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert found(tmp_path, monkeypatch, Answers()) == []


def test_a_cluster_that_does_not_answer_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PlatformError) as caught:
        found(tmp_path, monkeypatch, Answers(other=lambda _: 503))
    assert caught.value.code == "UNREACHABLE"
