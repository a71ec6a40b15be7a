"""A plan and what is done with it, on a cluster that is played."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from infra.errors import PlatformError
from infra.prod import deploy, diff, lease, trust
from infra.prod import site as sites
from infra.prod.cluster import Cluster, checked
from infra.prod.render import Rendered
from infra.settings import ROOT
from tests.unit.helpers import console
from tests.unit.prod import things as t
from tests.unit.prod.played import SITE, UID, Played, deployment, job, rendered, settles

NAMESPACE = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "kube-system", "uid": UID}}


def run(site: Rendered, cluster: Cluster, tmp_path: Path, plan: str = "", budget: float = 60.0) -> list[str]:
    wanted = plan or diff.plan(site, cluster).id
    ticks = iter(range(0, 100_000, 10))
    work = deploy.Deployment(site, cluster, console(), tmp_path, budget, lambda: float(next(ticks)), lambda _: None)
    return work.run(wanted)


def refused(call: Callable[[], Any]) -> PlatformError:
    with pytest.raises(PlatformError) as caught:
        call()
    return caught.value


# --- the plan


def test_what_is_not_there_would_be_created() -> None:
    plan = diff.plan(rendered(a=[deployment()]), Played())
    assert [(c.object, c.action) for c in plan.changes] == [("Deployment default/server", diff.CREATE)]


def test_what_is_there_as_rendered_would_stay() -> None:
    cluster = Played()
    cluster.put(deployment())
    assert [c.action for c in diff.plan(rendered(a=[deployment()]), cluster).changes] == [diff.SAME]


def test_a_changed_image_is_shown_by_its_place() -> None:
    cluster = Played()
    cluster.put(deployment())
    change = diff.plan(rendered(a=[deployment(image="server:2")]), cluster).changes[0]
    assert change.action == diff.CHANGE
    assert change.fields == ('spec.template.spec.containers[0].image: "server:1" -> "server:2"',)


def test_what_the_server_refuses_is_shown_and_the_rest_as_well() -> None:
    cluster = Played(refuses={"bad": "denied the request"})
    plan = diff.plan(rendered(a=[deployment("bad"), deployment("good")]), cluster)
    assert [(c.action, c.fields) for c in plan.changes] == [
        (diff.REFUSED, ("error: denied the request",)),
        (diff.CREATE, ()),
    ]


def test_what_is_no_longer_rendered_is_shown_and_stays() -> None:
    cluster = Played()
    cluster.put(deployment("old"))
    plan = diff.plan(rendered(a=[deployment()]), cluster)
    assert ("Deployment default/old", diff.LEFT_OVER) in [(c.object, c.action) for c in plan.changes]


def test_the_id_changes_with_files_and_cluster_and_not_with_status() -> None:
    cluster, site = Played(), rendered(a=[deployment()])
    settles(cluster.put(deployment()))
    first = diff.plan(site, cluster).id
    cluster.put({**deployment(), "status": {"readyReplicas": 0}})
    assert diff.plan(site, cluster).id == first
    assert diff.plan(rendered(a=[deployment(image="server:2")]), cluster).id != first
    cluster.put(deployment(replicas=5))
    assert diff.plan(site, cluster).id != first


# --- carrying it out


def test_waves_are_applied_one_after_the_other_and_recorded(tmp_path: Path) -> None:
    cluster = Played(becomes=settles)
    assert run(rendered(a=[deployment("one")], b=[deployment("two")]), cluster, tmp_path) == ["a", "b"]
    applied = [line for line in cluster.log if line.startswith("apply")]
    names = ["Deployment one", "ConfigMap platform-deployed-a", "Deployment two", "ConfigMap platform-deployed-b"]
    assert applied == [f"apply {name}" for name in names]
    assert deploy.recorded(cluster, "a") == [deployment("one")]


def test_kinds_that_others_need_come_first(tmp_path: Path) -> None:
    cluster = Played(becomes=settles)
    account = t.thing("ServiceAccount", namespace="default")
    run(rendered(a=[deployment(), job(migration=False), account]), cluster, tmp_path)
    assert cluster.log[1:4] == ["apply ServiceAccount it", "apply Job schema-1", "apply Deployment server"]


def test_another_plan_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    cluster = Played(becomes=settles)
    error = refused(lambda: run(rendered(a=[deployment()]), cluster, tmp_path, plan="0123456789ab"))
    assert error.code == "PLAN_STALE"
    assert not [line for line in cluster.log if "Deployment" in line]


def test_what_the_server_refuses_ends_it_before_anything_is_changed(tmp_path: Path) -> None:
    cluster = Played(refuses={"bad": "denied"})
    error = refused(lambda: run(rendered(a=[deployment("good")], b=[deployment("bad")]), cluster, tmp_path))
    assert error.code == "PREFLIGHT_FAILED"
    assert not [line for line in cluster.log if line.startswith("apply")]


def test_a_wave_that_fails_is_taken_back_and_later_ones_are_not_begun(tmp_path: Path) -> None:
    cluster = Played(becomes=settles)
    run(rendered(a=[deployment()], b=[deployment("next")]), cluster, tmp_path)
    cluster.log.clear()

    def breaks(thing: dict[str, Any]) -> None:
        if thing["kind"] != "Deployment" or thing["spec"]["template"]["spec"]["containers"][0]["image"] != "broken":
            settles(thing)

    object.__setattr__(cluster, "becomes", breaks)
    new = rendered(a=[deployment(image="broken"), job(migration=False)], b=[deployment("next", "next:2")])
    error = refused(lambda: run(new, cluster, tmp_path))
    assert error.code == "WAIT_TIMEOUT"
    assert "as it was before" in error.steps[0]
    images = [o["spec"]["template"]["spec"]["containers"][0]["image"] for k, o in cluster.has.items() if "Depl" in k[0]]
    assert sorted(images) == ["server:1", "server:1"]
    assert "delete Job schema-1" in cluster.log


def test_the_first_deployment_that_fails_removes_nothing(tmp_path: Path) -> None:
    cluster = Played()
    error = refused(lambda: run(rendered(a=[deployment()]), cluster, tmp_path))
    assert "nothing to go back to" in error.steps[0]
    assert not [line for line in cluster.log if "Deployment" in line and line.startswith("delete")]


def test_a_migration_may_take_longer_than_the_budget(tmp_path: Path) -> None:
    cluster, looks = Played(), iter(range(100))

    def works(thing: dict[str, Any]) -> None:
        thing["status"] = {"active": 1} if thing["kind"] == "Job" else {}

    def asked(path: str, **query: str) -> list[dict[str, Any]]:
        if path.endswith("/jobs") and next(looks) > 30:
            for thing in cluster.has.values():
                thing["status"] = {"succeeded": 1}
        return Cluster.items(cluster, path, **query)

    object.__setattr__(cluster, "becomes", works)
    object.__setattr__(cluster, "items", asked)
    assert run(rendered(a=[job(migration=False)]), cluster, tmp_path, budget=60) == ["a"]
    assert next(looks) > 30


@pytest.mark.parametrize(("failed", "code"), [(2, "WAIT_TIMEOUT"), (3, "SERVICE_FAILED")])
def test_a_migration_that_fails_again_and_again_is_not_waited_for(tmp_path: Path, failed: int, code: str) -> None:
    cluster = Played(becomes=lambda thing: thing.update(status={"failed": failed} if thing["kind"] == "Job" else {}))
    spec = {"containers": [{"name": "schema", "image": "x"}]}
    about = {"name": "schema-1-abcde", "namespace": "default", "labels": {"job": "schema-1"}}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": about, "spec": spec, "status": {"phase": "Failed"}}
    cluster.put(pod)
    error = refused(lambda: run(rendered(a=[job(migration=False)]), cluster, tmp_path))
    assert error.code == code
    assert failed < 3 or error.why == "the Job schema-1 has failed 3 times"


# --- the backup before a migration


def test_a_migration_of_a_database_that_is_there_is_preceded_by_a_backup(tmp_path: Path) -> None:
    cluster, postgres = Played(becomes=settles), t.cluster()
    live = cluster.put(postgres)
    live["status"] = {"readyInstances": 3, "conditions": [{"type": "Ready", "status": "True"}]}
    run(rendered(a=[job()]), cluster, tmp_path)
    assert not [line for line in cluster.log if "Backup" in line], "no database of this site"
    cluster.has.pop(next(k for k in cluster.has if k[0].startswith("Job")))
    object.__setattr__(cluster, "becomes", lambda thing: None if thing["kind"] == "Cluster" else settles(thing))
    site = rendered(a=[{**postgres, "metadata": {**postgres["metadata"]}}], b=[job()])
    cluster.log.clear()
    live["status"] = {"readyInstances": 3, "conditions": [{"type": "Ready", "status": "True"}]}
    run(site, cluster, tmp_path)
    order = [line.split()[1] for line in cluster.log]
    assert order.index("Backup") < order.index("Job")


def test_a_backup_that_fails_ends_it_before_anything_is_changed(tmp_path: Path) -> None:
    cluster, postgres = Played(), t.cluster()
    cluster.put(postgres)
    fails = lambda thing: thing.update(status={"phase": "failed", "error": "no bucket"})  # noqa: E731
    object.__setattr__(cluster, "becomes", fails)
    error = refused(lambda: run(rendered(a=[postgres], b=[job()]), cluster, tmp_path))
    assert (error.code, error.why) == ("BACKUP_FAILED", "no bucket")
    assert not [line for line in cluster.log if line.startswith("apply")]


# --- what other namespaces trust


def test_the_authority_of_the_database_is_copied_without_its_key() -> None:
    cluster, site = Played(), sites.load("rehearsal", ROOT)
    assert trust.copy(site, cluster) is False
    data = {"ca.crt": base64.b64encode(b"PEM").decode(), "ca.key": "hidden"}
    cluster.put({**t.thing("Secret", name="postgresql-ca"), "data": data})
    for name in ("platform", "temporal"):
        cluster.put(t.thing("Namespace", name=name, namespace=""))
    assert trust.copy(site, cluster) is True
    made = [o for o in cluster.has.values() if o["kind"] == "ConfigMap"]
    assert [(o["metadata"]["namespace"], o["data"]) for o in made] == [
        ("platform", {"ca.crt": "PEM"}),
        ("temporal", {"ca.crt": "PEM"}),
    ]


# --- guard rails


def test_a_second_deployer_is_refused_and_named(tmp_path: Path) -> None:
    cluster = Played(becomes=settles)
    with lease.held(cluster):
        error = refused(lambda: run(rendered(a=[deployment()]), cluster, tmp_path))
    assert error.code == "LOCKED"
    assert "has been at it since" in error.why
    assert run(rendered(a=[deployment()]), cluster, tmp_path) == ["a"], "the first one is done"


def test_a_deployer_that_died_is_taken_over(tmp_path: Path) -> None:
    cluster = Played(becomes=settles)
    with lease.held(cluster) as dead:
        there = cluster.has[("Lease.coordination.k8s.io", "default", lease.NAME)]
        there["spec"] = {**there["spec"], "holderIdentity": "dead", "renewTime": "2020-01-01T00:00:00.000000Z"}
        assert run(rendered(a=[deployment()]), cluster, tmp_path) == ["a"]
        dead.renew()
        assert refused(dead.require).code == "LOCKED"


def test_a_frozen_cluster_is_left_alone(tmp_path: Path) -> None:
    cluster = Played(becomes=settles)
    about = {**NAMESPACE["metadata"], "annotations": {lease.FREEZE: "year-end closing"}}  # type: ignore[dict-item]
    cluster.put({**NAMESPACE, "metadata": about})
    error = refused(lambda: run(rendered(a=[deployment()]), cluster, tmp_path))
    assert (error.code, error.why) == ("FROZEN", "year-end closing")
    assert cluster.log == []


def test_another_cluster_behind_the_context_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infra.prod.cluster.uid_of", lambda cluster: "another")
    error = refused(lambda: checked(SITE, "kubectl", Path("cache")))
    assert error.code == "CONTEXT_REFUSED"
    assert "another" in error.why


def test_a_site_file_from_before_a_restore_is_refused(tmp_path: Path) -> None:
    cluster, site = Played(), sites.load("rehearsal", ROOT)
    about = {"name": "postgresql", "namespace": "platform"}
    spec = {"selector": {"cnpg.io/cluster": "postgresql-20261130120000"}}
    cluster.put({"apiVersion": "v1", "kind": "Service", "metadata": about, "spec": spec})
    found = Rendered(site, {"a": (deployment(),)})
    error = refused(lambda: run(found, cluster, tmp_path))
    assert error.code == "PREFLIGHT_FAILED"
    assert "postgresql-20261130120000" in error.what
    assert not [line for line in cluster.log if line.startswith("apply Deployment")]
