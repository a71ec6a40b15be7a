"""A cluster that is there: started, waited for, stopped, deleted."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from typing import Any

from infra import shell
from infra.errors import PlatformError
from infra.kube import api
from infra.kube.api import Api
from infra.kube.snapshot import metadata
from infra.tiers.cluster import deployed as cluster_deployed
from infra.tiers.kind import cli
from infra.tiers.kind.cluster import KindCluster
from infra.tiers.kind.nodes import Node
from infra.tiers.kind.tools import Tools
from infra.waiting import Item, Wait

API_BUDGET = 120.0
"""Seconds for a cluster that is started again."""
FILES = ("kubeconfig", "cluster.json", "cluster.yaml", "images.json", cluster_deployed.FILE)
"""Files in the cluster's home that describe it; deleted with it."""


def start(cluster: KindCluster, nodes: Sequence[Node]) -> None:
    """Start a stopped cluster; what waits for it is `wait_for_api`."""
    cluster.context.console.say(f"  starting the cluster {cluster.name}")
    cluster.docker.start([n.name for n in nodes if not n.running])


def wait_for_api(cluster: KindCluster, timeout: float | None, nodes: Sequence[Node]) -> None:
    """Block until API server and nodes are ready.

    Raises:
        PlatformError: WAIT_TIMEOUT or SERVICE_FAILED with the last lines of the node.
    """
    link = cluster.api()

    def look() -> list[Item]:
        if not link.ready():
            return [Item("cluster", "starting", "its API server does not answer yet", budget=API_BUDGET)]
        ready = nodes_ready(link)
        return [Item("cluster", "ready" if ready else "starting", "its node is not Ready yet", budget=API_BUDGET)]

    try:
        Wait(cluster.context.console, look, timeout, "invoke kind.up", sleep=lambda _: time.sleep(0.3)).until_ready()
    except PlatformError as error:
        steps = (
            "invoke kind.logs collects a diagnostic report",
            "invoke kind.down --keep-data, then invoke kind.up",
        )
        log = cluster.docker.logs(nodes[0].name, 20) if nodes else []
        raise PlatformError(
            error.code, "the cluster did not come up", why=error.why, steps=steps, details={"log": log}
        ) from error
    finally:
        link.close()


def works_soon(cluster: KindCluster, limit: float) -> bool:
    """Return whether API server and nodes become ready within some seconds."""
    end = time.monotonic() + limit
    while time.monotonic() < end:
        link = api.connect(cluster.kubeconfig)
        try:
            if link.ready() and nodes_ready(link):
                return True
        finally:
            link.close()
        time.sleep(0.5)
    return False


def stop(cluster: KindCluster) -> bool:
    """Stop the containers; False when none ran."""
    running = [n.name for n in cluster.nodes() if n.running]
    if running:
        cluster.docker.stop(running)
    return bool(running)


def tear_down(cluster: KindCluster, tools: Tools | None) -> bool:
    """Delete the cluster; volumes on this machine stay. False when there was none."""
    nodes = cluster.nodes()
    if nodes and tools is not None:
        name = nodes[0].cluster
        argv = cli.delete(tools.kind.path, name, cluster.kubeconfig)
        shell.run(argv, env=tools.kind_environment(cluster.kubeconfig), limit=120, check=False)
    left = cluster.nodes()
    if left:
        cluster.docker.end_containers([n.name for n in left])
    for file in FILES:
        (cluster.home / file).unlink(missing_ok=True)
    shutil.rmtree(cluster.mark, ignore_errors=True)
    return bool(nodes)


def nodes_ready(link: Api) -> bool:
    """Return whether every node says that it is Ready."""
    try:
        nodes = link.items("/api/v1/nodes")
    except api.NoAnswer:
        return False
    return bool(nodes) and all(_ready(node) for node in nodes)


def _ready(node: Any) -> bool:
    conditions = (node.get("status") or {}).get("conditions") or []
    return bool(metadata(node)) and any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
