"""The room of a cluster's nodes, compared with what a site's pods request."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from infra.kube.quantity import quantity
from infra.prod import base, cost
from infra.prod.cluster import Cluster
from infra.prod.cost import Share
from infra.prod.render import Rendered
from infra.prod.rules import Violation
from infra.prod.rules.base import of_kind, title

Object = Mapping[str, Any]
ZONE = "topology.kubernetes.io/zone"


def check(rendered: Rendered, cluster: Cluster) -> Iterator[Violation | str]:
    """Find what lacks room: instances of PostgreSQL, zones, accelerators, CPU and memory. Raises NoAnswer."""
    nodes = cluster.items("/api/v1/nodes")
    open_ones = [n for n in nodes if _usable(n)]
    yield from _places(rendered, open_ones)
    yield from _accelerators(rendered, nodes)
    spaces = base.namespaces(rendered.site)
    others = [p for p in cluster.items("/api/v1/pods") if p["metadata"]["namespace"] not in spaces]
    free = [_room(node, others) for node in open_ones]
    if left := unplaced(cost.of(rendered.objects).shares, free):
        cores, memory = sum(cpu for cpu, _ in free), sum(size for _, size in free)
        given = f"{cores:.1f} cores and {cost.gib(memory)}"
        text = f"{len(left)} pods find no room beside each other; nodes have {given} to give"
        largest = f"the largest of them wants {left[0].cpu:.2f} cores and {cost.gib(left[0].memory)}"
        yield Violation("capacity", f"site {rendered.site.name}", f"{text}; {largest}")


def _places(rendered: Rendered, nodes: Sequence[Object]) -> Iterator[Violation]:
    """Yield what wants more nodes or zones than take pods."""
    named = {(n["metadata"].get("labels") or {}).get(ZONE) for n in nodes}
    zones = named - {None}
    wanted = int(rendered.site.part("storage").get("zones", 1))
    if wanted > len(zones):
        text = f"storage.zones is {wanted}, and its nodes are in {len(zones)}"
        yield Violation("capacity", f"site {rendered.site.name}", text)
    for server in of_kind(rendered.objects, "Cluster"):
        if int(server["spec"]["instances"]) > len(nodes):
            text = f"{server['spec']['instances']} instances want a node each, and {len(nodes)} take pods"
            yield Violation("capacity", title(server), text)


def _accelerators(rendered: Rendered, nodes: Sequence[Object]) -> Iterator[str]:
    """Note when no node has the accelerators of one training; a group of nodes that starts at none is right, too."""
    said = rendered.site.part("training").get("class") or {}
    wanted, resource = said.get("nodeSelector") or {}, said.get("resource", "")
    fitting = [n for n in nodes if wanted.items() <= (n["metadata"].get("labels") or {}).items()]
    most = max((quantity(n["status"]["allocatable"].get(resource, 0)) for n in fitting), default=0)
    if said.get("count", 0) > most:
        yield f"no node has {said['count']} {resource} for a training now; right where nodes are added when needed"


def _usable(node: Object) -> bool:
    """Tell whether pods without tolerations may come to a node."""
    taints = {t["effect"] for t in node["spec"].get("taints") or []}
    return not node["spec"].get("unschedulable") and not taints & {"NoSchedule", "NoExecute"}


def _room(node: Object, pods: Sequence[Object]) -> tuple[float, float]:
    """Return the cores and bytes that a node can give, beside the pods that are not the site's."""
    here = [p for p in pods if p["spec"].get("nodeName") == node["metadata"]["name"] and _alive(p)]
    asked = [(c.get("resources") or {}).get("requests") or {} for p in here for c in p["spec"]["containers"]]
    given = node["status"]["allocatable"]
    cores, memory = (quantity(given[name]) - sum(quantity(a.get(name, 0)) for a in asked) for name in ("cpu", "memory"))
    return cores, memory


def _alive(pod: Object) -> bool:
    return (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed")


def unplaced(shares: Sequence[Share], rooms: Sequence[tuple[float, float]]) -> list[Share]:
    """Put the largest pods first, each to where most memory is free; those that fit nowhere are left."""
    free, left = [list(room) for room in rooms], []
    for share in sorted(shares, key=lambda s: (s.memory, s.cpu), reverse=True):
        fits = [room for room in free if room[0] >= share.cpu and room[1] >= share.memory]
        if fits:
            best = max(fits, key=lambda room: room[1])
            best[0], best[1] = best[0] - share.cpu, best[1] - share.memory
        else:
            left.append(share)
    return left
