"""Workloads of the cluster at one moment, and how their objects belong together."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from infra.kube.api import Reader

Object = Mapping[str, Any]

WORKLOADS = {"Deployment": "deployments", "StatefulSet": "statefulsets", "DaemonSet": "daemonsets"}
RELEASE = "meta.helm.sh/release-name"
INSTANCE = "app.kubernetes.io/instance"
HOOK = "helm.sh/hook"
REVISION = "deployment.kubernetes.io/revision"


@dataclass(frozen=True)
class Snapshot:
    """Objects of all namespaces, as the API gives them; workloads and jobs carry their `kind`; sets are ReplicaSets."""

    workloads: Sequence[Object] = ()
    sets: Sequence[Object] = ()
    jobs: Sequence[Object] = ()
    pods: Sequence[Object] = ()
    claims: Sequence[Object] = ()
    events: Sequence[Object] = field(default=())
    nodes: Sequence[Object] = ()

    def of_release(self, release: str, namespace: str) -> Snapshot:
        """Select what belongs to a release; events are those of its pods, claims and workloads."""
        workloads = [w for w in self.workloads if _released(w, release, namespace)]
        jobs = [j for j in self.jobs if _released(j, release, namespace) and not _is_test(j)]
        return self._of(
            workloads, jobs, lambda c, pods: metadata(c)["namespace"] == namespace and _claimed(c, pods, release)
        )

    def of_names(self, wanted: Collection[tuple[str, str, str]]) -> Snapshot:
        """Select what belongs to workloads and jobs that are named: each by kind, namespace and name."""
        workloads = [w for w in self.workloads if _named(w) in wanted]
        jobs = [j for j in self.jobs if _named(j) in wanted]
        return self._of(workloads, jobs, lambda c, pods: any(metadata(c)["name"] in claims_of(p) for p in pods))

    def _of(
        self, workloads: Sequence[Object], jobs: Sequence[Object], claimed: Callable[[Object, list[Object]], bool]
    ) -> Snapshot:
        owners = [*workloads, *jobs]
        pods = [p for p in self.pods if any(selects(owner, p) for owner in owners)]
        claims = [c for c in self.claims if claimed(c, pods)]
        names = {(metadata(o)["namespace"], metadata(o)["name"]) for o in (*owners, *pods, *claims)}
        names |= {(metadata(p)["namespace"], owner["name"]) for p in pods for owner in _owners(p)}
        events = [e for e in self.events if (_about(e).get("namespace"), _about(e).get("name")) in names]
        sets = [s for s in self.sets if any(_owned(s, w) for w in workloads)]
        return Snapshot(workloads, sets, jobs, pods, claims, events, self.nodes)


def metadata(thing: Object) -> dict[str, Any]:
    """Return an object's metadata."""
    found: dict[str, Any] = thing["metadata"]
    return found


def _named(thing: Object) -> tuple[str, str, str]:
    return (thing["kind"], metadata(thing)["namespace"], metadata(thing)["name"])


def _labels(thing: Object) -> Mapping[str, str]:
    return metadata(thing).get("labels") or {}


def _annotations(thing: Object) -> Mapping[str, str]:
    return metadata(thing).get("annotations") or {}


def _owners(pod: Object) -> list[dict[str, Any]]:
    return metadata(pod).get("ownerReferences") or []


def _about(event: Object) -> Mapping[str, Any]:
    found: Mapping[str, Any] = event.get("involvedObject") or {}
    return found


def _released(thing: Object, release: str, namespace: str) -> bool:
    if metadata(thing)["namespace"] != namespace:
        return False
    return _annotations(thing).get(RELEASE) == release or _labels(thing).get(INSTANCE) == release


def _is_test(job: Object) -> bool:
    return "test" in _annotations(job).get(HOOK, "")


def _owned(thing: Object, owner: Object) -> bool:
    return any(o.get("uid") == metadata(owner).get("uid") for o in _owners(thing))


def outdated(pod: Object, found: Snapshot) -> bool:
    """Return whether a pod was made from an earlier version of its workload, which is about to replace it."""
    for workload in found.workloads:
        if not selects(workload, pod):
            continue
        if workload["kind"] == "StatefulSet":
            wanted = (workload.get("status") or {}).get("updateRevision")
            return bool(wanted) and _labels(pod).get("controller-revision-hash") != wanted
        if workload["kind"] == "Deployment":
            return _set_is_old(pod, workload, found)
    return False


def _set_is_old(pod: Object, deployment: Object, found: Snapshot) -> bool:
    wanted = _annotations(deployment).get(REVISION)
    owner = next((s for s in found.sets if _owned(pod, s)), None)
    return owner is not None and wanted is not None and _annotations(owner).get(REVISION) != wanted


def selects(owner: Object, pod: Object) -> bool:
    """Return whether a workload's or job's selector takes a pod."""
    if metadata(owner)["namespace"] != metadata(pod)["namespace"]:
        return False
    wanted = ((owner["spec"].get("selector") or {}).get("matchLabels")) or {}
    return bool(wanted) and wanted.items() <= _labels(pod).items()


def matches(selector: Mapping[str, str] | None, namespace: str, pod: Object) -> bool:
    """Return whether a Service's selector takes a pod."""
    same = metadata(pod)["namespace"] == namespace
    return selector is not None and bool(selector) and same and selector.items() <= _labels(pod).items()


def _claimed(claim: Object, pods: Sequence[Object], release: str) -> bool:
    name = metadata(claim)["name"]
    return _labels(claim).get(INSTANCE) == release or any(name in claims_of(pod) for pod in pods)


def claims_of(pod: Object) -> list[str]:
    """Return the names of the volume claims that a pod mounts."""
    volumes = pod["spec"].get("volumes") or []
    return [v["persistentVolumeClaim"]["claimName"] for v in volumes if "persistentVolumeClaim" in v]


def take(api: Reader, *, events: bool = True) -> Snapshot:
    """Ask the cluster. Raises `infra.kube.api.NoAnswer`."""
    workloads: list[Object] = []
    for kind, plural in WORKLOADS.items():
        workloads += [{**item, "kind": kind} for item in api.items(f"/apis/apps/v1/{plural}")]
    jobs = [{**item, "kind": "Job"} for item in api.items("/apis/batch/v1/jobs")]
    sets = api.items("/apis/apps/v1/replicasets")
    pods, claims = api.items("/api/v1/pods"), api.items("/api/v1/persistentvolumeclaims")
    happened = api.items("/api/v1/events") if events else ()
    return Snapshot(workloads, sets, jobs, pods, claims, happened, api.items("/api/v1/nodes"))
