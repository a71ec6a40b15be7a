from __future__ import annotations

from typing import Any

import pytest

from infra.kube import verdict
from infra.kube.snapshot import Snapshot
from tests.unit.kube import objects as o


def of(
    *pods: Any, workloads: Any = None, jobs: Any = (), claims: Any = (), events: Any = (), sets: Any = ()
) -> Snapshot:
    made = [o.workload(ready=0)] if workloads is None else workloads
    whole = Snapshot(made, sets, jobs, pods, claims, events)
    return whole.of_release("redis", "platform")


def test_ready_when_every_workload_runs_as_specified() -> None:
    assert verdict.judge(of(o.pod(), workloads=[o.workload()])).state == "ready"


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet", "DaemonSet"])
def test_each_kind_of_workload_must_have_its_pods(kind: str) -> None:
    assert verdict.settled(o.workload(kind))
    assert not verdict.settled(o.workload(kind, ready=0))
    assert not verdict.settled(o.workload(kind, observedGeneration=0)), "its controller has not looked yet"


def test_an_old_pod_that_is_left_means_not_ready_yet() -> None:
    assert not verdict.settled(o.workload(replicas=2))


def test_nothing_in_the_cluster_is_not_ready() -> None:
    assert verdict.judge(of(workloads=[])).state == "starting"


def test_other_releases_do_not_matter() -> None:
    broken = o.pod("temporal", o.waiting("ImagePullBackOff"))
    found = Snapshot([o.workload(), o.workload(release="temporal", ready=0)], (), (), [o.pod(), broken])
    assert verdict.judge(found.of_release("redis", "platform")).state == "ready"
    assert verdict.judge(found.of_release("temporal", "platform")).state == "failed"


@pytest.mark.parametrize("reason", sorted(verdict.IMAGE_TROUBLE))
def test_an_image_that_cannot_be_had_ends_it_at_once(reason: str) -> None:
    seen = verdict.judge(of(o.pod(container=o.waiting(reason, "manifest unknown"))))
    assert (seen.state, seen.pod, seen.container) == ("failed", "redis-0", "server")
    assert "some/image:1" in seen.detail
    assert "manifest unknown" in seen.detail


def test_two_crashes_may_still_mend_three_do_not() -> None:
    assert verdict.judge(of(o.pod(container=o.waiting("CrashLoopBackOff", restarts=2, exitCode=1)))).state == "starting"
    seen = verdict.judge(of(o.pod(container=o.waiting("CrashLoopBackOff", restarts=3, exitCode=7))))
    assert seen.state == "failed"
    assert "crashed 3 times, last with exit code 7" in seen.detail
    assert seen.previous, "the log of the run that crashed is what explains it"


def test_restarts_before_the_wait_do_not_count() -> None:
    crashed = o.pod(container=o.waiting("CrashLoopBackOff", restarts=4, exitCode=1))
    assert verdict.judge(of(crashed), {("uid-redis-0", "server"): 2}).state == "starting"
    assert verdict.judge(of(crashed), {("uid-redis-0", "server"): 1}).state == "failed"


def test_a_container_that_runs_is_not_blamed_for_its_past() -> None:
    again = {"ready": False, "restartCount": 9, "lastState": {"terminated": {"exitCode": 255, "reason": "Unknown"}}}
    assert verdict.judge(of(o.pod(container=again))).state == "starting"


def test_killed_for_memory_names_the_limit() -> None:
    seen = verdict.judge(of(o.pod(container=o.waiting("CrashLoopBackOff", restarts=1, reason="OOMKilled"))))
    assert seen.state == "failed"
    assert "killed: out of memory (its limit is 64Mi)" in seen.detail


def test_an_early_kill_for_memory_does_not_count() -> None:
    killed = o.pod(container=o.waiting("CrashLoopBackOff", restarts=1, reason="OOMKilled"))
    assert verdict.judge(of(killed), {("uid-redis-0", "server"): 1}).state == "starting"


def test_a_volume_of_a_class_that_does_not_exist() -> None:
    text = 'storageclass.storage.k8s.io "nope" not found'
    events = [o.event("data-redis", "ProvisioningFailed", text, "PersistentVolumeClaim")]
    seen = verdict.judge(of(o.pod(), claims=[o.claim(phase="Pending")], events=events))
    assert seen.state == "failed"
    assert text in seen.detail
    assert "data-redis" in seen.detail


def test_a_volume_that_waits_for_its_first_pod_is_no_trouble() -> None:
    events = [o.event("data-redis", "WaitForFirstConsumer", "waiting for first consumer", "PersistentVolumeClaim", 9)]
    pending = o.pod(container=o.waiting("ContainerCreating"))
    assert verdict.judge(of(pending, claims=[o.claim(phase="Pending")], events=events)).state == "starting"


def test_a_mount_that_fails_again_and_again() -> None:
    once, often = (o.event("redis-0", "FailedMount", "secret not found", count=n) for n in (1, 3))
    creating = o.pod(container=o.waiting("ContainerCreating"))
    assert verdict.judge(of(creating, events=[once])).state == "starting"
    assert "secret not found" in verdict.judge(of(creating, events=[often])).detail


@pytest.mark.parametrize(
    ("message", "state"),
    [
        ("failed to sync secret cache: timed out waiting for the condition", "starting"),
        ('secret "a" not found', "failed"),
    ],
)
def test_a_secret_on_its_way_to_the_kubelet_is_waited_for(message: str, state: str) -> None:
    configured = o.pod(container=o.waiting("CreateContainerConfigError", message))
    assert verdict.judge(of(configured)).state == state
    mounted = o.event("redis-0", "FailedMount", message, count=3)
    assert verdict.judge(of(o.pod(container=o.waiting("ContainerCreating")), events=[mounted])).state == state


def unschedulable(message: str) -> dict[str, Any]:
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    return o.pod(conditions=[condition], containerStatuses=[])


def test_a_pod_that_fits_on_no_node() -> None:
    seen = verdict.judge(of(unschedulable("0/1 nodes are available: 1 Insufficient memory. preemption: none")))
    assert (seen.state, seen.detail) == (
        "failed",
        "does not fit on any node: 0/1 nodes are available: 1 Insufficient memory",
    )


def test_disk_pressure_is_said() -> None:
    text = "0/1 nodes are available: 1 node(s) had untolerated taint {node.kubernetes.io/disk-pressure: }"
    assert "disk-pressure" in verdict.judge(of(unschedulable(text))).detail


def test_a_node_that_is_about_to_come_is_no_trouble() -> None:
    text = "0/1 nodes are available: 1 node(s) had untolerated taint {node.kubernetes.io/not-ready: }"
    assert verdict.judge(of(unschedulable(text))).state == "starting"


def test_a_job_that_gave_up() -> None:
    seen = verdict.judge(of(workloads=[o.workload()], jobs=[o.failed_job("Job has reached the backoff limit")]))
    assert "redis-job gave up: Job has reached the backoff limit" in seen.detail


def test_a_finished_job_is_ready_and_one_at_work_is_not() -> None:
    assert verdict.judge(of(workloads=[], jobs=[o.job(succeeded=1)])).state == "ready"
    assert verdict.judge(of(workloads=[], jobs=[o.job(active=1)])).state == "starting"


def test_the_tests_of_a_chart_do_not_belong_to_its_readiness() -> None:
    check = o.failed_job("no")
    check["metadata"]["annotations"] = {"helm.sh/hook": "test"}
    assert verdict.judge(of(o.pod(), workloads=[o.workload()], jobs=[check])).state == "ready"


def test_pods_of_an_earlier_revision_are_not_blamed() -> None:
    deployment = o.workload(ready=0)
    deployment["metadata"]["annotations"]["deployment.kubernetes.io/revision"] = "2"
    owner = [{"uid": "uid-redis", "name": "redis"}]
    old = {
        "metadata": o.meta("redis-old", ownerReferences=owner, annotations={"deployment.kubernetes.io/revision": "1"})
    }
    broken = o.pod(
        container=o.waiting("ImagePullBackOff"),
        about={"ownerReferences": [{"uid": "uid-redis-old", "name": "redis-old"}]},
    )
    assert verdict.judge(of(broken, workloads=[deployment], sets=[old])).state == "starting"
    old["metadata"]["annotations"]["deployment.kubernetes.io/revision"] = "2"
    assert verdict.judge(of(broken, workloads=[deployment], sets=[old])).state == "failed"


def test_pods_of_an_earlier_stateful_set_are_not_blamed() -> None:
    wanted = o.workload("StatefulSet", ready=0, updateRevision="redis-b")
    broken = o.pod(container=o.waiting("ImagePullBackOff"), labels={"controller-revision-hash": "redis-a"})
    assert verdict.judge(of(broken, workloads=[wanted])).state == "starting"


def test_what_an_unready_container_waits_for_is_said() -> None:
    unhealthy = o.event("redis-0", "Unhealthy", "Readiness probe failed: connection refused")
    seen = verdict.judge(of(o.pod(container={"ready": False}), events=[unhealthy]))
    assert (seen.state, seen.detail) == ("starting", "server: Readiness probe failed: connection refused")


def evicted(name: str = "redis-old") -> dict[str, Any]:
    """A pod that the kubelet has thrown out; it stays listed."""
    message = "The node was low on resource: ephemeral-storage."
    pod = o.pod(container={"ready": False, "state": {}}, phase="Failed", reason="Evicted", message=message)
    pod["metadata"]["name"] = name
    return pod


def test_a_pod_that_was_thrown_out_says_why() -> None:
    seen = verdict.judge(of(evicted()))
    assert seen.state == "failed"
    assert "low on resource: ephemeral-storage" in seen.detail


def test_one_that_was_thrown_out_and_replaced_does_not_count() -> None:
    assert verdict.judge(of(evicted(), o.pod(), workloads=[o.workload()])).state == "ready"
    fresh = o.pod(container={"ready": False, "state": {"waiting": {"reason": "ContainerCreating"}}})
    assert verdict.judge(of(evicted(), fresh)).state == "starting"


def test_a_node_without_room_on_its_disk_is_named() -> None:
    taint = "0/1 nodes are available: 1 node(s) had untolerated taint {node.kubernetes.io/disk-pressure: }."
    unplaced = [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": taint}]
    pending = o.pod(container={"ready": False, "state": {}}, phase="Pending", conditions=unplaced)
    seen = verdict.judge(of(evicted(), pending))
    assert seen.state == "failed"
    assert "disk-pressure" in seen.detail


def test_what_a_node_lacks_is_named_since_the_scheduler_only_sees_a_taint() -> None:
    text = "0/1 nodes are available: 1 node(s) had untolerated taint(s). no new claims to deallocate, preemption: none"
    unplaced = [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": text}]
    pending = o.pod(container={"ready": False, "state": {}}, phase="Pending", conditions=unplaced)
    conditions = [{"type": "DiskPressure", "status": "True"}, {"type": "MemoryPressure", "status": "False"}]
    nodes = [{"metadata": {"name": "control-plane"}, "status": {"conditions": conditions}}]
    found = Snapshot([o.workload(ready=0)], pods=[pending], nodes=nodes).of_release("redis", "platform")
    assert verdict.judge(found).detail.endswith("(control-plane has DiskPressure)")
