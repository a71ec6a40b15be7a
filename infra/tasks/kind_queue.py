"""The wish for a queue of trainings in the cluster on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from infra.errors import PlatformError

if TYPE_CHECKING:
    from infra.tiers.kind.tier import Kind


def wish(active: Kind, queue: bool, no_queue: bool) -> None:
    """Note what is wanted, for the start that follows; take a queue away that is not wanted any longer.

    Raises:
        PlatformError: USAGE for both, or while trainings are in the queue.
    """
    from infra import stack
    from infra.tiers.kind import queue as kind_queue

    if queue and no_queue:
        raise PlatformError("USAGE", "--queue and --no-queue exclude each other", steps=("omit one of them",))
    if no_queue and active.running():
        with stack.lock(active.context.stack, "kind.up"):
            kind_queue.remove(active)
    if queue or no_queue:
        kind_queue.remember(active, queue)


def fit(active: Kind, timeout: float | None) -> None:
    """Set the quota of the queue, where there is one, to the room that is left after a deployment."""
    from infra.tiers.kind import queue

    if queue.wanted(active):
        queue.bring(active, timeout)


def line(active: Kind) -> str:
    """Return the state of the queue in words; '' for a stack without one."""
    from infra.tiers.kind import queue

    return queue.line(active)
