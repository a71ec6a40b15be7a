"""The kind tier measured: releases, a second `up`, memory, and our time against kind and Helm by hand."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from infra import catalog, settings, stack
from infra.console import Console
from infra.context import Context
from infra.kube import releases
from infra.tiers.cluster import deploy as cluster_deploy
from infra.tiers.kind import cli as kind_cli
from infra.tiers.kind import images as kind_images
from infra.tiers.kind.tier import Kind
from tests.smoke import stage as stages

if TYPE_CHECKING:
    from tests.bench.figures import Figure

UNITS = {"KiB": 1 / 1024, "MiB": 1.0, "GiB": 1024.0}


def figures(rounds: int) -> list[Figure]:
    """All figures, with a cluster of its own that is gone afterwards."""
    from tests.bench.figures import Figure

    with stages.only_cluster("kind"), stages.stage("kind") as made:
        ours = _timed(made, "kind.up")
        again = min(_timed(made, "kind.up") for _ in range(rounds))
        memory = _memory(made.env["PLATFORM_STACK"])
        _without_releases(made)
        deployed = _timed(made, "kind.up")
        training = _training(made)
        hand = _by_hand(made)
    return [
        Figure("kind: cluster ready to core releases ready, images in the node", deployed, "s", "", 60.0),
        Figure("kind.up on a ready cluster", again, "s", "", 3.0),
        Figure("memory of the node with the core", memory, "MB", "", 1500.0),
        Figure("kind.up from nothing", ours / hand, "x", "kind create, load and helm by hand in parallel", 1.1),
        *training,
    ]


def _timed(made: stages.Stage, *words: str) -> float:
    began = time.perf_counter()
    made.invoke(*words, check=True)
    return time.perf_counter() - began


def _memory(cluster: str) -> float:
    """MB that the node's container uses, without what the kernel could drop."""
    argv = ["docker", "stats", "--no-stream", "--format", "{{.MemUsage}}", f"{cluster}-control-plane"]
    said = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
    found = re.match(r"([\d.]+)([KMG]iB)", said.strip())
    assert found, said
    return float(found[1]) * UNITS[found[2]] * 1.048576


def _without_releases(made: stages.Stage) -> None:
    for namespace in catalog.NAMESPACES:
        made.invoke("helm.uninstall", "--namespace", namespace, "--yes", check=True)


def _training(made: stages.Stage) -> list[Figure]:
    """A training as a Job against the same one as a subprocess; left out where the images are not here."""
    from tests.bench.figures import Figure

    if made.invoke("helm.deploy", "--only", "platform").returncode:
        return []
    job, process = (_timed(made, "train.run", "--as", kind, "--tier", "kind") for kind in ("job", "subprocess"))
    return [Figure("a training as a Job, beyond a subprocess", job - process, "s", "the same training", 15.0)]


def _by_hand(made: stages.Stage) -> float:
    """Seconds for the same cluster, made as a person would: create, load, helm in parallel where it can be."""
    tier = Kind(_context(made.env))
    cluster, tools = tier.cluster, tier.tools
    config = (cluster.home / "cluster.yaml").read_text(encoding="utf-8")
    charts = releases.charts([catalog.OVERLAY_CORE])
    wanted = cluster_deploy.wanted(cluster, charts, [])
    images = kind_images.supply(cluster, tools).needed(wanted, tier.helm)
    basics, name = cluster_deploy.basics(cluster), cluster.name
    made.invoke("kind.down", "--no-backup", "--yes", check=True)
    kubeconfig, file = made.home / "by-hand", made.home / "by-hand.yaml"
    file.write_text(config, encoding="utf-8")
    for directory in ("node", "volumes"):
        (made.home / "kind" / directory).mkdir(parents=True, exist_ok=True)
    environment = {**made.env, **tools.kind_environment(kubeconfig)}
    began = time.perf_counter()
    try:
        _run(kind_cli.create(tools.kind.path, name, file, kubeconfig), environment)
        _run(kind_cli.load(tools.kind.path, name, images), environment)
        _run([tools.kubectl.path, "--kubeconfig", str(kubeconfig), "apply", "-f", "-"], environment, basics)
        _helm(tools.helm.path, kubeconfig, wanted, environment)
        return time.perf_counter() - began
    finally:
        _run(kind_cli.delete(tools.kind.path, name, kubeconfig), environment)


def _helm(program: str, kubeconfig: Path, wanted: Sequence[releases.Wanted], env: Mapping[str, str]) -> None:
    from infra.kube.helm_cli import Deploy, Helm

    helm = Helm(program, 4, kubeconfig)

    def install(one: releases.Wanted) -> None:
        deploy = Deploy(one.name, one.deploy.chart, one.deploy.namespace, values=one.deploy.values)
        _run([*helm.upgrade(deploy), "--wait=watcher"], env, one.stdin)

    first = [w for w in wanted if not w.chart.needs]
    with ThreadPoolExecutor() as pool:
        list(pool.map(install, first))
    for one in wanted:
        if one not in first:
            install(one)


def _context(env: Mapping[str, str]) -> Context:
    loaded = settings.load(environ=env)
    return Context(loaded, stack.of(loaded), Console())


def _run(argv: Sequence[str], env: Mapping[str, str], stdin: str = "") -> None:
    subprocess.run(list(argv), env=dict(env), input=stdin, text=True, check=True, capture_output=True)
