"""Checks before a cluster is created or started; each finding with its remedy."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from infra import ports
from infra.console import human_bytes
from infra.endpoints import HOST
from infra.tiers.base import Check
from infra.tiers.kind import cluster_file
from infra.tiers.kind.cluster import KindCluster
from infra.tiers.kind.nodes import Docker
from infra.tiers.kind.tools import Tools

GB = 1_000_000_000
MEMORY, MEMORY_OBS = 2 * GB, 3 * GB
"""Memory that Docker's machine should have for the cluster with the core, and with observability, in bytes."""
DISK_FAIL, DISK_WARN = 2 * GB, 8 * GB
INOTIFY: Mapping[str, int] = {"max_user_watches": 524_288, "max_user_instances": 512}
"""Limits that kind recommends (https://kind.sigs.k8s.io/docs/user/known-issues#pod-errors-due-to-too-many-open-files)."""
INOTIFY_HOME = Path("/proc/sys/fs/inotify")
INSTANCES_NEEDED = 64
"""Below this many instances not even the system's own pods start."""


def programs(found: Tools) -> Check:
    """Name the programs that work on the cluster."""
    every = (found.kind, found.kubectl, found.helm)
    return Check("tools", "ok", ", ".join(f"{program.name} {program.shown}" for program in every))


def machine(cluster: KindCluster, obs: bool) -> list[Check]:
    """Check the machine for a start: all that a new cluster needs, or what a running one can still lack.

    Args:
        obs: whether observability is to run in it, too.
    """
    if cluster.listening():
        return [room(str(cluster.record.get("dockerRoot", "")), cluster.context.stack.home)]
    info = cluster.docker.info()
    found = [engine(info), memory(info, obs), disk(info, cluster.context.stack.home), *inotify()]
    found.append(cgroup(cluster.file, cluster.settings.text("KIND_NODE_IMAGE"), info))
    if not any(node.running for node in cluster.nodes()):
        found += node_ports(cluster_file.node_ports(cluster.file), cluster.docker)
    return found


def engine(info: Mapping[str, Any]) -> Check:
    """Describe the engine that answers."""
    name = info.get("OperatingSystem") or info.get("OSType") or ""
    return Check(
        "docker", "ok", f"Docker {info.get('ServerVersion')} ({name}), cgroup v{info.get('CgroupVersion', '?')}"
    )


def memory(info: Mapping[str, Any], obs: bool) -> Check:
    """Return the memory of Docker's machine, which on a laptop is a virtual one."""
    total, wanted = int(info.get("MemTotal") or 0), MEMORY_OBS if obs else MEMORY
    text = f"Docker has {human_bytes(total)} of memory, the cluster needs about {human_bytes(wanted)}"
    if total and total < wanted:
        return Check("memory", "warn", text, "give Docker more memory (Docker Desktop: Settings, Resources)")
    return Check("memory", "ok", text)


def disk(info: Mapping[str, Any], fallback: Path) -> Check:
    """Check the disk of Docker's images and nodes; in a virtual machine only the state directory's disk can be seen."""
    root = Path(str(info.get("DockerRootDir") or ""))
    place = root if root.is_absolute() and root.exists() else fallback
    free = shutil.disk_usage(next(p for p in (place, *place.parents) if p.exists())).free
    text = f"{human_bytes(free)} free at {place}"
    if free < DISK_FAIL:
        remedy = "free space, e.g. docker image prune: under disk pressure Kubernetes evicts pods"
        return Check("disk", "fail", f"only {text}; {human_bytes(DISK_FAIL)} is needed", remedy, "PREFLIGHT_FAILED")
    return Check("disk", "warn" if free < DISK_WARN else "ok", text)


def room(root: str, fallback: Path) -> Check:
    """Check a running cluster, which must be looked after all the same.

    Kind's kubelet throws no pod out when the disk is full, so nothing but this tells before servers fail to write.
    """
    found = disk({"DockerRootDir": root}, fallback)
    return replace(found, status="warn") if found.status == "fail" else found


def cgroup(body: Mapping[str, Any], chosen: str, info: Mapping[str, Any]) -> Check:
    """Check that the node's Kubernetes starts with this host's cgroups."""
    image, warning = cluster_file.node_image(body, chosen, str(info.get("CgroupVersion", "")))
    return Check("node-image", "warn" if warning else "ok", warning or f"node image {image or 'of kind/cluster.yaml'}")


def inotify(home: Path = INOTIFY_HOME) -> list[Check]:
    """Return the kernel's limits for watching files, which are shared by everything on the machine; Linux only."""
    if not sys.platform.startswith("linux"):
        return []
    found = []
    for name, wanted in INOTIFY.items():
        try:
            value = int((home / name).read_text())
        except (OSError, ValueError):
            continue
        remedy = f"sudo sysctl -w fs.inotify.{name}={wanted}   (pods fail with `too many open files` otherwise)"
        hopeless = name == "max_user_instances" and value < INSTANCES_NEEDED
        status = "fail" if hopeless else "warn" if value < wanted else "ok"
        text = f"fs.inotify.{name} is {value}, kind recommends {wanted}"
        found.append(Check(f"inotify.{name}", status, text, remedy if status != "ok" else "", "PREFLIGHT_FAILED"))
    return found


def node_ports(numbers: Sequence[int], docker: Docker) -> list[Check]:
    """Return the ports of kind/cluster.yaml that are taken on this machine, and their holders."""
    conflicts = ports.conflicts(HOST, [ports.Claim("the cluster", "", n) for n in numbers])
    return [_taken(c, docker.publisher(c.claim.port)) for c in conflicts] or [
        Check("ports", "ok", "not in use by another program")
    ]


def _taken(conflict: ports.Conflict, container: str) -> Check:
    port, holder = conflict.claim.port, conflict.holder
    who = f"the container {container}" if container else ""
    who = who or (f"{holder.name} (pid {holder.pid})" if holder.pid else "another process")
    text = f"port {port} is {conflict.reason or f'taken by {who}'}"
    remedy = f"stop it: docker stop {container}" if container else "stop that process"
    remedy += ", or change its hostPort in kind/cluster.yaml"
    return Check(f"port.{port}", "fail", text, remedy, "PORT_TAKEN")
