"""Helm releases: look, change, go back, take away and bring again; what cannot work ends at once with its reason."""

from __future__ import annotations

import uuid

import psycopg
import pytest

from infra import catalog
from tests.smoke.kind.conftest import TheCluster
from tests.smoke.platform import Platform

CORE = [c.release for c in catalog.CHARTS if c.overlay == catalog.OVERLAY_CORE]


def connections(platform: Platform) -> str:
    with psycopg.connect(platform.contract["DATABASE_URL"]) as link:
        row = link.execute("show max_connections").fetchone()
    assert row is not None
    return str(row[0])


def test_the_core_is_deployed(cluster: TheCluster) -> None:
    found = {r["name"]: r["status"] for r in cluster.data("helm.list")}
    assert {name: found.get(name) for name in CORE} == dict.fromkeys(CORE, "deployed")


@pytest.mark.parametrize("name", CORE)
def test_a_release_says_how_it_does(cluster: TheCluster, name: str) -> None:
    assert cluster.data("helm.status", name)["state"] == "ready"
    assert cluster.data("helm.history", name)
    assert cluster.data("helm.manifest", name)["manifest"]
    assert cluster.data("helm.values", name, "--all")


@pytest.mark.parametrize("name", CORE)
def test_the_charts_own_tests_pass(cluster: TheCluster, name: str) -> None:
    assert cluster.data("helm.test", name)["passed"]


def test_one_value_changes_the_rest_stays_and_back_again(cluster: TheCluster, platform: Platform) -> None:
    before, revision = connections(platform), cluster.revisions()["postgresql"]
    cluster.task("helm.upgrade", "postgresql", "--set", "parameters.max_connections=177")
    assert connections(platform) == "177"
    cluster.task("kind.up")
    assert connections(platform) == "177", "a later `up` keeps what was set"
    cluster.task("helm.rollback", "postgresql", str(revision))
    assert connections(platform) == before
    assert cluster.revisions()["postgresql"] == revision + 2
    assert cluster.data("status", "--tier", "kind")["state"] == "ready"


def test_an_image_that_is_not_available_changes_nothing(cluster: TheCluster) -> None:
    before = cluster.revisions()
    done = cluster.task("helm.upgrade", "redis", "--set", "image.ref=registry.invalid/nothing:1", expect=5)
    assert "registry.invalid/nothing:1" in done.err
    assert cluster.revisions() == before
    assert cluster.data("helm.status", "redis")["state"] == "ready"


def test_an_image_that_does_not_run_ends_it_with_the_reason_and_it_goes_back(cluster: TheCluster) -> None:
    before = cluster.data("helm.values", "redis")
    other = cluster.context.settings.text("POSTGRES_IMAGE")  # is there, and has no redis-server
    done = cluster.task("helm.upgrade", "redis", "--set", f"image.ref={other}", "--back-on-failure", expect=7)
    assert "redis-server" in done.err
    assert cluster.data("helm.values", "redis") == before
    assert cluster.data("helm.status", "redis")["state"] == "ready"


def test_a_value_of_the_wrong_type_is_named(cluster: TheCluster) -> None:
    before = cluster.revisions()
    done = cluster.task("helm.upgrade", "redis", "--set", "persistence.enabled=maybe", expect=2)
    assert "persistence" in done.err
    assert cluster.revisions() == before


def test_an_unknown_release_or_revision_is_refused(cluster: TheCluster) -> None:
    assert "did you mean redis?" in cluster.task("helm.status", "rediss", expect=9).err
    assert "no revision 99" in cluster.task("helm.rollback", "redis", "99", expect=9).err


def test_uninstalled_and_installed_again_it_has_its_data(cluster: TheCluster, platform: Platform) -> None:
    mark = uuid.uuid4().hex
    with psycopg.connect(platform.contract["USER_DATABASE_URL"], autocommit=True) as link:
        link.execute("create table if not exists smoke_uninstall (mark text)")
        link.execute("insert into smoke_uninstall values (%s)", (mark,))
    cluster.task("helm.uninstall", "--name", "postgresql", expect=3)
    cluster.task("helm.uninstall", "--name", "postgresql", "--yes")
    assert "postgresql" not in cluster.revisions()
    assert any(c["metadata"]["name"] == "data-postgresql" for c in cluster.items("/api/v1/persistentvolumeclaims"))
    cluster.task("kind.up")
    with psycopg.connect(platform.contract["USER_DATABASE_URL"]) as link:
        assert link.execute("select count(*) from smoke_uninstall where mark = %s", (mark,)).fetchone() == (1,)


def test_a_release_left_pending_is_healed(cluster: TheCluster) -> None:
    """As a run of Helm that was killed leaves it: its newest revision says that an upgrade is under way."""
    _pretend_pending(cluster, "redis")
    assert {r["name"]: r["status"] for r in cluster.data("helm.list")}["redis"] == "pending-upgrade"
    said = cluster.task("kind.up")
    assert "redis was left pending-upgrade" in said.err
    assert {r["name"]: r["status"] for r in cluster.data("helm.list")}["redis"] == "deployed"


def _pretend_pending(cluster: TheCluster, release: str) -> None:
    import base64
    import gzip
    import json

    from infra import shell

    secrets = cluster.items("/api/v1/namespaces/platform/secrets", labelSelector=f"owner=helm,name={release}")
    last = max(secrets, key=lambda s: int(s["metadata"]["labels"]["version"]))
    body = json.loads(gzip.decompress(base64.b64decode(base64.b64decode(last["data"]["release"]))))
    number = int(body["version"]) + 1
    body["version"], body["info"]["status"] = number, "pending-upgrade"
    text = base64.b64encode(base64.b64encode(gzip.compress(json.dumps(body).encode()))).decode()
    labels = {**last["metadata"]["labels"], "version": str(number), "status": "pending-upgrade"}
    about = {"name": f"sh.helm.release.v1.{release}.v{number}", "namespace": "platform", "labels": labels}
    made = {"apiVersion": "v1", "kind": "Secret", "type": last["type"], "metadata": about, "data": {"release": text}}
    kubectl = cluster.tier.kubectl
    shell.run([kubectl.program, "--kubeconfig", str(kubectl.kubeconfig), "create", "-f", "-"], stdin=json.dumps(made))
