"""Command lines of kind. Pure: they return argument lists."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

READY_LIMIT = 120
"""Seconds that kind itself waits for the node to be Ready."""


def create(kind: str, cluster: str, config: Path, kubeconfig: Path) -> list[str]:
    """Make a cluster; a failed one is kept for inspection."""
    where = ["--name", cluster, "--config", str(config), "--kubeconfig", str(kubeconfig)]
    return [kind, "create", "cluster", *where, "--retain", "--wait", f"{READY_LIMIT}s"]


def delete(kind: str, cluster: str, kubeconfig: Path) -> list[str]:
    """Delete a cluster."""
    return [kind, "delete", "cluster", "--name", cluster, "--kubeconfig", str(kubeconfig)]


def export_kubeconfig(kind: str, cluster: str, kubeconfig: Path) -> list[str]:
    """Write the kubeconfig again, e.g. after the port of the API server has changed."""
    return [kind, "export", "kubeconfig", "--name", cluster, "--kubeconfig", str(kubeconfig)]


def export_logs(kind: str, cluster: str, target: Path) -> list[str]:
    """Write everything kind knows for a bug report."""
    return [kind, "export", "logs", str(target), "--name", cluster]


def load(kind: str, cluster: str, images: Sequence[str]) -> list[str]:
    """Bring images of the host's engine into the nodes."""
    return [kind, "load", "docker-image", *images, "--name", cluster]
