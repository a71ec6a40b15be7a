"""How a training runs: as a program of the worker on this machine, or as a Kubernetes Job."""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from infra import catalog
from infra.errors import PlatformError
from infra.settings import Settings
from infra.stack import Stack
from infra.training.request import JOB, RUNNERS, SUBPROCESS

if TYPE_CHECKING:
    from infra.training.client import Order

JOB_TIER = "kind"
"""The tier whose trainings may be Jobs: a Job reaches the platform by its addresses inside the cluster."""
MOST_GPUS = 64


@dataclass(frozen=True)
class How:
    """What the user asks for; empty and 0: the default."""

    runner: str = ""
    image: str = ""
    gpus: int = 0


def of_tier(tier: str) -> str:
    """How trainings run on a tier, where nobody says otherwise."""
    return JOB if tier == JOB_TIER else SUBPROCESS


def applied(order: Order, how: How, tier: str) -> Order:
    """The order with the way it shall run. The user's own program is no Job unless asked for: it is on this machine.

    Raises:
        PlatformError: USAGE for what does not go together; TIER_UNAVAILABLE for a Job where there is no cluster.
    """
    _check(how)
    runner = how.runner or (SUBPROCESS if order.command else of_tier(tier))
    if runner != JOB and (how.image or how.gpus):
        raise PlatformError("USAGE", "--image and --gpus are for Jobs", steps=("add --as job",))
    if runner == JOB and tier != JOB_TIER:
        raise PlatformError(
            "TIER_UNAVAILABLE",
            f"trainings are Jobs in a Kubernetes cluster only; this is the tier {tier}",
            steps=("invoke up --tier kind, then the same with --tier kind", "or leave --as job away"),
        )
    return replace(order, runner=runner, image=how.image, gpus=how.gpus)


def _check(how: How) -> None:
    if how.runner not in ("", *RUNNERS):
        raise PlatformError("USAGE", f"--as {how.runner} is none of {', '.join(RUNNERS)}", steps=("--as job",))
    if not 0 <= how.gpus <= MOST_GPUS:
        raise PlatformError("USAGE", f"--gpus {how.gpus} is not between 0 and {MOST_GPUS}")
    if how.image.split() != [how.image] * bool(how.image):
        raise PlatformError("USAGE", f"--image {how.image!r} is no reference of an image")


def environment(settings: Settings, stack: Stack, tier: str) -> dict[str, str]:
    """What the worker needs for Jobs; nothing where there are none."""
    if tier != JOB_TIER:
        return {}
    image = settings.text("TRAINING_IMAGE") or settings.text("BACKEND_IMAGE") or catalog.BACKEND_IMAGE
    kubeconfig = stack.tier_home(tier) / "kubeconfig"
    cluster = {"TRAINING_KUBECONFIG": str(kubeconfig), "TRAINING_KUBECONFIG_DIGEST": _digest(kubeconfig)}
    return {"TRAINING_RUNNER": ",".join(RUNNERS), "TRAINING_IMAGE": image, **cluster}


def _digest(kubeconfig: Path) -> str:
    """So that a worker begins anew with a cluster that was made anew."""
    with contextlib.suppress(OSError):
        return hashlib.sha256(kubeconfig.read_bytes()).hexdigest()[:16]
    return ""
