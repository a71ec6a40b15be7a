"""The nodes of a kind cluster as containers, through the `docker` program that kind itself uses."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from infra import docker_engine, shell
from infra.errors import PlatformError

CLUSTER_LABEL = "io.x-k8s.kind.cluster"
ROLE_LABEL = "io.x-k8s.kind.role"
"""Labels that kind gives its containers (kind pkg/cluster/internal/providers/docker/constants.go)."""


@dataclass(frozen=True)
class Node:
    """A node: the container's name, id, state (running, exited, ...), role, image and mounts (in the node: outside)."""

    name: str
    id: str
    state: str
    role: str = "control-plane"
    cluster: str = ""
    image: str = ""
    mounts: Mapping[str, str] = field(default_factory=dict)

    @property
    def running(self) -> bool:
        """Return whether the container runs."""
        return self.state == "running"


def parse(inspected: Sequence[Mapping[str, Any]]) -> list[Node]:
    """Return the nodes from what `docker inspect` says, control plane first."""
    nodes = [_node(entry) for entry in inspected]
    return sorted(nodes, key=lambda n: (n.role != "control-plane", n.name))


def _node(entry: Mapping[str, Any]) -> Node:
    config = entry.get("Config") or {}
    labels = config.get("Labels") or {}
    mounts = {m["Destination"]: m.get("Source") or m.get("Name") or "" for m in entry.get("Mounts") or []}
    return Node(
        name=str(entry["Name"]).lstrip("/"),
        id=str(entry["Id"]),
        state=str((entry.get("State") or {}).get("Status", "")),
        role=labels.get(ROLE_LABEL, ""),
        cluster=labels.get(CLUSTER_LABEL, ""),
        image=str(config.get("Image", "")),
        mounts=mounts,
    )


@dataclass(frozen=True)
class Docker:
    """The engine that runs the nodes, by its command line."""

    @cached_property
    def environ(self) -> Mapping[str, str]:
        """Return the variables that lead the program to the engine that images are pulled by."""
        return docker_engine.led()

    def _run(self, *words: str, limit: float = 60.0, check: bool = True) -> shell.Result:
        return shell.run(docker_engine.command(*words), env=self.environ, limit=limit, check=check)

    def info(self) -> dict[str, Any]:
        """Return the engine's description of itself.

        Raises:
            PlatformError: PROGRAM_MISSING without the program, UNREACHABLE when the engine does not answer.
        """
        done = self._run("info", "--format", "{{json .}}", limit=20, check=False)
        body = _object(done.out)
        if done.code != 0 or body.get("ServerErrors") or not body.get("ServerVersion"):
            said = "; ".join(body.get("ServerErrors") or []) or done.last_line
            steps = ("start Docker (Docker Desktop, or `systemctl start docker`), then run the same command again",)
            raise PlatformError("UNREACHABLE", "Docker does not answer", why=said, steps=steps)
        return body

    def nodes(self, cluster: str = "") -> list[Node]:
        """Return the nodes of a cluster, or of all clusters, stopped ones too. Raises PlatformError UNREACHABLE."""
        label = f"{CLUSTER_LABEL}={cluster}" if cluster else CLUSTER_LABEL
        done = self._run("ps", "--all", "--quiet", "--no-trunc", "--filter", f"label={label}", limit=20, check=False)
        if done.code != 0:
            self.info()
            raise PlatformError("UNREACHABLE", "Docker does not answer", why=done.last_line)
        ids = done.out.split()
        if not ids:
            return []
        return parse(json.loads(self._run("inspect", *ids, check=False).out or "[]"))

    def start(self, names: Sequence[str]) -> None:
        """Start containers."""
        self._run("start", *names, limit=120)

    def stop(self, names: Sequence[str]) -> None:
        """Stop containers; 20 seconds for each to end."""
        self._run("stop", "--time", "20", *names, limit=180)

    def end_containers(self, names: Sequence[str]) -> None:
        """Remove containers with their anonymous volumes."""
        self._run("rm", "--force", "--volumes", *names, limit=120)

    def execute(self, node: str, *words: str, limit: float = 60.0, check: bool = True) -> shell.Result:
        """Run a program in a node that runs."""
        return self._run("exec", node, *words, limit=limit, check=check)

    def image_ids(self) -> dict[str, str]:
        """Return the images of the engine: id by `name:tag`."""
        done = self._run("images", "--no-trunc", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}")
        pairs = (line.rsplit(" ", 1) for line in done.out.splitlines() if " " in line)
        return {name: identity for name, identity in pairs if not name.endswith(":<none>")}

    def image_id(self, reference: str) -> str:
        """Return the id of one image, '' when the engine does not have it."""
        done = self._run("image", "inspect", "--format", "{{.Id}}", reference, check=False)
        return done.out.strip() if done.code == 0 else ""

    def image_sizes(self, references: Sequence[str]) -> dict[str, int]:
        """Return the bytes of images that the engine has, in the order given; 0 for one that it does not know."""
        done = self._run("image", "inspect", "--format", "{{.Size}}", *references, check=False)
        sizes = [int(line) for line in done.out.split()] if done.code == 0 else [0] * len(references)
        return dict(zip(references, sizes, strict=True))

    def publisher(self, port: int) -> str:
        """Return the container that publishes a port of this machine, '' for none."""
        done = self._run("ps", "--filter", f"publish={port}", "--format", "{{.Names}}", check=False)
        return done.out.split()[0] if done.code == 0 and done.out.split() else ""

    def logs(self, name: str, count: int) -> list[str]:
        """Return the last lines of a container's own log."""
        done = self._run("logs", "--tail", str(count), name, check=False)
        text = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", done.out + done.err)
        return [line for line in text.splitlines() if line.strip()][-count:]


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
