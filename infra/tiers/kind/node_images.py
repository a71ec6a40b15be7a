"""The images in nodes, as containerd itself knows them: asked of the node, since a note may be wrong."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from infra.kube.snapshot import Object, metadata
from infra.references import full
from infra.tiers.kind.nodes import Docker

Listed = Mapping[str, frozenset[str]]
"""Digests by full name: of an image's manifests, and of its configuration, which many engines call its id."""


def listed(text: str) -> dict[str, frozenset[str]]:
    """Read the table of `ctr images ls`, in which every name of an image has a line."""
    rows = [line.split() for line in text.splitlines()[1:]]
    target = {row[0]: row[2] for row in rows if len(row) > 2}
    known: dict[str, set[str]] = defaultdict(set)
    for name, digest in target.items():
        known[digest].add(digest)
        if name.startswith("sha256:"):
            known[digest].add(name)
    return {name: frozenset(known[digest]) for name, digest in target.items()}


def digest_of(reference: str) -> str:
    """Return the digest in what a node says of a container's image, such as docker.io/library/x@sha256:...; or ''."""
    _, colon, digits = reference.rpartition("sha256:")
    return colon + digits


@dataclass
class NodeImages:
    """The images of a cluster's nodes; each node is asked once, and again after `forget`."""

    docker: Docker
    _known: dict[str, Listed] = field(default_factory=dict)

    def of(self, node: str) -> Listed:
        """Return the images of a node that runs."""
        found = self._known.get(node)
        if found is None:
            said = self.docker.execute(node, "ctr", "--namespace", "k8s.io", "images", "ls", check=False)
            found = self._known[node] = listed(said.out) if said.code == 0 else {}
        return found

    def forget(self) -> None:
        """Ask again from now on."""
        self._known.clear()

    def earlier(self, pod: Object) -> str:
        """Name the image of which a pod runs another build than its node has under that name by now; or ''."""
        node = str(pod["spec"].get("nodeName") or "")
        for image, running in _containers(pod):
            there = self.of(node).get(full(image)) if node else None
            if there and digest_of(running) not in there and self._differ(node, image, running):
                return image
        return ""

    def _differ(self, node: str, image: str, running: str) -> bool:
        """Ask what the kubelet asks: one build may have manifests that differ."""
        return self._id(node, image) not in ("", self._id(node, running))

    def _id(self, node: str, image: str) -> str:
        said = self.docker.execute(node, "crictl", "inspecti", image, check=False)
        try:
            found: dict[str, Any] = json.loads(said.out) if said.code == 0 else {}
        except ValueError:
            return ""
        return str((found.get("status") or {}).get("id") or "")


def _containers(pod: Object) -> Iterator[tuple[str, str]]:
    """Yield the image that each container of a pod wants, and what it runs; nothing of Jobs: they end by themselves."""
    if any(owner.get("kind") == "Job" for owner in metadata(pod).get("ownerReferences") or ()):
        return
    wanted = {c["name"]: str(c.get("image", "")) for c in pod["spec"].get("containers") or ()}
    for status in pod["status"].get("containerStatuses") or ():
        if wanted.get(status["name"]) and digest_of(str(status.get("imageID", ""))):
            yield wanted[status["name"]], str(status["imageID"])
