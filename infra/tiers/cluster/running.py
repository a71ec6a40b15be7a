"""Questions and orders to the services of a running cluster: over one connection to its API server each."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence

from infra import shell
from infra.console import Console
from infra.errors import PlatformError
from infra.kube import snapshot
from infra.kube.api import Api
from infra.kube.kubectl_cli import Kubectl
from infra.loglines import LogQuery
from infra.tiers.base import LogLine, ServiceStatus
from infra.tiers.cluster import services as cluster_services
from infra.tiers.cluster.services import Cast
from infra.tiers.cluster.target import Target
from infra.waiting import Wait


@contextlib.contextmanager
def _cast(cluster: Target) -> Iterator[tuple[Api, Cast]]:
    with cluster.connected() as api:
        yield api, cluster_services.cast(api, snapshot.take(api))


def status(cluster: Target, services: Sequence[str], memory: bool = True) -> list[ServiceStatus]:
    """Return the services as their pods are.

    Args:
        memory: also how much they use, which each node's kubelet has to be asked for.

    Raises:
        PlatformError: NOT_RUNNING, CONTEXT_REFUSED, UNREACHABLE; so do the others here.
    """
    with _cast(cluster) as (api, who):
        used: Mapping[cluster_services.Where, int] = cluster_services.memory(api) if memory else {}
        return [cluster_services.status(s, who, used) for s in services]


def restart(cluster: Target, kubectl: Kubectl, services: Sequence[str]) -> None:
    """Replace the pods of the services; nothing is waited for."""
    with _cast(cluster) as (_, who):
        workloads = [w for s in services for w in who.workloads(s)]
    names = {(snapshot.metadata(w)["namespace"], cluster_services.workload_name(w)) for w in workloads}
    for namespace, name in sorted(names):  # two services may be one workload
        shell.run(kubectl.restart(namespace, name))


def wait(cluster: Target, console: Console, services: Sequence[str], timeout: float | None) -> None:
    """Block until the services' pods are ready; `timeout` in seconds, None: each service's budget.

    Raises:
        PlatformError: SERVICE_FAILED or WAIT_TIMEOUT, too.
    """
    with cluster.connected() as api:
        look, again = (lambda: cluster_services.items(api, services)), cluster.commands.up
        Wait(console, look, timeout, again, sleep=_pause).until_ready()


def _pause(_: float) -> None:
    time.sleep(0.3)


def logs(cluster: Target, services: Sequence[str], query: LogQuery) -> Iterator[LogLine]:
    """Yield the log lines of the services' containers."""
    with _cast(cluster) as (api, who):
        yield from cluster_services.logs(api, cluster_services.sources(services, who), query)


def pod(cluster: Target, service: str) -> tuple[str, str]:
    """Return the namespace and name of a pod that runs a service.

    Raises:
        PlatformError: NOT_RUNNING, also where the service has no pod.
    """
    with _cast(cluster) as (_, who):
        for found in who.pods(service):
            return str(snapshot.metadata(found)["namespace"]), str(snapshot.metadata(found)["name"])
    raise PlatformError("NOT_RUNNING", f"{service} has no pod", steps=(cluster.commands.up, cluster.commands.status))
