"""The way from any state to a running cluster: created, started, or repaired after a run that was killed."""

from __future__ import annotations

from collections.abc import Sequence

from infra import shell
from infra.errors import PlatformError
from infra.tiers.kind import cli, cluster_file, create, life
from infra.tiers.kind.cluster import ABSENT, HALF_MADE, RUNNING, STOPPED, KindCluster
from infra.tiers.kind.nodes import Node
from infra.tiers.kind.tools import Tools

HALF_MADE_PATIENCE = 20.0
"""Seconds for a cluster whose making was cut short; one that was complete once, and lost its login, gets more."""


def ensure(cluster: KindCluster, tools: Tools, timeout: float | None) -> bool:
    """Bring it up, whatever is there: create, repair, start; True when something had to be done.

    Raises:
        PlatformError: what is in the way, with what to do.
    """
    nodes = cluster.nodes()
    state = cluster.state(nodes)
    if state == HALF_MADE:
        state = _mend(cluster, tools, nodes)
    if state == ABSENT:
        create.create(cluster, tools, timeout)
        return True
    _say_when_changed(cluster)
    if state == STOPPED:
        life.start(cluster, nodes)
    life.wait_for_api(cluster, timeout, nodes)
    return state != RUNNING


def _say_when_changed(cluster: KindCluster) -> None:
    if cluster.outdated():
        steps = "`invoke kind.down --keep-data` and `invoke kind.up` create a new one with the same data"
        cluster.context.console.warn(
            f"kind/cluster.yaml has changed since the cluster was created, which keeps its ports, mounts and "
            f"node image: {steps}"
        )


def _mend(cluster: KindCluster, tools: Tools, nodes: Sequence[Node]) -> str:
    """Repair an unfinished cluster, or one whose record is lost: use it if it works, else remove it."""
    _await_other_kind(cluster)
    cluster.remember(name=nodes[0].cluster)
    if not all(n.running for n in nodes):
        cluster.docker.start([n.name for n in nodes if not n.running])
    done = shell.run(
        cli.export_kubeconfig(tools.kind.path, cluster.name, cluster.kubeconfig),
        env=tools.kind_environment(cluster.kubeconfig),
        check=False,
    )
    patience = life.API_BUDGET if cluster.record.get("complete") else HALF_MADE_PATIENCE
    if done.code == 0 and life.works_soon(cluster, patience):
        cluster.context.console.say("  the cluster was created but not recorded; it works and will be used")
        create.adopt(cluster, nodes)
        return RUNNING
    if not cluster.kept and _holds_data(cluster, nodes[0]):
        raise PlatformError(
            "DATA_INCOMPATIBLE",
            f"the cluster {cluster.name} does not work, and its node contains volumes",
            why=done.last_line if done.code else "its API server does not answer",
            steps=("invoke kind.logs collects a diagnostic report", "invoke kind.down --yes deletes it"),
        )
    cluster.context.console.say("  the cluster is incomplete; recreating it (it holds no data of its own)")
    cluster.docker.end_containers([n.name for n in nodes])
    cluster.kubeconfig.unlink(missing_ok=True)
    return ABSENT


def _await_other_kind(cluster: KindCluster) -> None:
    """Wait for a `kind create` of a run that was killed: it goes on by itself."""
    import psutil

    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if {"create", "cluster", str(cluster.kubeconfig)} <= set(words):
            cluster.context.console.say("  waiting for a `kind create cluster` that is still running")
            try:
                process.wait(create.BUDGET)
            except psutil.TimeoutExpired:
                process.kill()


def _holds_data(cluster: KindCluster, node: Node) -> bool:
    done = cluster.docker.execute(node.name, "ls", "-A", cluster_file.VOLUMES, check=False)
    return done.code == 0 and bool(done.out.strip())
