"""What keeps a mistake away: each is refused, and nothing is changed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from tests.rehearsal.conftest import Table
from tests.rehearsal.stage import Stage

FREEZE = "platform/freeze"


def _versions(stage: Stage) -> dict[str, str]:
    """The generation of every workload: what a deployment would raise."""
    found = stage.cluster.get("deployments,statefulsets,clusters.postgresql.cnpg.io", "--all-namespaces")["items"]
    return {f"{o['kind']} {o['metadata']['name']}": str(o["metadata"]["generation"]) for o in found}


@contextmanager
def _said(stage: Stage, old: str, new: str) -> Iterator[None]:
    """Have another text in the site file for a while."""
    text = stage.site.read_text(encoding="utf-8")
    assert old in text
    stage.site.write_text(text.replace(old, new), encoding="utf-8")
    try:
        yield
    finally:
        stage.site.write_text(text, encoding="utf-8")


def _refused(stage: Stage, table: Table, fault: str, code: str, plan: str) -> None:
    before = _versions(stage)
    done = stage.task("deploy", "--plan", plan, "--output", "json")
    said = json.loads(done.stdout)
    table.add(fault, f"refused: {code}", f"{said['error']['code'] if said['error'] else 'deployed'}")
    assert said["error"]["code"] == code, done.stdout
    assert _versions(stage) == before


def test_another_context_is_refused(stage: Stage, table: Table) -> None:
    with _said(stage, "context: kind-rehearsal", "context: kind-elsewhere"):
        _refused(stage, table, "wrong context", "CONTEXT_REFUSED", "0123456789ab")


def test_another_cluster_behind_the_same_context_is_refused(stage: Stage, table: Table) -> None:
    uid = stage.cluster.get("namespace", "kube-system")["metadata"]["uid"]
    with _said(stage, uid, "00000000-0000-4000-8000-000000000000"):
        _refused(stage, table, "other uid", "CONTEXT_REFUSED", "0123456789ab")


def test_a_plan_is_stale_once_the_cluster_has_changed(stage: Stage, table: Table) -> None:
    plan = stage.plan()
    stage.cluster.kubectl("label", "deployment", "platform-backend", "-n", "platform", "rehearsal=changed")
    try:
        _refused(stage, table, "stale plan", "PLAN_STALE", plan)
    finally:
        stage.cluster.kubectl("label", "deployment", "platform-backend", "-n", "platform", "rehearsal-")


def test_a_frozen_cluster_is_left_alone(stage: Stage, table: Table) -> None:
    plan = stage.plan()
    stage.cluster.kubectl("annotate", "namespace", "kube-system", f"{FREEZE}=closing of the books")
    try:
        _refused(stage, table, "frozen", "FROZEN", plan)
    finally:
        stage.cluster.kubectl("annotate", "namespace", "kube-system", f"{FREEZE}-")


def test_a_second_deployer_is_refused(stage: Stage, table: Table) -> None:
    plan, moment = stage.plan(), f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
    about = {"name": "platform-deploy", "namespace": "default"}
    spec = {"holderIdentity": "somebody", "leaseDurationSeconds": 300, "renewTime": moment, "acquireTime": moment}
    stage.cluster.apply({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": about, "spec": spec})
    try:
        _refused(stage, table, "two deployers", "LOCKED", plan)
    finally:
        stage.cluster.kubectl("delete", "lease", "platform-deploy", "-n", "default")
