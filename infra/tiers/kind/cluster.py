"""The cluster of a stack: which one it is, what is known of it, and in which state it is. Nothing is changed here."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from infra import catalog
from infra.errors import PlatformError
from infra.kube import api
from infra.kube.api import Api
from infra.kube.kubeconfig import address
from infra.kube.releases import Profile
from infra.tiers.cluster.target import Commands, Target
from infra.tiers.kind import cluster_file, kubeconfig
from infra.tiers.kind.nodes import Docker, Node

TIER = "kind"
NAME = "platform"
MARK = "/kind/platform"
"""In the nodes: a directory of this stack's state. It shows whose cluster it is, even of an incomplete one."""
ABSENT, STOPPED, RUNNING, HALF_MADE = "absent", "stopped", "running", "half made"
"""States of a cluster; in JSON since the first version."""


KEPT_CLASS = "platform-kept"
"""The storage class of kind/storage-class.yaml."""
PROFILE = Profile(TIER, KEPT_CLASS, catalog.GRAFANA_ON_KIND)
COMMANDS = Commands("invoke kind.up", "invoke kind.status", "invoke kind.logs collects a diagnostic report")


@dataclass
class KindCluster(Target):
    """The cluster of one stack; known of it are its name, fingerprint, image, whether it is complete, and more."""

    profile = PROFILE
    commands = COMMANDS

    docker: Docker = field(default_factory=Docker)

    @property
    def volumes(self) -> Path:
        """Return the directory of the volumes on this machine."""
        return self.home / "volumes"

    @property
    def mark(self) -> Path:
        """Return the file that is mounted into the nodes to tell whose they are."""
        return self.home / "node"

    @cached_property
    def file(self) -> dict[str, Any]:
        """kind/cluster.yaml."""
        return cluster_file.load(self.settings.root / "kind" / "cluster.yaml")

    @property
    def name(self) -> str:
        """Return its name: as before; else PLATFORM_STACK or `platform`, with the stack's digits if that is taken."""
        known = self.record.get("name")
        if known:
            return str(known)
        chosen = self.settings.values["PLATFORM_STACK"].text if "PLATFORM_STACK" in self.settings.values else ""
        wanted = chosen or NAME
        others = {n.cluster for n in self.docker.nodes() if not self.is_ours(n)}
        return f"{wanted}-{self.context.stack.name.rsplit('-', 1)[-1]}" if wanted in others else wanted

    def is_ours(self, node: Node) -> bool:
        """Return whether a node was made for this stack."""
        source = node.mounts.get(MARK, "")
        return bool(source) and _same(source, self.mark)

    def nodes(self) -> list[Node]:
        """List our nodes, control plane first."""
        name = self.record.get("name")
        found = self.docker.nodes(str(name)) if name else self.docker.nodes()
        return [n for n in found if self.is_ours(n)]

    def state(self, nodes: Sequence[Node] | None = None) -> str:
        """Return one of the states, from the containers and the record; the API is not asked."""
        found = self.nodes() if nodes is None else nodes
        if not found:
            return ABSENT
        if not self.record.get("complete") or not self.kubeconfig.exists():
            return HALF_MADE
        return RUNNING if all(n.running for n in found) else STOPPED

    def listening(self) -> bool:
        """Return whether something listens where the API server should: quick, without a program or another machine."""
        ours = self.record.get("complete") and kubeconfig.leads_to(self.kubeconfig, self.name)
        where = address(self.kubeconfig) if ours else None
        if where is None:
            return False
        try:
            with socket.create_connection(where, timeout=1):
                return True
        except OSError:
            return False

    def api(self) -> Api:
        """Return the API of our cluster, and of no other.

        Raises:
            PlatformError: NOT_RUNNING, CONTEXT_REFUSED.
        """
        if not self.kubeconfig.exists():
            raise PlatformError("NOT_RUNNING", "this stack has no cluster", steps=("invoke kind.up",))
        self.refuse_others()
        return api.connect(self.kubeconfig, (self.commands.up,))

    def manifests(self) -> list[object]:
        """Return the storage class."""
        import yaml

        path = self.settings.root / "kind" / "storage-class.yaml"
        return list(yaml.safe_load_all(path.read_text(encoding="utf-8")))

    def refuse_others(self) -> None:
        """Go on only when our kubeconfig, where there is one, leads to our cluster. Raises CONTEXT_REFUSED."""
        if self.kubeconfig.exists():
            kubeconfig.refuse_others(self.kubeconfig, self.name)

    def outdated(self) -> bool:
        """Return whether kind/cluster.yaml, or the node image asked for, is another than the cluster was made from."""
        made_from = self.record.get("fingerprint")
        return bool(made_from) and made_from != cluster_file.fingerprint(self.file, self.image()[0])

    def image(self) -> tuple[str, str]:
        """Return the node image to ask for, and a warning."""
        chosen = self.settings.text("KIND_NODE_IMAGE")
        cgroup = "" if chosen else str(self.docker.info().get("CgroupVersion", ""))
        return cluster_file.node_image(self.file, chosen, cgroup)

    @property
    def kept(self) -> bool:
        """Return whether the volumes are on this machine, and so outlive the cluster."""
        return keeps_volumes()


def keeps_volumes(system: str = sys.platform) -> bool:
    """Return whether this machine's directories can hold volumes: Windows lacks the owners and modes servers need."""
    return system != "win32"


def _same(source: str, path: Path) -> bool:
    """Return whether a mount's source is that path; Docker Desktop puts its own prefix before it."""
    return os.path.normcase(source) == os.path.normcase(str(path)) or source.endswith(path.as_posix())
