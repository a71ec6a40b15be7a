"""A new cluster: the configuration for kind, the call that makes it, and what is done to its nodes at once."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from infra import private, shell, stack
from infra.errors import PlatformError
from infra.stack import write_atomic
from infra.tiers.kind import cli, cluster_file
from infra.tiers.kind.cluster import MARK, KindCluster
from infra.tiers.kind.cluster_file import Mount
from infra.tiers.kind.nodes import Node
from infra.tiers.kind.tools import Tools
from infra.waiting import Item, Wait

SLOW_BOOT = "could not find a log line"
"""Kind's words when a node has not booted within 30 seconds (kind pkg/cluster/internal/providers/common)."""
BUDGET = 420.0
"""Seconds for a new cluster; its node image is there already."""


def create(cluster: KindCluster, tools: Tools, timeout: float | None) -> None:
    """Make the cluster, and record that it is complete only when it is.

    Raises:
        PlatformError: what kind says; the node stays for inspection.
    """
    name, (image, warning) = cluster.name, cluster.image()
    if warning:
        cluster.context.console.warn(warning)
    _prepare(cluster)
    body = cluster_file.effective(cluster.file, name, image, _mounts(cluster))
    config = cluster.home / "cluster.yaml"
    write_atomic(config, cluster_file.text(body), mode=0o600)
    mark = cluster_file.fingerprint(cluster.file, image)
    _fetch_node_image(cluster, body)
    root = str(cluster.docker.info().get("DockerRootDir", ""))
    cluster.remember(name=name, fingerprint=mark, image=image, complete=False, dockerRoot=root)
    cluster.context.console.say(f"  creating the cluster {name}")
    argv = cli.create(tools.kind.path, name, config, cluster.kubeconfig)
    environment = tools.kind_environment(cluster.kubeconfig)
    try:
        _follow(cluster, shell.spawn(argv, env=environment), timeout)
    except PlatformError as error:
        if SLOW_BOOT not in error.why:
            raise
        cluster.context.console.say("  the node took longer than kind waits; trying once more")
        cluster.docker.end_containers([n.name for n in cluster.nodes()])
        _follow(cluster, shell.spawn(argv, env=environment), timeout)
    adopt(cluster, cluster.nodes())
    _trust(cluster)


def _fetch_node_image(cluster: KindCluster, body: dict[str, Any]) -> None:
    """Pull the node image before the clock of the cluster starts."""
    from infra import pull
    from infra.tiers.kind import images

    named = sorted({str(n["image"]) for n in body["nodes"] if n.get("image")})
    absent = [reference for reference in named if not cluster.docker.image_id(reference)]
    if absent:
        mirrors = cluster.settings.words("PLATFORM_IMAGE_MIRRORS")
        settings = dict.fromkeys(absent, "KIND_NODE_IMAGE")
        pull.pull(images.clients, absent, mirrors, cluster.context.console, settings=settings)


def _follow(cluster: KindCluster, run: shell.Child, timeout: float | None) -> None:
    def look() -> list[Item]:
        done = run.result()
        state = "starting" if done is None else "ready" if done.code == 0 else "failed"
        return [Item("cluster", state, _words(run.last_line), budget=timeout or BUDGET)]

    try:
        Wait(cluster.context.console, look, None, "invoke kind.up", sleep=lambda _: time.sleep(0.2)).until_ready()
    except PlatformError as error:
        run.stop()
        done = run.result()
        said = [_words(line) for line in (done.err if done else "").splitlines() if line.strip()]
        raise PlatformError(
            error.code,
            f"the cluster {cluster.name} could not be created",
            why=next((line for line in said if line.startswith("ERROR")), said[-1] if said else ""),
            steps=("invoke kind.logs collects a diagnostic report", "invoke doctor --tier kind", "invoke kind.up"),
            details={"log": said[-20:]},
        ) from error
    except BaseException:
        run.stop()
        raise


def _prepare(cluster: KindCluster) -> None:
    try:
        for directory in (cluster.home, cluster.mark, *([cluster.volumes] if cluster.kept else [])):
            private.directory(directory)
        (cluster.mark / "stack").write_text(f"{cluster.context.stack.name}\n{cluster.home}\n", encoding="utf-8")
    except OSError as error:
        raise stack.unwritable(cluster.home, error) from error


def _mounts(cluster: KindCluster) -> list[Mount]:
    found = [Mount(cluster.mark, MARK, read_only=True)]
    found += [Mount(cluster.volumes, cluster_file.VOLUMES)] if cluster.kept else []
    bundle = cluster.settings.text("PLATFORM_CA_BUNDLE")
    return found + ([Mount(_existing(bundle), cluster_file.CERTIFICATE, read_only=True)] if bundle else [])


def adopt(cluster: KindCluster, nodes: Sequence[Node]) -> None:
    """Record a cluster that works."""
    os.chmod(cluster.kubeconfig, 0o600)
    cluster.remember(complete=True, nodes=[n.id for n in nodes], created=time.time())


def _trust(cluster: KindCluster) -> None:
    """Have the nodes trust the authority of the settings, for images that they fetch themselves."""
    if not cluster.settings.text("PLATFORM_CA_BUNDLE"):
        return
    for node in cluster.nodes():
        cluster.docker.execute(node.name, "update-ca-certificates", check=False)
        cluster.docker.execute(node.name, "systemctl", "restart", "containerd", check=False)


def _existing(bundle: str) -> Path:
    path = Path(bundle).expanduser().resolve()
    if not path.is_file():
        steps = ("give a file with PEM certificates",)
        raise PlatformError("SETTING_INVALID", f"PLATFORM_CA_BUNDLE: there is no file {path}", steps=steps)
    return path


def _words(line: str) -> str:
    """Return a line of kind without its drawings."""
    return "".join(c for c in line if c.isascii() and c.isprintable()).strip()
