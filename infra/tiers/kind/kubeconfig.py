"""The check that a kubeconfig leads to a cluster of kind on this machine, and to the right one."""

from __future__ import annotations

from pathlib import Path

from infra.errors import PlatformError
from infra.kube.kubeconfig import address, context

CONTEXT_PREFIX = "kind-"
HERE = ("127.0.0.1", "::1", "0.0.0.0")


def leads_to(path: Path, cluster: str) -> bool:
    """Return whether a kubeconfig leads to that kind cluster on this machine."""
    where = address(path)
    return context(path) == f"{CONTEXT_PREFIX}{cluster}" and where is not None and where[0] in HERE


def refuse_others(path: Path, cluster: str) -> None:
    """Go on only when the kubeconfig leads to our kind cluster on this machine.

    Raises:
        PlatformError: CONTEXT_REFUSED.
    """
    if leads_to(path, cluster):
        return
    named, where = context(path), address(path)
    leads = f"context {named or 'none'}, server {where[0] if where else 'unknown'}"
    raise PlatformError(
        "CONTEXT_REFUSED",
        f"{path} does not point to the kind cluster {cluster} on this machine",
        why=leads,
        steps=("move that file away and run invoke kind.up, which writes it again", "invoke kind.status"),
    )
