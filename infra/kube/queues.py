"""The queue of trainings as objects of Kueue: its quota, and who goes first.

Source: https://kueue.sigs.k8s.io/docs/reference/kueue.v1beta2/.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from infra import catalog
from infra.kube.quantity import quantity
from infra.kube.snapshot import Object, metadata

API = "kueue.x-k8s.io/v1beta2"
QUEUE, FLAVOR = "trainings", "default"
"""Name of the ClusterQueue and of the LocalQueue that leads to it, and of the ResourceFlavor: any node."""
GPU = "nvidia.com/gpu"
TRAINING = "training"
"""Name (app.kubernetes.io/name) of the pods of trainings."""
_CPU_STEP, _MEMORY_STEP = 0.05, 64 * 1024.0**2
_LEAST_CPU, _LEAST_MEMORY = 0.25, 256 * 1024.0**2


@dataclass(frozen=True)
class Quota:
    """The room that trainings may have together: cores, bytes, GPUs."""

    cpu: float
    memory: float
    gpus: int = 0

    def __str__(self) -> str:
        """Return it in words."""
        gpus = f", {self.gpus} GPUs" if self.gpus else ""
        return f"{self.cpu:.4g} cores, {self.memory / 1024**3:.3g} GiB of memory{gpus}"


def free(nodes: Sequence[Object], pods: Sequence[Object]) -> Quota:
    """Return what the nodes have left beside everything that is no training, in round steps.

    A quota that is larger than the room would admit trainings whose pods then fit nowhere.
    """
    others = [
        pod for pod in pods if not _is_training(pod) and pod["status"].get("phase") not in ("Succeeded", "Failed")
    ]
    given = {name: sum(_of(n["status"]["allocatable"], name) for n in nodes) for name in ("cpu", "memory", GPU)}
    taken = {name: sum(requested(pod, name) for pod in others) for name in given}
    left = {name: given[name] - taken[name] for name in given}
    cpu = max(_LEAST_CPU, _CPU_STEP * math.floor(left["cpu"] / _CPU_STEP + 1e-6))
    memory = max(_LEAST_MEMORY, _MEMORY_STEP * math.floor(left["memory"] / _MEMORY_STEP))
    return Quota(round(cpu, 3), memory, max(0, int(left[GPU])))


def requested(pod: Object, resource: str) -> float:
    """Return what a pod's containers request of a resource together."""
    containers = pod["spec"].get("containers") or []
    return sum(_of((c.get("resources") or {}).get("requests") or {}, resource) for c in containers)


def _of(amounts: Mapping[str, object], resource: str) -> float:
    return quantity(amounts.get(resource, 0))


def _is_training(pod: Object) -> bool:
    return (metadata(pod).get("labels") or {}).get("app.kubernetes.io/name") == TRAINING


def objects(namespace: str, quota: Quota) -> list[dict[str, Any]]:
    """Return flavor, queues and priorities; a training of a higher priority takes the place of a lower one."""
    amounts = {"cpu": f"{1000 * quota.cpu:.0f}m", "memory": f"{quota.memory / 1024**2:.0f}Mi"}
    amounts |= {GPU: str(quota.gpus)} if quota.gpus else {}
    flavor = {"name": FLAVOR, "resources": [{"name": name, "nominalQuota": n} for name, n in amounts.items()]}
    spec = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
        "preemption": {"withinClusterQueue": "LowerPriority"},
        "resourceGroups": [{"coveredResources": list(amounts), "flavors": [flavor]}],
    }
    return [
        _object("ResourceFlavor", FLAVOR, {"spec": {}}),
        *(_priority(name, value) for name, value in catalog.PRIORITIES.items()),
        _object("ClusterQueue", QUEUE, {"spec": spec}),
        _object("LocalQueue", QUEUE, {"spec": {"clusterQueue": QUEUE}}, namespace),
    ]


def _priority(name: str, value: int) -> dict[str, Any]:
    said = {"value": value, "description": f"trainings with --priority {name}"}
    return _object("WorkloadPriorityClass", f"training-{name}", said)


def _object(kind: str, name: str, body: Mapping[str, Any], namespace: str = "") -> dict[str, Any]:
    about = {"name": name, **({"namespace": namespace} if namespace else {})}
    return {"apiVersion": API, "kind": kind, "metadata": about, **body}


def described(queue: Object | None, name: str = QUEUE) -> str:
    """Return quota, use and number of waiting trainings of a ClusterQueue in words."""
    if queue is None:
        return f"the queue {name} is not there"
    groups = queue["spec"].get("resourceGroups") or []
    limits = {r["name"]: r["nominalQuota"] for g in groups for f in g["flavors"] for r in f["resources"]}
    status = queue.get("status") or {}
    used = {r["name"]: r.get("total", "0") for f in status.get("flavorsUsage") or [] for r in f["resources"]}
    shares = ", ".join(f"{resource} {used.get(resource, '0')} of {limit}" for resource, limit in limits.items())
    admitted, waiting = status.get("admittedWorkloads", 0), status.get("pendingWorkloads", 0)
    return f"queue {name}: {admitted} admitted, {waiting} waiting; {shares}"
