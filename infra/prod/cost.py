"""The memory and CPU that a site needs: the sums of what its rendered objects request."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from infra.kube.quantity import quantity
from infra.prod.rules.base import of_kind
from infra.prod.site import Site

Object = Mapping[str, Any]
PERMANENT = ("Deployment", "StatefulSet")
"""Kinds whose pods stay; Jobs come and go, and a DaemonSet has as many as there are nodes."""


@dataclass(frozen=True)
class Share:
    """The room of one pod: cores and bytes that it requests, bytes that it may use at most."""

    cpu: float
    memory: float
    most: float


@dataclass(frozen=True)
class Cost:
    """The pods of a site that stay, and the room of each."""

    shares: tuple[Share, ...]

    @property
    def cpu(self) -> float:
        """Cores that are requested."""
        return sum(share.cpu for share in self.shares)

    @property
    def memory(self) -> float:
        """Bytes that are requested."""
        return sum(share.memory for share in self.shares)

    @property
    def most(self) -> float:
        """Bytes that may be used at most."""
        return sum(share.most for share in self.shares)

    @property
    def largest(self) -> Share:
        """The pod that needs most of a node."""
        return max(self.shares, key=lambda share: (share.memory, share.cpu))


def gib(size: float) -> str:
    """Write bytes in GiB with one decimal."""
    return f"{size / 1024**3:.1f} GiB"


def of(objects: Sequence[Object]) -> Cost:
    """Sum up what rendered objects need all the time."""
    return Cost((*_servers(objects), *_instances(objects)))


def by_size(site: Site, sizes: Sequence[str], render: Callable[[Site], Sequence[Object]]) -> dict[str, Cost]:
    """Sum up a site in several sizes."""
    return {size: of(render(Site(site.path, {**site.says, "size": size}))) for size in sizes}


def _servers(objects: Sequence[Object]) -> Iterator[Share]:
    for thing in of_kind(objects, *PERMANENT):
        containers = thing["spec"]["template"]["spec"]["containers"]
        share = _share([c.get("resources") or {} for c in containers])
        yield from [share] * int(thing["spec"].get("replicas", 1))


def _instances(objects: Sequence[Object]) -> Iterator[Share]:
    """Yield the room of PostgreSQL's instances, each with the container that archives its WAL."""
    stores = of_kind(objects, "ObjectStore")
    beside = [(s["spec"].get("instanceSidecarConfiguration") or {}).get("resources") or {} for s in stores]
    for thing in of_kind(objects, "Cluster"):
        archived = beside[:1] if thing["spec"].get("plugins") else []
        yield from [_share([thing["spec"].get("resources") or {}, *archived])] * int(thing["spec"]["instances"])


def _share(resources: Sequence[Mapping[str, Any]]) -> Share:
    def summed(part: str, name: str) -> float:
        return sum(quantity((r.get(part) or {}).get(name, 0)) for r in resources)

    return Share(summed("requests", "cpu"), summed("requests", "memory"), summed("limits", "memory"))
