"""JobSet, Kueue and the queue of trainings in the cluster: brought, taken away, looked at."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Protocol

from infra import catalog, shell, stack
from infra.context import Context
from infra.errors import PlatformError
from infra.kube import queues, releases
from infra.kube.api import NoAnswer
from infra.kube.kubectl_cli import Kubectl
from infra.kube.releases import Wanted
from infra.tiers.base import Check
from infra.tiers.cluster import deploy as cluster_deploy
from infra.tiers.cluster.deploy import DeployOutcome
from infra.tiers.kind.cluster import KindCluster

RELEASES = tuple(chart.release for chart in catalog.UPSTREAM_CHARTS if chart.overlay == catalog.OVERLAY_QUEUE)
FACT = "queue"
WEBHOOK_PATIENCE = 60.0
"""Seconds for Kueue's webhooks to be reached, once its pod is ready."""
_CLUSTER_QUEUE = f"/apis/{queues.API}/clusterqueues/{queues.QUEUE}"


class QueueHost(Protocol):
    """The tier that has the queue."""

    context: Context

    @property
    def cluster(self) -> KindCluster:
        """Its cluster."""

    @property
    def kubectl(self) -> Kubectl:
        """The program kubectl on it."""

    def running(self) -> bool:
        """Return whether it runs."""

    def deploy(self, wanted: Sequence[Wanted], timeout: float | None) -> DeployOutcome:
        """Bring releases to what is wanted."""

    def uninstall(self, release: str, namespace: str) -> None:
        """Uninstall a release."""


def wanted(active: QueueHost) -> bool:
    """Return whether the stack has a queue."""
    return stack.remembered(active.context.stack, FACT) == "yes"


def remember(active: QueueHost, wish: bool) -> None:
    """Keep whether the stack has a queue. Raises PlatformError STATE_UNWRITABLE."""
    stack.ensure_home(active.context.stack)
    stack.remember(active.context.stack, **{FACT: "yes" if wish else "no"})


def bring(active: QueueHost, timeout: float | None) -> None:
    """Install JobSet and Kueue where they are not as they should be, and fit the queue to the room of the nodes.

    Raises:
        PlatformError: SERVICE_FAILED or WAIT_TIMEOUT, IMAGE_UNAVAILABLE.
    """
    charts = [releases.chart(name) for name in RELEASES]
    cluster = active.cluster
    active.deploy(cluster_deploy.wanted(cluster, charts, ()), timeout)
    with cluster.connected() as api:
        quota = queues.free(api.items("/api/v1/nodes"), api.items("/api/v1/pods"))
    _apply(active, quota)


def _apply(active: QueueHost, quota: queues.Quota) -> None:
    text = "---\n".join(json.dumps(thing) + "\n" for thing in queues.objects(catalog.TRAINING_NAMESPACE, quota))
    end = time.monotonic() + WEBHOOK_PATIENCE
    while True:
        done = shell.run(active.kubectl.apply_text(), stdin=text, limit=60, check=False)
        if done.code == 0:
            return
        if time.monotonic() > end:
            steps = ("invoke helm.status kueue", "invoke kind.logs collects a diagnostic report")
            what = "the queue of trainings cannot be made: Kueue refuses it, or its webhooks do not answer"
            raise PlatformError("SERVICE_FAILED", what, why=done.last_line, steps=steps)
        time.sleep(1)


def remove(active: QueueHost) -> tuple[str, ...]:
    """Take queue, Kueue and JobSet out of the cluster; returns the releases that were there.

    Raises:
        PlatformError: USAGE while trainings are in the queue.
    """
    with active.cluster.connected() as api:
        there = [name for name in RELEASES if name in cluster_deploy.deployed(api)]
        waiting = api.items(f"/apis/{queues.API}/workloads") if "kueue" in there else []
    open_ = [w for w in waiting if not _finished(w)]
    if open_:
        what = f"trainings that have not ended are in the queue: {len(open_)}"
        raise PlatformError("USAGE", what, steps=("invoke train.list", "invoke train.cancel JOB for each, or wait"))
    for name in reversed(there):
        active.uninstall(name, releases.chart(name).namespace)
    return tuple(there)


def _finished(workload: dict[str, object]) -> bool:
    status = workload.get("status")
    conditions = status.get("conditions", []) if isinstance(status, dict) else []
    return any(c["type"] == "Finished" and c["status"] == "True" for c in conditions)


def line(active: QueueHost) -> str:
    """Return the state of the queue in words; '' for a stack without one, or a cluster that does not run."""
    if not wanted(active) or not active.running():
        return ""
    try:
        with active.cluster.connected() as api:
            return queues.described(_cluster_queue(api.items(f"/apis/{queues.API}/clusterqueues")))
    except PlatformError as error:
        return f"queue {queues.QUEUE}: {error.what}"


def _cluster_queue(found: list[dict[str, object]]) -> dict[str, object] | None:
    return next((q for q in found if _name(q) == queues.QUEUE), None)


def _name(thing: dict[str, object]) -> object:
    about = thing["metadata"]
    return about.get("name") if isinstance(about, dict) else None


def checks(active: QueueHost) -> list[Check]:
    """Check that the queue of a stack that has one takes trainings."""
    if not wanted(active) or not active.running():
        return []
    try:
        with active.cluster.connected() as api:
            found = _cluster_queue(api.items(f"/apis/{queues.API}/clusterqueues"))
    except (PlatformError, NoAnswer):
        found = None
    text = queues.described(found)
    if found is None or not _takes(found):
        return [Check("queue", "fail", f"{text}: trainings with --queue would wait", "invoke kind.up --queue")]
    return [Check("queue", "ok", text)]


def _takes(queue: dict[str, object]) -> bool:
    status = queue.get("status")
    conditions = status.get("conditions", []) if isinstance(status, dict) else []
    return any(c["type"] == "Active" and c["status"] == "True" for c in conditions)
