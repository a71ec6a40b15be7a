"""Commands on our cluster that take something away, and those that undo it; the two majors of Helm; plain manifests."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.faults.kind.product import Product, product
from tests.rig.kind import tools

pytestmark = pytest.mark.usefixtures("rig")


@pytest.fixture(scope="module")
def up(rig: dict[str, str]) -> Iterator[Product]:
    """A stack on kind with the core, and a row that has to outlive everything."""
    with product() as made:
        made.invoke("kind.up")
        made.sql("create table kept (word text); insert into kept values ('here')")
        yield made


@pytest.fixture(scope="module")
def helm3(up: Product) -> Product:
    """The same with Helm 3."""
    return up.having(PLATFORM_KIND_BIN=str(tools.directory(3)))


def kept(up: Product) -> str:
    return up.sql("select word from kept")


def redis(up: Product, *words: str) -> str:
    """What Redis in the cluster answers."""
    return up.cluster.kubectl("exec", "--namespace", "platform", "redis-0", "--", "valkey-cli", *words)


def revision(up: Product, name: str) -> int:
    return next(int(r["revision"]) for r in up.data("helm.list") if r["name"] == name)


# --- looking, and small changes


def test_charts_are_rendered_and_checked_without_the_cluster(up: Product, helm3: Product) -> None:
    for one in (up, helm3):
        assert "kind: StatefulSet" in one.data("helm.template", "--name", "redis")["redis"]
        missing = one.error("helm.template", "--name", "postgresql", "--production", expect=2)
        assert "set cloudnativepg.backup.destinationPath" in missing["why"]
        given = ("--set", "cloudnativepg.backup.destinationPath=s3://bucket/platform")
        assert "devpass" not in str(one.data("helm.template", "--name", "postgresql", "--production", *given))
        found = one.data("helm.lint")
        assert found
        assert all(entry["ok"] for entry in found)


def with_input(up: Product, text: str, *words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "invoke", *words]
    env = {**up.stage.env, "SHELL": "/bin/sh"}
    return subprocess.run(argv, cwd=up.stage.root, env=env, input=text, capture_output=True, text=True, timeout=120)


def test_a_shell_leads_to_the_cluster_and_its_code_is_ours(up: Product) -> None:
    done = with_input(up, "kubectl get pods -n platform; helm list -A; exit 7\n", "kind.shell")
    assert "postgresql-0" in done.stdout
    assert "temporal" in done.stdout
    assert done.returncode == 7


def test_a_shell_in_a_service_is_its_own_client(up: Product) -> None:
    done = with_input(up, "select word from kept;\n", "kind.shell", "--service", "postgres")
    assert (done.returncode, "here" in done.stdout) == (0, True), done.stderr


def test_restarted_services_have_new_pods_and_their_data(up: Product) -> None:
    before = up.cluster.get("pod", "postgresql-0", "--namespace", "platform")["metadata"]["uid"]
    up.invoke("kind.restart", "--service", "postgres")
    assert up.cluster.get("pod", "postgresql-0", "--namespace", "platform")["metadata"]["uid"] != before
    assert kept(up) == "here"


def test_logs_of_one_service_and_of_all(up: Product) -> None:
    assert {line["service"] for line in up.data("logs", "-s", "redis", "--tail", "3")["lines"]} == {"redis"}
    assert {"postgres", "redis"} <= {line["service"] for line in up.data("logs", "--tail", "3")["lines"]}


def test_plain_manifests_are_applied_compared_and_taken_away(up: Product) -> None:
    assert up.invoke("k8s.diff", expect=1).stdout
    made = up.data("k8s.apply")["objects"]
    assert [line for line in made if line.startswith("deployment.apps/backend")]
    assert up.data("k8s.diff")["different"] is False
    found = up.stage.invoke("kind.clean-raw")
    assert (found.returncode, "deployment/backend" in found.stderr) == (3, True)
    refused = up.invoke("k8s.delete", expect=3)
    assert "deployment/backend" in refused.stderr
    up.invoke("k8s.delete", "--yes")
    left = up.cluster.get("all", "--namespace", "platform", "--selector", "app.kubernetes.io/managed-by=kustomize")
    assert [i for i in left["items"] if i["kind"] not in ("Pod", "ReplicaSet")] == []
    assert kept(up) == "here", "volumes stay"


def test_an_overlay_that_does_not_exist_is_refused_with_those_that_do(up: Product) -> None:
    assert "kind, nodeports, production" in up.invoke("k8s.apply", "--overlay", "staging", expect=2).stderr


# --- releases, by both majors of Helm


@pytest.mark.parametrize("major", [4, 3])
def test_deploy_upgrade_go_back_and_remove(up: Product, helm3: Product, major: int) -> None:
    one = up if major == 4 else helm3
    assert one.data("version", "--tier", "kind")["helm"].startswith(f"{major}.")
    redis(one, "set", "word", f"helm {major}")
    one.invoke("helm.uninstall", "--name", "redis", "--yes")
    assert one.data("helm.deploy", "--only", "redis")["deployed"] == ["redis"]
    first = revision(one, "redis")
    one.invoke("helm.upgrade", "redis", "--set", "resources.limits.memory=300Mi")
    assert one.data("helm.values", "redis")["resources"]["limits"]["memory"] == "300Mi"
    bad = ("--set", "image.ref=registry.invalid/nothing:1", "--back-on-failure")
    one.invoke("helm.upgrade", "redis", *bad, expect=7)
    one.invoke("helm.rollback", "redis", str(first))
    assert "300Mi" not in str(one.data("helm.values", "redis"))
    assert len(one.data("helm.history", "redis")) >= 3
    assert one.data("helm.test", "redis")["passed"]
    assert one.data("helm.status", "redis")["state"] == "ready"
    assert "kind: StatefulSet" in one.data("helm.manifest", "redis")["manifest"]
    assert redis(one, "get", "word") == f"helm {major}"


def test_helm_3_changes_nothing_that_is_as_wanted(helm3: Product) -> None:
    assert helm3.data("kind.up")["changed"] is False


def test_a_namespace_is_emptied_and_filled_again(up: Product) -> None:
    assert "redis" in up.invoke("helm.uninstall", "--namespace", "platform", expect=3).stderr
    gone = up.data("helm.uninstall", "--namespace", "platform", "--yes")["removed"]
    assert {"postgresql", "redis", "minio"} <= set(gone)
    assert up.data("helm.uninstall", "--namespace", "platform", "--yes")["removed"] == []
    up.invoke("kind.up")
    assert kept(up) == "here"


# --- data


def test_a_reset_goes_into_the_trash_and_comes_back(up: Product) -> None:
    redis(up, "set", "word", "here")
    assert "redis" in up.invoke("kind.reset", "-s", "redis", expect=3).stderr
    up.invoke("kind.reset", "-s", "redis", "--yes")
    up.invoke("kind.up")
    assert redis(up, "get", "word") == ""
    assert kept(up) == "here", "only what was named"
    up.invoke("trash.restore", "redis", "--yes")
    up.invoke("kind.up")
    assert redis(up, "get", "word") == "here"


def test_down_with_kept_data_and_up_again(up: Product) -> None:
    before = up.nodes()[0].id
    assert up.data("kind.down", "--keep-data")["kept"]
    assert up.nodes() == []
    again = up.invoke("kind.down")
    assert "no cluster" in again.stdout
    assert "the next invoke kind.up uses them" in again.stdout
    up.invoke("kind.up")
    assert up.nodes()[0].id != before
    assert kept(up) == "here"


def test_down_asks_and_takes_a_snapshot_that_brings_everything_back(up: Product) -> None:
    refused = up.invoke("kind.down", expect=3)
    assert "a snapshot of everything is taken and verified" in refused.stderr
    assert up.invoke("kind.down", "--no-backup", expect=3).returncode == 3
    assert up.nodes()
    back = up.data("kind.down", "--yes")["back"]
    name = back.split("snapshot.restore ")[1].split()[0]
    assert up.nodes() == []
    up.invoke("kind.up")
    assert up.sql("select count(*) from information_schema.tables where table_name = 'kept'") == "0"
    up.invoke("snapshot.restore", name, "--tier", "kind", "--yes")
    assert kept(up) == "here"


def test_down_of_a_stopped_cluster_puts_the_volumes_into_the_trash(up: Product) -> None:
    up.invoke("kind.stop")
    assert "copied to the trash" in up.invoke("kind.down", expect=3).stderr
    up.invoke("kind.down", "--yes")
    entries = {e["service"]: e["name"] for e in up.data("trash.list")}
    assert "postgres" in entries
    up.invoke("kind.up")
    up.invoke("trash.restore", "postgres", "--yes")
    up.invoke("kind.up")
    assert kept(up) == "here"
