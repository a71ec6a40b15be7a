"""Services of the catalogue in a cluster: whose pods they are, how they do, what they say."""

from __future__ import annotations

import time
from typing import Any

import pytest

from infra import catalog
from infra.kube.snapshot import Snapshot
from infra.loglines import LogQuery
from infra.tiers.cluster import services
from infra.tiers.cluster.services import Cast, LogSource
from tests.unit.kube import objects as o
from tests.unit.tiers.kind.fakes import Answers

SELECTORS = {("platform", "redis-master"): {"app": "redis"}, ("platform", "minio"): {"app": "minio"}}


def cast(**parts: Any) -> Cast:
    return Cast(Snapshot(**parts), SELECTORS)


def test_every_service_with_a_port_of_the_node_has_a_place() -> None:
    settings = {p.setting for p in catalog.CLUSTER_PORTS}
    for service in catalog.offered("kind"):
        if {p.setting for p in service.ports} & settings:
            assert services.places(service.name)


def test_one_store_is_the_place_of_both() -> None:
    assert services.places("minio-datasets") == services.places("minio-results")


def test_pods_are_those_that_the_service_selects_and_that_stay() -> None:
    ending = o.pod("redis", about={"deletionTimestamp": o.MADE})
    finished = o.pod("redis", phase="Succeeded")
    who = cast(pods=[o.pod("redis"), o.pod("minio"), ending, finished])
    assert [p["metadata"]["name"] for p in who.pods("redis")] == ["redis-0"]
    assert who.pods("postgres") == [], "its Service is not there"


def test_workloads_are_those_whose_pods_the_service_would_select() -> None:
    who = cast(workloads=[o.workload(release="redis"), o.workload(release="minio")])
    assert [services.workload_name(w) for w in who.workloads("redis")] == ["deployment/redis"]


def test_a_service_that_runs_is_ready_with_memory_and_restarts() -> None:
    pod = o.pod("redis", {"restartCount": 2}, startTime="2026-11-25T12:00:05Z")
    who = cast(workloads=[o.workload()], pods=[pod])
    seen = services.status("redis", who, {("platform", "redis-0"): 5_000_000})
    assert (seen.state, seen.memory, seen.restarts) == ("ready", 5_000_000, 2)
    assert seen.since == 1795608005.0


def test_without_figures_the_memory_is_unknown() -> None:
    who = cast(workloads=[o.workload()], pods=[o.pod()])
    assert services.status("redis", who, {}).memory is None


@pytest.mark.parametrize(
    ("workloads", "detail"),
    [([], "the release redis is not in the cluster"), ([{**o.workload(), "spec": {"replicas": 0}}], "scaled to 0")],
)
def test_what_is_not_there_or_has_no_pods_is_stopped(workloads: list[Any], detail: str) -> None:
    for workload in workloads:
        workload["spec"] |= {"template": {"metadata": {"labels": {"app": "redis"}}}}
    seen = services.status("redis", cast(workloads=workloads), {})
    assert (seen.state, seen.detail) == ("stopped", detail)


def test_the_reason_of_a_pod_is_the_reason_of_its_service() -> None:
    broken = o.pod("redis", o.waiting("ImagePullBackOff", "no such image"))
    seen = services.status("redis", cast(workloads=[o.workload(ready=0)], pods=[broken]), {})
    assert seen.state == "failed"
    assert "no such image" in seen.detail


def test_memory_is_summed_from_what_the_kubelets_count() -> None:
    summary = [{"podRef": {"namespace": "platform", "name": "redis-0"}, "memory": {"workingSetBytes": 7}}]

    class Kubelets(Answers):
        def get(self, path: str, **query: str) -> dict[str, Any]:
            return (
                {"pods": [*summary, {"podRef": {"namespace": "a", "name": "b"}}]}
                if "proxy" in path
                else super().get(path)
            )

    api: Any = Kubelets({"/api/v1/nodes": [{"metadata": {"name": "node"}}]})
    assert services.memory(api) == {("platform", "redis-0"): 7}
    silent: Any = Answers()
    assert services.memory(silent) == {}


def test_logs_of_two_services_in_one_pod_come_once() -> None:
    who = cast(pods=[o.pod("minio")])
    found = services.sources(("minio-datasets", "minio-results"), who)
    assert found == [LogSource("minio-datasets", "platform", "minio-0", "server")]
    api: Any = Answers(texts={found[0].path: "one\ntwo\n"})
    assert [line.text for line in services.logs(api, found, LogQuery(10))] == ["one", "two"]


def test_a_log_that_cannot_be_read_stops_no_other() -> None:
    there, gone = (
        LogSource("redis", "platform", "redis-0", "server"),
        LogSource("minio", "platform", "minio-0", "server"),
    )
    api: Any = Answers(texts={there.path: "one\n"})
    assert [line.text for line in services.logs(api, [gone, there], LogQuery(10))] == ["one"]


def test_following_ends_when_all_have_ended() -> None:
    class Lines(Answers):
        def lines(self, path: str, **query: str) -> list[str]:
            return ["later"]

    api: Any = Lines()
    known = [LogSource(name, "platform", f"{name}-0", "server") for name in ("redis", "minio")]
    began = time.monotonic()
    found = [(line.service, line.text) for line in services.logs(api, known, LogQuery(0, follow=True))]
    assert sorted(found) == [("minio", "later"), ("redis", "later")]
    assert time.monotonic() - began < 30
