"""The ways to run a training: as a program of the worker on this machine, or as a Kubernetes Job."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from infra import catalog
from infra.errors import PlatformError
from infra.settings import Settings
from infra.stack import Stack
from infra.training import gang, orders
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
        there = found.has_config_map(shape.config_map)
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
    from infra.training import cluster, job_manifest, service

    if kubeconfig is None:
        return service.open_orders(stack)
    shape = job_manifest.Shape()
    try:
        return orders.of_cluster(_cluster(kubeconfig, shape), shape.signing)
    except (cluster.Away, cluster.Refused) as error:
        steps = ("invoke status",)
        raise PlatformError("UNREACHABLE", "the cluster does not answer", why=str(error), steps=steps) from error


def _cluster(kubeconfig: Path, shape: Shape) -> JobCluster:
    from infra.training import cluster

    return cluster.JobCluster(cluster.from_kubeconfig(kubeconfig), shape.namespace)


def pod_log(kubeconfig: Path, job: str) -> Callable[[], list[str]] | None:
    """Return what asks for the new lines of a Job's pods; None where it has none, or none any longer."""
    import tempfile

    from infra.training import cluster, job_manifest
    from infra.training.job_runner import JobLog

    found, name = _cluster(kubeconfig, job_manifest.Shape()), job_manifest.name(job)
    log = JobLog(Path(tempfile.mkdtemp(prefix="training-log-")) / "log")

    def news() -> list[str]:
        with contextlib.suppress(cluster.Away, cluster.Refused):
            return log.news(found, found.pods(name))
        return []

    with contextlib.suppress(cluster.Away, cluster.Refused):
        return news if found.pods(name) else None
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
    order = order if order.command or how.workers == 1 else _parallel(order, how)
    if runner != JOB:
        _check_here(order, how)
    elif order.env:
        steps = ("put them into the Secret of the trainings (TRAINING_SECRET)", "or omit --as job")
        raise PlatformError("USAGE", "--env does not reach a Kubernetes Job so far", steps=steps)
    elif how.workers > 1:
        raise PlatformError("USAGE", "--workers is for programs of this machine so far", steps=("omit --as job",))
    return replace(order, runner=runner, image=how.image, gpus=how.gpus, workers=how.workers)


def _parallel(order: Order, how: How) -> Order:
    """Return the order of the built-in training for several workers.

    Raises:
        PlatformError: USAGE, PROGRAM_MISSING.
    """
    from infra.training import parallel

    parallel.check(how.workers)
    return replace(order, config=replace(parallel.CONFIG, epochs=order.config.epochs))


def _check_here(order: Order, how: How) -> None:
    """Check what is asked of this machine.

    Raises:
        PlatformError: USAGE.
    """
    if how.image:
        raise PlatformError("USAGE", "--image is for Jobs", steps=("add --as job",))
    gang.environments(order.env or os.environ, how.workers, how.gpus, port=0)


def _check(how: How) -> None:
    if how.runner not in ("", *RUNNERS):
        raise PlatformError("USAGE", f"--as {how.runner} is not one of {', '.join(RUNNERS)}", steps=("--as job",))
    if not 0 <= how.gpus <= MOST_GPUS:
        raise PlatformError("USAGE", f"--gpus {how.gpus} is not between 0 and {MOST_GPUS}")
    if not 1 <= how.workers <= MOST_WORKERS:
        raise PlatformError("USAGE", f"--workers {how.workers} is not between 1 and {MOST_WORKERS}")
    if how.image.split() != [how.image] * bool(how.image):
        raise PlatformError("USAGE", f"--image {how.image!r} is not an image reference")


def environment(settings: Settings, kubeconfig: Path | None) -> dict[str, str]:
    """Return the worker's variables beside the contract: for Jobs where there are any, and those that settings name."""
    from infra.supervision import client as supervise

    if kubeconfig is None:
        return supervise.passed(settings)
    image = settings.text("TRAINING_IMAGE") or settings.text("BACKEND_IMAGE") or catalog.BACKEND_IMAGE
    cluster = {"TRAINING_KUBECONFIG": str(kubeconfig), "TRAINING_KUBECONFIG_DIGEST": _digest(kubeconfig)}
    return {**supervise.passed(settings), "TRAINING_RUNNER": ",".join(RUNNERS), "TRAINING_IMAGE": image, **cluster}


def _digest(kubeconfig: Path) -> str:
    """Digest a kubeconfig, so that a worker starts again with a cluster that was created again."""
    with contextlib.suppress(OSError):
        return hashlib.sha256(kubeconfig.read_bytes()).hexdigest()[:16]
    return ""
