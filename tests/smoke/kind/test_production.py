"""The site of the rehearsal before a real API server: it takes every object and every admission policy."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from infra.kube.helm_cli import Helm
from infra.prod import render
from infra.prod import site as sites
from infra.prod.cluster import Cluster, listed
from infra.prod.render import Object
from infra.settings import ROOT
from tests.drift import manifests
from tests.smoke.kind.conftest import TheCluster


def _objects(namespace: str) -> list[Object]:
    """What is rendered, in a namespace of its own: names of production are those of this tier as well."""
    site, helm = sites.load("rehearsal", ROOT), Helm(manifests.helm(), 4, Path("none"))
    made = render.render(site, ROOT, helm).objects
    for thing in made:
        if "namespace" in thing["metadata"]:
            thing["metadata"]["namespace"] = namespace
    return made


def test_the_api_server_takes_what_production_applies(
    cluster: TheCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig))
    there = Cluster(manifests.kubectl(), f"kind-{cluster.tier.cluster.name}", tmp_path / "cache")
    name = f"dry-{uuid.uuid4().hex[:8]}"
    space: Object = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    there.apply([space])
    try:
        known = [thing for thing in _objects(name) if there.has_kind(thing)]
        done = there.dry_run(known)
    finally:
        there.delete([space])
    assert done.code == 0, done.err
    found = listed(done.out)
    assert len(found) == len(known)
    kinds = {thing["kind"] for thing in found}
    assert {"ValidatingAdmissionPolicy", "NetworkPolicy", "Deployment", "StatefulSet", "Job"} <= kinds
    policies = [thing for thing in found if thing["kind"] == "ValidatingAdmissionPolicy"]
    assert not [p for p in policies if (p.get("status") or {}).get("typeChecking", {}).get("expressionWarnings")]
