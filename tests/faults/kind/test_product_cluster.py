"""Our cluster after everything that may happen to it, and releases that cannot become ready: told, and healed."""

from __future__ import annotations

import contextlib
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import yaml

from tests.faults.kind.cluster import run, until
from tests.faults.kind.product import Product, product, said
from tests.rig.kind import tools
from tests.smoke.stage import HANG

pytestmark = pytest.mark.usefixtures("rig")

FOREIGN = """apiVersion: v1
kind: Config
# kept as it is
current-context: production
clusters: [{name: production, cluster: {server: "https://127.0.0.9:6443"}}]
contexts: [{name: production, context: {cluster: production, user: me, namespace: live}}]
users: [{name: me, user: {token: not-for-us}}]
"""
NO_IMAGE = "registry.invalid/nothing:1"
KUBELET = "/var/lib/kubelet/config.yaml"


@pytest.fixture(scope="module")
def users(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The kubeconfig of the user, with another cluster as its current context."""
    path = tmp_path_factory.mktemp("user") / "config"
    path.write_text(FOREIGN, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def planned(rig: dict[str, str], users: Path) -> Iterator[Product]:
    """A stack whose cluster the tests of this module share, once the first of them has made it."""
    with product(KUBECONFIG=str(users)) as made:
        yield made


@pytest.fixture(scope="module")
def up(planned: Product) -> Product:
    """The same with the core ready."""
    planned.invoke("kind.up")
    return planned


@pytest.fixture(autouse=True)
def the_users_kubeconfig_stays(users: Path) -> Iterator[None]:
    """Whatever a test does: byte for byte."""
    yield
    assert users.read_text(encoding="utf-8") == FOREIGN


# --- the cluster


def killed_tree(task: subprocess.Popen[str]) -> None:
    """End a task and everything that it has started, without warning."""
    victims = [*psutil.Process(task.pid).children(recursive=True), psutil.Process(task.pid)]
    for process in victims:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    task.communicate(timeout=HANG)


def test_a_cluster_left_half_made_is_made_anew(planned: Product) -> None:
    task = planned.begin("kind.up")
    until("the node's container is there", lambda: bool(planned.nodes()), 120)
    killed_tree(task)
    assert len(planned.nodes()) == 1
    status = planned.invoke("kind.status", expect=9)
    assert "incomplete" in status.stdout
    done = planned.invoke("kind.up")
    assert "incomplete" in done.stderr
    assert planned.data("kind.status")["state"] == "ready"


def test_a_run_that_is_killed_while_kind_works_is_finished_by_the_next(up: Product) -> None:
    up.invoke("kind.down", "--keep-data")
    task = up.begin("kind.up")
    until("the node's container is there", lambda: bool(up.nodes()), 120)
    task.send_signal(signal.SIGKILL)
    task.communicate(timeout=HANG)
    made = up.nodes()[0].id
    done = up.invoke("kind.up")
    assert "that is still running" in done.stderr or "it works and will be used" in done.stderr
    assert [n.id for n in up.nodes()] == [made]


def test_a_node_that_was_removed_by_hand_is_made_again_with_the_data(up: Product) -> None:
    up.sql("create table if not exists kept (word text); insert into kept values ('here')")
    run(["docker", "rm", "--force", "--volumes", up.cluster.control_plane])
    assert "no cluster" in up.invoke("kind.status", expect=9).stdout
    up.invoke("kind.up")
    assert up.sql("select word from kept") == "here"


def test_of_two_at_once_the_second_names_the_first(up: Product) -> None:
    up.invoke("helm.uninstall", "--name", "redis", "--yes")
    both = [up.begin("kind.up") for _ in range(2)]
    texts = [task.communicate(timeout=600)[1] for task in both]
    assert sorted(task.returncode for task in both) == [0, 12], texts
    loser = next(i for i, task in enumerate(both) if task.returncode == 12)
    assert f"pid {both[1 - loser].pid}" in texts[loser]
    assert up.statuses()["redis"] == "deployed"


def test_a_stopped_docker_is_said_although_a_cluster_was_there(up: Product, tmp_path: Path) -> None:
    gone = up.having(DOCKER_HOST=f"unix://{tmp_path}/docker.sock")
    done = gone.stage.invoke("kind.stop")
    assert (done.returncode, "Docker does not answer" in done.stderr) == (5, True), done.stderr
    assert up.data("kind.status")["state"] == "ready"


@pytest.mark.parametrize("change", [("kind-{}", "production"), ("https://127.0.0.1:", "https://127.0.0.9:")])
def test_a_kubeconfig_of_ours_that_leads_elsewhere_is_refused(up: Product, change: tuple[str, str]) -> None:
    ours, wrong = up.home / "kubeconfig", change[0].format(up.name)
    before = ours.read_text(encoding="utf-8")
    ours.write_text(before.replace(wrong, change[1]), encoding="utf-8")
    broken = ours.read_bytes()
    try:
        for task in ("helm.list", "helm.deploy", "k8s.apply", "kind.clean-raw", "kind.up"):
            found = up.error(task, expect=4)
            assert found["code"] == "CONTEXT_REFUSED"
            assert change[1].removeprefix("https://").rstrip(":") in found["why"]
        assert ours.read_bytes() == broken
    finally:
        ours.write_text(before, encoding="utf-8")
    assert up.data("kind.up")["changed"] is False


def test_a_kubeconfig_that_was_moved_away_is_written_anew(up: Product) -> None:
    ours = up.home / "kubeconfig"
    before = ours.read_text(encoding="utf-8")
    ours.rename(ours.with_name("moved-away"))
    try:
        assert "will be used" in up.invoke("kind.up").stderr
        assert ours.read_text(encoding="utf-8") == before
    finally:
        ours.write_text(before, encoding="utf-8")


# --- releases


def test_an_image_that_does_not_exist_ends_it_before_anything_changes(up: Product) -> None:
    before = up.statuses()
    found = up.having(REDIS_IMAGE=NO_IMAGE).error("kind.up", expect=7)
    assert NO_IMAGE in found["message"]
    assert found["why"]
    assert up.statuses() == before
    assert up.data("kind.up")["changed"] is False


def test_an_image_that_no_node_can_have_is_the_reason_of_its_release(up: Product) -> None:
    chart = str(up.stage.root / "helm" / "redis")
    helm(up, "upgrade", "redis", chart, "--reuse-values", "--set", f"image.ref={NO_IMAGE}")
    until("the release says why", lambda: NO_IMAGE in up.stage.invoke("helm.status", "redis").stdout, 60)
    assert up.stage.invoke("helm.status", "redis").returncode == 7
    up.invoke("helm.deploy", "--only", "redis")
    assert up.data("helm.status", "redis")["state"] == "ready"


def test_a_value_of_the_wrong_type_is_refused_and_not_kept(up: Product) -> None:
    before = up.statuses()
    found = up.error("helm.deploy", "--only", "redis", "--set", "persistence.enabled=maybe", expect=2)
    assert "persistence" in found["why"]
    assert "boolean" in found["why"]
    assert up.statuses() == before
    assert up.data("kind.up")["changed"] is False, "what was refused is not tried again by each later run"


def test_a_volume_that_cannot_be_bound_ends_it_with_the_reason(up: Product) -> None:
    wrong = "prometheus.persistence.storageClass=absent"
    found = up.error("helm.deploy", "--only", "observability", "--set", wrong, expect=7)
    assert "cannot be made" in said(found)
    assert 'storageclass.storage.k8s.io "absent" not found' in found["why"]
    up.invoke("helm.uninstall", "--name", "observability", "--yes")
    up.cluster.kubectl("delete", "persistentvolumeclaim", "--namespace", "observability", "--all")
    assert up.data("kind.up")["changed"] is False


def helm_argv(up: Product, *words: str) -> list[str]:
    program = str(tools.directory() / "helm")
    return [program, *words, "--namespace", "platform", "--kubeconfig", str(up.home / "kubeconfig")]


def helm(up: Product, *words: str) -> str:
    """Helm by hand."""
    return run(helm_argv(up, *words), timeout=300)


def test_a_release_left_pending_by_a_helm_that_was_killed_is_healed(up: Product) -> None:
    chart = str(up.stage.root / "helm" / "redis")
    words = ("upgrade", "redis", chart, "--reuse-values", "--set", f"image.ref={NO_IMAGE}", "--wait")
    task = subprocess.Popen(helm_argv(up, *words), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until("the upgrade is under way", lambda: up.statuses()["redis"] == "pending-upgrade", 60)
    task.kill()
    task.wait(30)
    assert up.statuses()["redis"] == "pending-upgrade"
    done = up.invoke("kind.up")
    assert "redis was left pending-upgrade" in done.stderr
    assert up.statuses()["redis"] == "deployed"
    assert up.data("kind.status")["state"] == "ready"


# --- disk pressure: last, since pods are thrown out


@contextlib.contextmanager
def pressure(up: Product) -> Iterator[None]:
    """A kubelet that finds its disk too full: what it wants to be free is what no disk has."""
    before = up.cluster.on_node(f"cat {KUBELET}")
    wanted = yaml.safe_load(before) | {"evictionHard": {"nodefs.available": "99%"}}
    configure(up, yaml.safe_dump(wanted | {"evictionPressureTransitionPeriod": "1s"}))
    try:
        until("the node says so", lambda: "True" in pressures(up), 120)
        yield
    finally:
        configure(up, yaml.safe_dump(yaml.safe_load(before) | {"evictionPressureTransitionPeriod": "1s"}))
        until("the node says that it is over", lambda: "True" not in pressures(up), 120)


def configure(up: Product, text: str) -> None:
    run(["docker", "exec", "--interactive", up.cluster.control_plane, "tee", KUBELET], stdin=text)
    up.cluster.on_node("systemctl restart kubelet")


def pressures(up: Product) -> list[str]:
    """The status of the condition DiskPressure of each node."""
    conditions = [c for n in up.cluster.get("nodes")["items"] for c in n["status"]["conditions"]]
    return [c["status"] for c in conditions if c["type"] == "DiskPressure"]


def test_disk_pressure_is_named_and_everything_is_back_when_there_is_room(up: Product) -> None:
    up.sql("create table if not exists outlives (word text); insert into outlives values ('here')")
    with pressure(up):
        until("pods were thrown out", lambda: len(unplaced(up)) > 1, 180)
        found = up.error("kind.up", expect=7)
        assert "DiskPressure" in found["why"]
        assert up.stage.invoke("kind.status").returncode == 7
    up.invoke("kind.up")
    assert up.data("kind.status")["state"] == "ready"
    assert up.sql("select word from outlives") == "here"


def unplaced(up: Product) -> list[str]:
    """Pods that a workload has made in place of those thrown out, and that find no node."""
    pods = up.cluster.get("pods", "--all-namespaces")["items"]
    return [p["metadata"]["name"] for p in pods if p["status"]["phase"] == "Pending"]
