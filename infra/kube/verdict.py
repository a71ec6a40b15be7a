"""Is a release ready, on its way, or hopeless, and why: pure, from one snapshot.

What cannot recover alone ends a wait at once: an image that cannot be pulled, a container that crashed three times or
ran out of memory, a volume that cannot be bound or mounted, a pod that fits on no node, a job that gave up.
Reasons and conditions: kubernetes/kubernetes pkg/kubelet/events/event.go, pkg/kubelet/images/types.go.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from infra.kube.snapshot import Object, Snapshot, metadata, outdated, selects

READY, STARTING, FAILED = "ready", "starting", "failed"
IMAGE_TROUBLE = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"})
CONFIG_TROUBLE = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})
PASSING = "failed to sync"
"""In what a kubelet says while its copies of Secrets and ConfigMaps are on their way (pkg/kubelet/util/manager)."""
CRASH_LOOP = "CrashLoopBackOff"
CRASHES = 3
"""Restarts after which a crashing container counts as failed."""
REPEATS = 3
"""Times that a failed mount, creation or provisioning may be seen before it counts."""


Restarts = Mapping[tuple[str, str], int]
"""Restarts by pod uid and container name."""


@dataclass(frozen=True)
class Verdict:
    """A state, its reason in words, and the pod and container to blame (`previous`: its last run has the log)."""

    state: str
    detail: str = ""
    namespace: str = ""
    pod: str = ""
    container: str = ""
    previous: bool = False


def judge(found: Snapshot, restarts: Restarts | None = None) -> Verdict:
    """Return the verdict on what one release has in the cluster.

    Args:
        restarts: how often containers had been restarted before the wait began; those do not count.
    """
    live = [p for p in found.pods if not metadata(p).get("deletionTimestamp")]
    current = [p for p in live if _is_current(p, found)]
    for verdict in (
        *_hopeless_pods(current, found, restarts or {}),
        *_hopeless_claims(found),
        *_hopeless_owners(found),
    ):
        return verdict
    unready = [w for w in found.workloads if not settled(w)] + [j for j in found.jobs if not _completed(j)]
    if not unready and (found.workloads or found.jobs):
        return Verdict(READY)
    return _starting(current, unready, found)


def _is_current(pod: Object, found: Snapshot) -> bool:
    """Return False for a finished pod of a job, and for one that its workload is about to replace, or has replaced."""
    phase = pod.get("status", {}).get("phase")
    if phase == "Succeeded" or outdated(pod, found) or (phase == "Failed" and _has_successor(pod, found)):
        return False
    jobs = [j for j in found.jobs if selects(j, pod)]
    return not any(_completed(j) for j in jobs)


def _has_successor(pod: Object, found: Snapshot) -> bool:
    """Return whether an evicted pod's workload has another pod: Deployments leave the old one behind."""
    owners = [w for w in found.workloads if selects(w, pod)]
    others = [p for p in found.pods if p is not pod and p.get("status", {}).get("phase") != "Failed"]
    return any(selects(owner, other) for owner in owners for other in others)


def settled(workload: Object) -> bool:
    """Return whether a Deployment, StatefulSet or DaemonSet runs as specified, with nothing old left."""
    spec, status = workload["spec"], workload.get("status") or {}
    if status.get("observedGeneration", 0) < metadata(workload).get("generation", 0):
        return False
    if workload["kind"] == "DaemonSet":
        wanted = status.get("desiredNumberScheduled", 0)
        return bool(min(status.get("numberReady", 0), status.get("updatedNumberScheduled", 0)) >= wanted)
    wanted = spec.get("replicas", 1)
    ready = status.get("readyReplicas", 0) >= wanted and status.get("updatedReplicas", 0) >= wanted
    return bool(ready and status.get("replicas", 0) <= wanted)


def _completed(job: Object) -> bool:
    return _condition(job, "Complete") or bool((job.get("status") or {}).get("succeeded"))


def _condition(thing: Object, kind: str) -> bool:
    return any(c["type"] == kind and c["status"] == "True" for c in _conditions(thing))


def _conditions(thing: Object) -> list[dict[str, Any]]:
    return (thing.get("status") or {}).get("conditions") or []


def containers(pod: Object) -> list[dict[str, Any]]:
    """Return the states of a pod's containers, initial ones first."""
    status = pod.get("status") or {}
    return [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]


def restarts_of(pods: Sequence[Object]) -> dict[tuple[str, str], int]:
    """Return the restarts of all containers now."""
    known = ((metadata(p).get("uid", ""), s) for p in pods for s in containers(p))
    return {(uid, state["name"]): int(state.get("restartCount", 0)) for uid, state in known}


def crashes_of(pod: Object) -> int:
    """Return how often a container has crashed that is not tried again for a while; 0 where none has often enough."""
    found = [s for s in containers(pod) if ((s.get("state") or {}).get("waiting") or {}).get("reason") == CRASH_LOOP]
    return max((n for s in found if (n := int(s.get("restartCount", 0))) >= CRASHES), default=0)


def _hopeless_pods(pods: Sequence[Object], found: Snapshot, restarts: Restarts) -> Iterator[Verdict]:
    for pod in pods:
        status, about = pod.get("status") or {}, metadata(pod)
        if status.get("reason") == "Evicted":
            yield Verdict(FAILED, f"evicted: {status.get('message', '')}", about["namespace"], about["name"])
        for state in containers(pod):
            yield from _hopeless_container(pod, state, restarts.get((about.get("uid", ""), state["name"]), 0))
        yield from _unschedulable(pod, found)
        yield from _repeated(pod, found, ("FailedMount", "FailedAttachVolume", "FailedCreatePodSandBox"))


def _hopeless_container(pod: Object, state: Mapping[str, Any], before: int) -> Iterator[Verdict]:
    where = (metadata(pod)["namespace"], metadata(pod)["name"], state["name"])
    waiting = (state.get("state") or {}).get("waiting") or {}
    reason, message = waiting.get("reason", ""), waiting.get("message", "")
    now = (state.get("state") or {}).get("terminated") or {}
    ended, restarted = now or (state.get("lastState") or {}).get("terminated") or {}, state.get("restartCount", 0)
    if reason in IMAGE_TROUBLE:
        yield Verdict(FAILED, f"image {state.get('image', '')} is not available: {message or reason}", *where)
    elif reason in CONFIG_TROUBLE and PASSING not in message:
        yield Verdict(FAILED, f"{state['name']} cannot be created: {message or reason}", *where)
    elif ended.get("reason") == "OOMKilled" and not state.get("ready") and (ended is now or restarted > before):
        limit = _memory_limit(pod, state["name"])
        yield Verdict(FAILED, f"{state['name']} was killed: out of memory{limit}", *where, previous=True)
    elif reason == CRASH_LOOP and restarted - before >= CRASHES:
        why = f"{state['name']} crashed {restarted - before} times, last with exit code "
        yield Verdict(FAILED, why + str(ended.get("exitCode", "?")), *where, previous=True)


def _memory_limit(pod: Object, container: str) -> str:
    specs = [*(pod["spec"].get("initContainers") or []), *(pod["spec"].get("containers") or [])]
    limits = [((s.get("resources") or {}).get("limits") or {}).get("memory") for s in specs if s["name"] == container]
    return f" (its limit is {limits[0]})" if limits and limits[0] else ""


# What the scheduler says while it only waits for something that is about to come.
_SOON: tuple[str, ...] = (
    "unbound immediate PersistentVolumeClaims",
    "node.kubernetes.io/not-ready",
    "not-yet",
    "being deleted",
)
_SOON += ('persistentvolumeclaim "', "node.kubernetes.io/unreachable", "no nodes available")


def _unschedulable(pod: Object, found: Snapshot) -> Iterator[Verdict]:
    for condition in _conditions(pod):
        if condition["type"] == "PodScheduled" and condition.get("reason") == "Unschedulable":
            text = condition.get("message", "")
            if not any(soon in text for soon in _SOON):
                about = metadata(pod)
                why = f"does not fit on any node: {_first_sentence(text)}{_pressure(found)}"
                yield Verdict(FAILED, why, about["namespace"], about["name"])


def _pressure(found: Snapshot) -> str:
    """Name what nodes lack: the scheduler says only that they have a taint."""
    lacking = [
        f"{metadata(node)['name']} has {c['type']}"
        for node in found.nodes
        for c in _conditions(node)
        if c["type"].endswith("Pressure") and c["status"] == "True"
    ]
    return f" ({', '.join(lacking)})" if lacking else ""


def _first_sentence(text: str) -> str:
    return text.split(". preemption")[0].split(", preemption")[0].rstrip(".")


def _repeated(thing: Object, found: Snapshot, reasons: Sequence[str]) -> Iterator[Verdict]:
    """Yield the warnings about one object that have been seen often enough."""
    about = metadata(thing)
    for event in found.events:
        target = event.get("involvedObject") or {}
        same = (target.get("namespace"), target.get("name")) == (about["namespace"], about["name"])
        same = same and PASSING not in event.get("message", "")
        if same and event.get("reason") in reasons and _count(event) >= REPEATS and _uid_fits(target, about):
            yield Verdict(FAILED, f"{event['reason']}: {event.get('message', '')}", about["namespace"], about["name"])


def _uid_fits(target: Mapping[str, Any], about: Mapping[str, Any]) -> bool:
    """Return whether an event is about this object, not about an earlier one of the same name."""
    return not target.get("uid") or not about.get("uid") or target["uid"] == about["uid"]


def _count(event: Object) -> int:
    series = event.get("series") or {}
    return max(int(event.get("count") or 1), int(series.get("count") or 1))


def _hopeless_claims(found: Snapshot) -> Iterator[Verdict]:
    for claim in found.claims:
        about = metadata(claim)
        if (claim.get("status") or {}).get("phase") == "Bound":
            continue
        for event in found.events:
            target = event.get("involvedObject") or {}
            if (target.get("kind"), target.get("name")) != ("PersistentVolumeClaim", about["name"]):
                continue
            text = event.get("message", "")
            fatal = "not found" in text or _count(event) >= REPEATS
            if event.get("reason") == "ProvisioningFailed" and fatal and _uid_fits(target, about):
                yield Verdict(FAILED, f"the volume {about['name']} cannot be created: {text}", about["namespace"])


def _hopeless_owners(found: Snapshot) -> Iterator[Verdict]:
    for job in found.jobs:
        failed = next((c for c in _conditions(job) if c["type"] == "Failed" and c["status"] == "True"), None)
        if failed:
            pod = next((p for p in found.pods if selects(job, p)), None)
            name = metadata(pod)["name"] if pod else ""
            why = f"the job {metadata(job)['name']} gave up: {failed.get('message') or failed.get('reason', '')}"
            yield Verdict(FAILED, why, metadata(job)["namespace"], name)
    for workload in found.workloads:
        if not settled(workload):
            yield from _repeated(workload, found, ("FailedCreate",))


def _starting(pods: Sequence[Object], unready: Sequence[Object], found: Snapshot) -> Verdict:
    """Describe a start: what the first pod that is not ready waits for."""
    for pod in pods:
        about = metadata(pod)
        for state in containers(pod):
            if not state.get("ready") and not (state.get("state") or {}).get("terminated"):
                why = _waits_for(pod, state, found)
                return Verdict(STARTING, why, about["namespace"], about["name"], state["name"])
        if not _condition(pod, "Ready"):
            detail = next((c.get("message", "") for c in _conditions(pod) if c["status"] == "False"), "")
            return Verdict(STARTING, detail or "its pod is being created", about["namespace"], about["name"])
    if unready:
        return Verdict(STARTING, f"{unready[0]['kind']} {metadata(unready[0])['name']} has no ready pod yet")
    return Verdict(STARTING, "nothing of it exists in the cluster yet")


def _waits_for(pod: Object, state: Mapping[str, Any], found: Snapshot) -> str:
    waiting = (state.get("state") or {}).get("waiting")
    if waiting:
        return f"{state['name']}: {waiting.get('message') or waiting.get('reason') or 'waiting'}"
    name = metadata(pod)["name"]
    probes = [e for e in found.events if (e.get("involvedObject") or {}).get("name") == name]
    unhealthy = [e for e in probes if e.get("reason") == "Unhealthy"]
    return (
        f"{state['name']}: {unhealthy[-1].get('message', '')}"
        if unhealthy
        else f"{state['name']} is running, not ready yet"
    )
