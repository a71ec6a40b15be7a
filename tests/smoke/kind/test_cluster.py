"""The cluster itself: kubeconfig, a second `up`, images, a node that restarts, the report for a bug."""

from __future__ import annotations

import json
import os
import stat
import uuid
from pathlib import Path

import psycopg
import pytest

from infra import catalog
from infra.tiers.kind.nodes import Docker
from tests.smoke.kind.conftest import TheCluster
from tests.smoke.platform import Platform


def test_the_kubeconfig_is_private_and_of_our_cluster(cluster: TheCluster) -> None:
    assert stat.S_IMODE(cluster.kubeconfig.stat().st_mode) == 0o600
    said = cluster.data("kind.kubeconfig")
    assert Path(said["path"]) == cluster.kubeconfig
    assert said["context"] == f"kind-{cluster.nodes()[0].cluster}"


def test_the_users_kubeconfig_stays_as_it_is(cluster: TheCluster, tmp_path: Path) -> None:
    own = tmp_path / "config"
    own.write_text("apiVersion: v1\nkind: Config\ncurrent-context: production\nclusters: []\ncontexts: []\nusers: []\n")
    before = own.read_bytes()
    os.environ["KUBECONFIG"] = str(own)
    try:
        cluster.task("kind.up")
        cluster.task("helm.list")
    finally:
        del os.environ["KUBECONFIG"]
    assert own.read_bytes() == before


def test_namespaces_and_addresses_are_as_agreed(cluster: TheCluster) -> None:
    there = {n["metadata"]["name"] for n in cluster.items("/api/v1/namespaces")}
    assert set(catalog.NAMESPACES) <= there
    services = {(s["metadata"]["namespace"], s["metadata"]["name"]) for s in cluster.items("/api/v1/services")}
    core = {p for s in catalog.SERVICES if s.overlay == catalog.OVERLAY_CORE for p in s.ports}
    wanted = {(p.namespace, p.name) for p in catalog.CLUSTER_PORTS if p.setting in {port.setting for port in core}}
    assert wanted <= services


def test_a_second_up_changes_nothing(cluster: TheCluster) -> None:
    before, pods = cluster.revisions(), _pods(cluster)
    assert cluster.data("kind.up")["changed"] is False
    assert cluster.revisions() == before
    assert _pods(cluster) == pods


def _pods(cluster: TheCluster) -> dict[str, str]:
    return {p["metadata"]["uid"]: p["metadata"]["name"] for p in cluster.items("/api/v1/namespaces/platform/pods")}


def test_one_control_plane_waits_for_no_lease(cluster: TheCluster) -> None:
    leases = cluster.items("/apis/coordination.k8s.io/v1/namespaces/kube-system/leases")
    held = {lease["metadata"]["name"] for lease in leases}
    assert not held & {"kube-controller-manager", "kube-scheduler"}  # or each restart costs 15 to 20 s


def test_images_that_are_there_are_not_loaded_again(cluster: TheCluster) -> None:
    assert cluster.data("kind.load")["loaded"] == []


def test_a_node_that_restarts_loses_nothing(cluster: TheCluster, platform: Platform, docker: Docker) -> None:
    mark = uuid.uuid4().hex
    with psycopg.connect(platform.contract["DATABASE_URL"], autocommit=True) as link:
        link.execute("create table if not exists smoke_restart (mark text)")
        link.execute("insert into smoke_restart values (%s)", (mark,))
    bucket = next(b.name for b in catalog.BUCKETS)
    s3 = platform.storage("EXTERNAL")
    s3.put_object(Bucket=bucket, Key=f"smoke-restart/{mark}", Body=mark.encode())
    names = [n.name for n in cluster.nodes()]
    docker.stop(names)
    cluster.task("kind.status", expect=9)
    cluster.task("kind.up")
    with psycopg.connect(platform.contract["DATABASE_URL"]) as link:
        assert link.execute("select count(*) from smoke_restart where mark = %s", (mark,)).fetchone() == (1,)
    assert s3.get_object(Bucket=bucket, Key=f"smoke-restart/{mark}")["Body"].read() == mark.encode()


def test_stop_and_start(cluster: TheCluster) -> None:
    before = restarts_of_temporal(cluster)
    cluster.task("kind.stop")
    assert not any(n.running for n in cluster.nodes())
    cluster.task("kind.start")
    assert cluster.data("kind.status")["state"] == "ready"
    assert restarts_of_temporal(cluster) <= before + 1, "its server has waited for the database, and not ended"


def restarts_of_temporal(cluster: TheCluster) -> int:
    """How often the containers of its server began again."""
    pods = cluster.items("/api/v1/namespaces/temporal/pods", labelSelector="app.kubernetes.io/component=server")
    states = [state for pod in pods for state in pod["status"]["containerStatuses"]]
    assert states
    return sum(int(state["restartCount"]) for state in states)


def test_the_report_has_the_parts_and_no_secret(cluster: TheCluster, tmp_path: Path) -> None:
    parts = cluster.data("kind.logs", "--to", str(tmp_path / "report"))["parts"]
    assert set(parts.values()) == {"written"}, parts
    known = {setting.default for setting in catalog.SETTINGS.values()}
    secrets = [s.encode() for s in cluster.context.settings.secrets() if s not in known]
    assert secrets
    for path in (tmp_path / "report").rglob("*"):
        if path.is_file():
            text = path.read_bytes()
            assert not [s for s in secrets if s in text], path
    assert json.loads((tmp_path / "report" / "status.json").read_text())


def test_what_kubectl_had_applied_is_found_and_removed(cluster: TheCluster) -> None:
    from infra import shell

    kubectl = cluster.tier.kubectl
    manifest = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "raw-smoke", "namespace": "platform"}}
    argv = [kubectl.program, "--kubeconfig", str(kubectl.kubeconfig), "apply", "-f", "-"]
    shell.run(argv, stdin=json.dumps(manifest))
    refused = cluster.task("kind.clean-raw", expect=3)
    assert "configmap/raw-smoke" in refused.err
    before = cluster.revisions()
    assert cluster.data("kind.clean-raw", "--yes")["removed"] == ["platform/configmap/raw-smoke"]
    assert cluster.revisions() == before


@pytest.mark.parametrize("name", ["postgres", "redis", "temporal"])
def test_a_service_restarts_and_its_logs_can_be_read(cluster: TheCluster, platform: Platform, name: str) -> None:
    done = platform.invoke("restart", "-s", name, timeout=300)
    assert done.returncode == 0, done.stderr
    assert platform.data("logs", "-s", name, "--tail", "5")["lines"]
