"""Shells that people sit at: on this machine with the cluster's kubeconfig, or in a pod."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from infra import catalog
from infra.errors import PlatformError

if TYPE_CHECKING:
    from infra.tiers.kind.tier import Kind

PROGRAMS = {"postgres": ("psql", "-U", "{user}", "-d", "platform"), "redis": ("valkey-cli",)}
"""By what runs a service (`Service.program`): what is opened in its pod instead of a shell."""


def open_shell(active: Kind, service: str) -> int:
    """Open it and wait for its end; its exit code.

    Raises:
        PlatformError: NOT_RUNNING, USAGE for a service that does not exist.
    """
    from infra import tier_choice
    from infra.tiers.cluster import running as cluster_running

    cluster = active.require()
    if not service:
        return subprocess.call(_own_shell(), env=environment(active))
    tier_choice.known_services((service,), active)
    namespace, pod = cluster_running.pod(cluster, service)
    user = active.context.settings.text("POSTGRES_USER")
    words = [word.format(user=user) for word in PROGRAMS.get(catalog.service(service).program, ("sh",))]
    argv = active.kubectl.shell(namespace, pod, words)
    return subprocess.call(argv)


def environment(active: Kind) -> dict[str, str]:
    """Return the environment of a shell in which kubectl and helm lead to the cluster."""
    found = active.tools
    directories = dict.fromkeys(str(Path(p.path).parent) for p in (found.kubectl, found.helm, found.kind))
    path = os.pathsep.join([*directories, os.environ.get("PATH", "")])
    return {**os.environ, "KUBECONFIG": str(active.cluster.kubeconfig), "PATH": path}


def _own_shell() -> list[str]:
    if os.name == "nt":
        return [os.environ.get("COMSPEC", "cmd.exe")]
    named = os.environ.get("SHELL") or shutil.which("sh")
    if not named:
        raise PlatformError("PROGRAM_MISSING", "no shell was found", steps=("set SHELL to your shell",))
    return [named]
