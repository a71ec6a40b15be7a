"""The objects that a site has before anything else: namespaces under Pod Security, and priorities."""

from __future__ import annotations

from typing import Any

from infra import catalog
from infra.prod import guards, network
from infra.prod.site import Site

Object = dict[str, Any]
SECURITY = "pod-security.kubernetes.io"
PRIORITIES = {"platform-data": 1_000_000, "platform": 100_000, "platform-training": 0}
"""Priority classes: data above servers above trainings, which may be preempted."""


def objects(site: Site) -> list[Object]:
    """Return the objects of the first wave."""
    made = [*(_namespace(name) for name in namespaces(site)), *(_priority(n, v) for n, v in PRIORITIES.items())]
    return [*made, *network.policies(site), *guards.objects()]


def namespaces(site: Site) -> tuple[str, ...]:
    """Return the namespaces of a site's releases."""
    unused = () if site.engine("observability") != "none" else ("observability",)
    upstream = [c.namespace for c in catalog.UPSTREAM_CHARTS if c.overlay != catalog.OVERLAY_QUEUE]
    operators = upstream if site.says.get("operators") == "install" else []
    names = dict.fromkeys((*catalog.NAMESPACES, *operators))
    return tuple(name for name in names if name not in unused)


def _namespace(name: str) -> Object:
    # The exporter of the nodes reads their directories.
    level = "privileged" if name == "observability" else "restricted"
    labels = {f"{SECURITY}/{mode}": level for mode in ("enforce", "warn")}
    labels |= {"app.kubernetes.io/part-of": "platform"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def _priority(name: str, value: int) -> Object:
    return {
        "apiVersion": "scheduling.k8s.io/v1",
        "kind": "PriorityClass",
        "metadata": {"name": name},
        "value": value,
        "description": f"what belongs to {name}",
    }
