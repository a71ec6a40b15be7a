"""From a cluster that runs to releases that are ready: namespaces, storage class, images, Helm, the wait."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from infra import catalog, shell
from infra.errors import PlatformError
from infra.images import locked, references
from infra.kube import releases, snapshot
from infra.kube.api import Api, NoAnswer, unreachable
from infra.kube.helm_cli import Helm
from infra.kube.kubectl_cli import Kubectl
from infra.kube.releases import Deployed, Wanted
from infra.kube.rollout import Rollout
from infra.kube.tools import Tools
from infra.tiers.cluster import overrides
from infra.tiers.kind import data as kind_data
from infra.tiers.kind.cluster import Cluster
from infra.tiers.kind.convoy import Convoy
from infra.tiers.kind.images import Supply
from infra.waiting import Wait

SYSTEM = "kube-system"
MARKS = 40
"""Number of release states to remember whose images are in the nodes."""
NOTE = "platform-cluster"
"""A ConfigMap that says which stack the cluster belongs to and what it was made from."""


def prepare(cluster: Cluster, kubectl: Kubectl) -> None:
    """Namespaces, storage class and our note; nothing is asked of the cluster where it has them already."""
    text = basics(cluster)
    mark = releases.fingerprint(Path("/nonexistent"), text, cluster.record.get("nodes") or ())
    if cluster.record.get("prepared") == mark:
        return
    shell.run(kubectl.apply_text(), stdin=text, limit=60)
    cluster.remember(prepared=mark)


def basics(cluster: Cluster) -> str:
    """What every cluster gets first, as manifests."""
    import yaml

    made: list[object] = [_namespace(name) for name in catalog.NAMESPACES]
    made += list(
        yaml.safe_load_all((cluster.settings.root / "kind" / "storage-class.yaml").read_text(encoding="utf-8"))
    )
    data = {"stack": cluster.context.stack.name, "fingerprint": str(cluster.record.get("fingerprint", ""))}
    about = {"name": NOTE, "namespace": SYSTEM}
    made.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": about, "data": data})
    return "---\n".join(json.dumps(entry) + "\n" for entry in made)


def _namespace(name: str) -> dict[str, object]:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


def wanted(cluster: Cluster, charts: Sequence[catalog.Chart], services: Sequence[str]) -> list[Wanted]:
    """Releases as they shall be on this cluster, with those of the services that each of them runs."""
    known, kept = overrides.overrides(cluster), releases.KEPT_CLASS
    return [releases.wanted(c, cluster.settings, services, known.get(c.release, ()), kept) for c in charts]


def deployed(api: Api) -> dict[str, Deployed]:
    """The releases that Helm has in the cluster."""
    try:
        return releases.deployed(api.items("/api/v1/secrets", labelSelector="owner=helm"))
    except NoAnswer as error:
        raise unreachable(error) from error


@dataclass(frozen=True)
class Outcome:
    """What a deployment did: releases that were changed, and whether any had to be waited for."""

    changed: list[str]
    waited: bool


def deploy(
    cluster: Cluster,
    found: Tools,
    helm: Helm,
    wanted: Sequence[Wanted],
    timeout: float | None,
    shown: Sequence[Wanted] = (),
) -> Outcome:
    """Bring releases to what is wanted and wait until all are ready.

    Args:
        shown: what to render in their place, to learn which images they need.

    Raises:
        PlatformError: SERVICE_FAILED or WAIT_TIMEOUT with the reason, the last lines of the pod and its events.
    """
    api, convoy = cluster.api(), None
    try:
        there = _untouched(cluster, deployed(api))
        stale = [w for w in wanted if not _same(w, there.get(w.name))]
        known = list(cluster.record.get("imagesFor") or [])
        if stale or not set(_marks(wanted)) <= set(known):
            convoy = _images(cluster, found, helm, shown or wanted)
            convoy.begin()
        rollout = Rollout(
            api,
            helm,
            wanted,
            there,
            cluster.context.console,
            cluster.home / "trouble",
            busy=_busy(cluster),
            kubectl=Kubectl(found.kubectl.path, cluster.kubeconfig),
            held=convoy.held if convoy else lambda _: "",
        )
        _follow(cluster, rollout, timeout)
        if convoy:
            convoy.finish()
            cluster.remember(imagesFor=[*known, *_marks(wanted)][-MARKS:])
        if rollout.changed:
            _note_revisions(cluster, api, rollout.changed)
        _note_volumes(cluster, api)
    finally:
        api.close()
        if convoy:
            convoy.stop()
    return Outcome(rollout.changed, rollout.waited)


def _untouched(cluster: Cluster, there: Mapping[str, Deployed]) -> dict[str, Deployed]:
    """Releases, without our mark on those that somebody else has changed since: Helm itself passes labels on."""
    known = cluster.record.get("revisions") or {}
    return {n: d if known.get(n, d.revision) == d.revision else replace(d, fingerprint="") for n, d in there.items()}


def _note_revisions(cluster: Cluster, api: Api, names: Sequence[str]) -> None:
    there = deployed(api)
    known = cluster.record.get("revisions") or {}
    cluster.remember(revisions={**known, **{n: there[n].revision for n in names if n in there}})


def watch(cluster: Cluster, helm: Helm, chart: catalog.Chart, timeout: float | None) -> None:
    """Wait for a release as it is in the cluster, whatever it was made from. Raises as `deploy`."""
    api = cluster.api()
    try:
        there = deployed(api)
        as_they_are = [
            releases.Wanted(w.chart, w.deploy, w.stdin, there[w.name].fingerprint)
            for w in wanted(cluster, [chart], ())
            if w.name in there
        ]
        notes = cluster.home / "trouble"
        _follow(cluster, Rollout(api, helm, as_they_are, there, cluster.context.console, notes), timeout)
        _note_revisions(cluster, api, [chart.release])
    finally:
        api.close()


def _same(wanted: Wanted, known: Deployed | None) -> bool:
    return known is not None and known.status == "deployed" and known.fingerprint == wanted.fingerprint


def _marks(wanted: Sequence[Wanted]) -> list[str]:
    return sorted(w.fingerprint for w in wanted)


def supply(cluster: Cluster, found: Tools) -> Supply:
    """What brings images into the cluster's nodes."""
    memory = cluster.home / "images.json"
    nodes = cluster.nodes()
    known = locked(cluster.context.settings.root)
    console = cluster.context.console
    replaced = {reference: setting for setting, reference in references(cluster.settings).items()}
    return Supply(cluster.docker, found, cluster.name, nodes, memory, cluster.kubeconfig, console, known, replaced)


def _images(cluster: Cluster, found: Tools, helm: Helm, wanted: Sequence[Wanted]) -> Convoy:
    """The images of releases, on their way: those that need no other release first."""
    way = supply(cluster, found)
    of = way.needed_by(wanted, helm)
    every = list(dict.fromkeys(image for images in of.values() for image in images))
    return Convoy(way.plan(every), of, [w.name for w in wanted if not set(w.chart.needs) & set(of)])


def _busy(cluster: Cluster) -> Callable[[], bool]:
    """A question: does a run of Helm on our cluster go on that nobody waits for any more?"""

    def asked() -> bool:
        import os

        import psutil

        for process in psutil.process_iter(["cmdline", "ppid"]):
            words = process.info["cmdline"] or []
            if str(cluster.kubeconfig) in words and process.info["ppid"] != os.getpid() and "helm" in words[0]:
                return True
        return False

    return asked


def _follow(cluster: Cluster, rollout: Rollout, timeout: float | None) -> None:
    try:
        wait = Wait(cluster.context.console, rollout.poll, timeout, "invoke kind.up", sleep=lambda _: time.sleep(0.3))
        wait.until_ready()
    except NoAnswer as error:
        raise unreachable(error) from error
    except PlatformError as error:
        name = str(error.details.get("service", ""))
        if error.code not in ("SERVICE_FAILED", "WAIT_TIMEOUT") or not name:
            raise
        if "schema" in error.why:
            raise releases.misfit(name, error.why) from error
        steps = (
            f"invoke helm.status {name}",
            "invoke kind.logs collects a diagnostic report",
            "then: invoke kind.up",
        )
        what = f"the release {error.what}"
        raise PlatformError(error.code, what, why=error.why, steps=steps, details=error.details) from error
    finally:
        rollout.stop()


def _note_volumes(cluster: Cluster, api: Api) -> None:
    try:
        claims = snapshot.take(api, events=False).claims
    except NoAnswer:
        return
    found = kind_data.parse(claims)
    if found != kind_data.known(cluster):
        kind_data.remember(cluster, found)
