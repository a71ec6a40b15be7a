"""The ways to run a training: as a program of the worker on this machine, or as a Kubernetes Job."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from infra import catalog
from infra.errors import PlatformError
from infra.settings import Settings
from infra.stack import Stack
from infra.training import gang, notify, orders
from infra.training.request import JOB, RUNNERS, SUBPROCESS

if TYPE_CHECKING:
    from infra.training.client import Order
    from infra.training.cluster import JobCluster
    from infra.training.job_manifest import Shape
    from infra.training.orders import Orders

MOST_GPUS = 64
MOST_WORKERS = 64


@dataclass(frozen=True)
class How:
    """The user's wishes; empty and 0: the default."""

    runner: str = ""
    image: str = ""
    gpus: int = 0
    workers: int = 1
    queue: str = ""
    priority: str = ""
    or_cpu: bool = False


def obstacle(kubeconfig: Path | None, tier: str) -> PlatformError | None:
    """Tell why trainings of the running platform cannot be Jobs; None where they can.

    Args:
        kubeconfig: that of the platform's cluster; None where it runs in none.
        tier: its name, for people.
    """
    from infra.training import cluster, job_manifest

    if kubeconfig is None:
        what = f"trainings can run as Jobs only in a Kubernetes cluster; this is the {tier} tier"
        steps = ("invoke up --tier kind, then the same command with --tier kind", "or omit --as job")
        return PlatformError("TIER_UNAVAILABLE", what, steps=steps)
    shape = job_manifest.Shape()
    try:
        found = _cluster(kubeconfig, shape)
        there = found.config_map(shape.config_map) is not None
    except (cluster.Away, cluster.Refused) as error:
        return PlatformError("UNREACHABLE", "the cluster does not answer", why=str(error), steps=("invoke status",))
    except PlatformError as error:
        return error
    what = "the application, whose image and settings Jobs use, is not deployed in the cluster"
    why = f"there is no ConfigMap {shape.config_map} in the namespace {shape.namespace}"
    steps = ("invoke app.build, then invoke kind.up --apps", "or --as subprocess")
    return None if there else PlatformError("TIER_UNAVAILABLE", what, why=why, steps=steps)


def orders_of(stack: Stack, kubeconfig: Path | None) -> Orders:
    """Return what signs an order: the key of the cluster for a Job, else that of the stack (`kubeconfig` is None).

    Raises:
        PlatformError: STATE_UNWRITABLE, DATA_INCOMPATIBLE; UNREACHABLE or TIER_UNAVAILABLE of a cluster.
    """
    from infra.training import cluster, job_manifest, job_variables, service

    if kubeconfig is None:
        return service.open_orders(stack)
    shape = job_manifest.Shape()
    try:
        found = _cluster(kubeconfig, shape)
        signing = orders.of_cluster(found, shape.signing, shape.application)
        return replace(signing, variables=job_variables.JobVariables(found, shape.config_map))
    except (cluster.Away, cluster.Refused) as error:
        steps = ("invoke status",)
        raise PlatformError("UNREACHABLE", "the cluster does not answer", why=str(error), steps=steps) from error


def _cluster(kubeconfig: Path, shape: Shape) -> JobCluster:
    from infra.training import cluster

    return cluster.JobCluster(cluster.from_kubeconfig(kubeconfig), shape.namespace)


def pod_log(kubeconfig: Path, job: str, rank: int = 0) -> Callable[[], list[str]] | None:
    """Return what asks for the new lines of a Job's pods; None where it has none, or none any longer."""
    from infra.training import job_manifest

    return log_of_pods(_cluster(kubeconfig, job_manifest.Shape()), job, rank)


def log_of_pods(found: JobCluster, job: str, rank: int = 0) -> Callable[[], list[str]] | None:
    """Return the same for a cluster."""
    import tempfile

    from infra.training import cluster, job_manifest
    from infra.training.job_runner import JobLog

    name = job_manifest.name(job)
    log = JobLog(Path(tempfile.mkdtemp(prefix="training-log-")) / "log")

    def news() -> list[str]:
        with contextlib.suppress(cluster.Away, cluster.Refused):
            return log.news(found, pods())
        return []

    def pods() -> list[cluster.Object]:
        return job_manifest.worker(found.pods(name) or found.pods(name, cluster.JOB_SETS), rank)

    with contextlib.suppress(cluster.Away, cluster.Refused):
        return news if pods() else None
    return None


def applied(order: Order, how: How, obstacle: PlatformError | None) -> Order:
    """Return the order with its runner: a Job where that is possible, unless another one is requested.

    The user's own program is no Job unless asked for: it is on this machine.

    Raises:
        PlatformError: USAGE for what does not go together; the obstacle, where a Job was asked for.
    """
    _check(how)
    runner = how.runner or (SUBPROCESS if order.command or obstacle else JOB)
    if runner == JOB and obstacle:
        raise obstacle
    order = order if order.command or how.workers == 1 else _parallel(order, how.workers, runner)
    if runner != JOB:
        how = _check_here(order, how)
        order = _without_gpus(order) if how.or_cpu and not how.gpus else order
    elif order.env:
        from infra.training import job_variables

        job_variables.checked(order.env)
    made = replace(order, runner=runner, image=how.image, gpus=how.gpus, workers=how.workers)
    return replace(made, queue=how.queue, priority=how.priority)


def lacking(kubeconfig: Path | None, order: Order) -> PlatformError | None:
    """Return what the cluster lacks for an order: JobSet for several workers, Kueue for a queue; None where nothing."""
    from infra.training import cluster, job_manifest

    wanted = {"JobSet, by which several workers run together,": cluster.JOB_SETS} if order.workers > 1 else {}
    wanted |= {"Kueue, which has the queues,": cluster.WORKLOADS} if order.queue else {}
    if order.runner != JOB or kubeconfig is None or not wanted:
        return None
    try:
        found = _cluster(kubeconfig, job_manifest.Shape())
        absent = [what for what, kind in wanted.items() if not found.knows(kind)]
    except (cluster.Away, cluster.Refused) as error:
        return PlatformError("UNREACHABLE", "the cluster does not answer", why=str(error), steps=("invoke status",))
    steps = ("invoke kind.up --queue installs both", "or --as subprocess: several workers run on this machine")
    return PlatformError("TIER_UNAVAILABLE", f"{absent[0]} is not in the cluster", steps=steps) if absent else None


def afforded(kubeconfig: Path | None, order: Order, how: How) -> Order:
    """Return the order of a Job without GPUs where `how` allows that and the nodes offer too few; else as it is.

    It then waits for a node, which many clusters add when a pod wants one.

    Raises:
        PlatformError: UNREACHABLE.
    """
    from infra.training import cluster, job_manifest

    if order.runner != JOB or kubeconfig is None or not order.gpus or not how.or_cpu:
        return order
    try:
        nodes = _cluster(kubeconfig, job_manifest.Shape()).allocatable(job_manifest.GPU)
    except (cluster.Away, cluster.Refused) as error:
        raise PlatformError("UNREACHABLE", "the cluster does not answer", why=str(error)) from error
    enough = sum(count // order.gpus for count in nodes) >= order.workers
    return order if enough else replace(order, gpus=0)


def _without_gpus(order: Order) -> Order:
    """Return the order of a program that must not see the GPUs either: others may hold them."""
    return replace(order, env={**order.env, gang.DEVICES: ""}) if order.command else order


def _parallel(order: Order, workers: int, runner: str) -> Order:
    """Return the order of the built-in training for several workers.

    Raises:
        PlatformError: USAGE; PROGRAM_MISSING without JAX on this machine, where they run here.
    """
    from infra.training import parallel

    if runner == JOB:
        parallel.check_number(workers)
    else:
        parallel.check(workers)
    return replace(order, config=replace(parallel.CONFIG, epochs=order.config.epochs))


def _check_here(order: Order, how: How) -> How:
    """Return what this machine can give: as asked, or without GPUs where too few are no reason to refuse.

    Raises:
        PlatformError: USAGE.
    """
    if how.image or how.queue or how.priority:
        raise PlatformError("USAGE", "--image, --queue and --priority are for Jobs", steps=("add --as job",))
    if how.gpus:
        found = gang.devices(order.env or os.environ)
        if how.or_cpu and how.gpus * how.workers > len(found):
            return replace(how, gpus=0)
        gang.shares(found, how.workers, how.gpus)
    return how


def _check(how: How) -> None:
    if how.runner not in ("", *RUNNERS):
        raise PlatformError("USAGE", f"--as {how.runner} is not one of {', '.join(RUNNERS)}", steps=("--as job",))
    if not 0 <= how.gpus <= MOST_GPUS:
        raise PlatformError("USAGE", f"--gpus {how.gpus} is not between 0 and {MOST_GPUS}")
    if how.or_cpu and not how.gpus:
        raise PlatformError("USAGE", "--or-cpu is for trainings that want GPUs", steps=("add --gpus 1",))
    if not 1 <= how.workers <= MOST_WORKERS:
        raise PlatformError("USAGE", f"--workers {how.workers} is not between 1 and {MOST_WORKERS}")
    if how.priority not in ("", *catalog.PRIORITIES):
        raise PlatformError("USAGE", f"--priority {how.priority} is not one of {', '.join(catalog.PRIORITIES)}")
    if how.queue and not re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", how.queue):
        raise PlatformError("USAGE", f"--queue {how.queue!r} is not a name of a LocalQueue")
    if how.priority and not how.queue:
        raise PlatformError("USAGE", "--priority is for a queue", steps=("add --queue NAME",))
    if how.image.split() != [how.image] * bool(how.image):
        raise PlatformError("USAGE", f"--image {how.image!r} is not an image reference")


def environment(settings: Settings, kubeconfig: Path | None) -> dict[str, str]:
    """Return the worker's variables beside the contract: for Jobs where there are any, and those that settings name."""
    from infra.supervision import client as supervise

    target = settings.text(notify.NOTIFY)
    own = {**supervise.passed(settings), **({notify.NOTIFY: target} if target else {})}
    if kubeconfig is None:
        return own
    image = settings.text("TRAINING_IMAGE") or settings.text("BACKEND_IMAGE") or catalog.BACKEND_IMAGE
    cluster = {"TRAINING_KUBECONFIG": str(kubeconfig), "TRAINING_KUBECONFIG_DIGEST": _digest(kubeconfig)}
    return {**own, "TRAINING_RUNNER": ",".join(RUNNERS), "TRAINING_IMAGE": image, **cluster}


def _digest(kubeconfig: Path) -> str:
    """Digest a kubeconfig, so that a worker starts again with a cluster that was created again."""
    with contextlib.suppress(OSError):
        return hashlib.sha256(kubeconfig.read_bytes()).hexdigest()[:16]
    return ""
