"""From a cluster that runs to releases that are ready: what comes before the first one, Helm, the wait."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from infra import catalog, rows, shell
from infra.errors import PlatformError
from infra.kube import releases, snapshot
from infra.kube.api import Api, NoAnswer, Object
from infra.kube.helm_cli import Helm
from infra.kube.kubectl_cli import Kubectl
from infra.kube.releases import Deployed, Wanted
from infra.kube.rollout import Rollout
from infra.tiers.cluster import overrides
from infra.tiers.cluster.target import Target
from infra.waiting import Wait

SYSTEM = "kube-system"
NOTE = "platform-cluster"
"""A ConfigMap that says which stack the cluster belongs to and what it was made from."""


def prepare(cluster: Target, kubectl: Kubectl) -> None:
    """Apply namespaces, the target's own manifests and our note; a cluster that has them already is not asked."""
    text = basics(cluster)
    mark = releases.fingerprint(Path("/nonexistent"), text, cluster.record.get("nodes") or ())
    if cluster.record.get("prepared") == mark:
        return
    shell.run(kubectl.apply_text(), stdin=text, limit=60)
    cluster.remember(prepared=mark)


def basics(cluster: Target) -> str:
    """Render the manifests that every cluster gets first."""
    made: list[object] = [_namespace(name) for name in catalog.NAMESPACES]
    made += cluster.manifests()
    data = {"stack": cluster.context.stack.name, "fingerprint": str(cluster.record.get("fingerprint", ""))}
    about = {"name": NOTE, "namespace": SYSTEM}
    made.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": about, "data": data})
    return "---\n".join(json.dumps(entry) + "\n" for entry in made)


def _namespace(name: str) -> dict[str, object]:
    about: dict[str, object] = {"name": name}
    if name == catalog.TRAINING_NAMESPACE:  # its pods are code of users, with the image that they name
        about["labels"] = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": about}


def wanted(cluster: Target, charts: Sequence[rows.Chart], services: Sequence[str]) -> list[Wanted]:
    """Return the releases wanted on this cluster, each with the services that it runs."""
    known, profile = overrides.overrides(cluster), cluster.profile
    return [releases.wanted(c, cluster.settings, services, known.get(c.release, ()), profile) for c in charts]


def deployed(api: Api) -> dict[str, Deployed]:
    """Return the releases that Helm has in the cluster. Raises NoAnswer."""
    return releases.deployed(api.items("/api/v1/secrets", labelSelector="owner=helm"))


def outdated(cluster: Target, services: Sequence[str]) -> list[str]:
    """Return the services whose releases differ from what this checkout would deploy; [] where the cluster is away."""
    with contextlib.suppress(NoAnswer, PlatformError), cluster.connected() as api:
        there = _untouched(cluster, deployed(api))
        asked = wanted(cluster, releases.of_services(services), services)
        old = [w.name for w in asked if not _as_wanted(w, there.get(w.name))]
        return [name for name in services if releases.RELEASES_OF[name] in old]
    return []


def _as_wanted(wanted: Wanted, known: Deployed | None) -> bool:
    return known is not None and known.status == "deployed" and known.fingerprint == wanted.fingerprint


@dataclass(frozen=True)
class DeployOutcome:
    """The outcome of a deployment: releases that were changed, and whether any had to be waited for."""

    changed: list[str]
    waited: bool


class Hooks:
    """Steps of one kind of cluster around a deployment; none where nodes pull their images by themselves."""

    def before(self, wanted: Sequence[Wanted]) -> None:
        """Prepare for the deployment, before anything is changed."""

    def held(self, _release: str) -> str:
        """Tell why a release cannot start yet, or '' when it can."""
        return ""

    def outdated(self, _pod: Object) -> str:
        """Name the image of which a pod runs an earlier build, or ''."""
        return ""

    def after(self, api: Api) -> None:
        """Finish, when all releases are ready."""

    def stop(self) -> None:
        """End what is still under way; called at the end, whatever has happened."""


def deploy(
    cluster: Target,
    kubectl: Kubectl,
    helm: Helm,
    wanted: Sequence[Wanted],
    timeout: float | None,
    hooks: Hooks | None = None,
) -> DeployOutcome:
    """Bring releases to what is wanted and wait until all are ready.

    Raises:
        PlatformError: SERVICE_FAILED or WAIT_TIMEOUT with the reason, the last lines of the pod and its events.
    """
    hooks = hooks or Hooks()
    try:
        with cluster.connected() as api:
            there = _untouched(cluster, deployed(api))
            hooks.before(wanted)
            rollout = Rollout(
                api,
                helm,
                wanted,
                there,
                cluster.context.console,
                cluster.home / "trouble",
                busy=_busy(cluster),
                kubectl=kubectl,
                held=hooks.held,
                earlier=hooks.outdated,
            )
            _follow(cluster, rollout, timeout)
            if rollout.changed:
                _note_revisions(cluster, api, rollout.changed)
            hooks.after(api)
    finally:
        hooks.stop()
    return DeployOutcome(rollout.changed, rollout.waited)


def _untouched(cluster: Target, there: Mapping[str, Deployed]) -> dict[str, Deployed]:
    """Return the releases, without our mark on those changed by others since: Helm itself passes labels on."""
    known = cluster.record.get("revisions") or {}
    return {n: d if known.get(n, d.revision) == d.revision else replace(d, fingerprint="") for n, d in there.items()}


def _note_revisions(cluster: Target, api: Api, names: Sequence[str]) -> None:
    there = deployed(api)
    known = cluster.record.get("revisions") or {}
    cluster.remember(revisions={**known, **{n: there[n].revision for n in names if n in there}})


def watch(
    cluster: Target,
    kubectl: Kubectl,
    helm: Helm,
    charts: Sequence[rows.Chart],
    timeout: float | None,
    hooks: Hooks | None = None,
) -> None:
    """Wait for releases as they are in the cluster, whatever they were made from. Raises as `deploy`."""
    hooks = hooks or Hooks()
    with cluster.connected() as api:
        there = deployed(api)
        as_they_are = [
            releases.Wanted(w.chart, w.deploy, w.stdin, there[w.name].fingerprint)
            for w in wanted(cluster, charts, ())
            if w.name in there
        ]
        console, notes = cluster.context.console, cluster.home / "trouble"
        rollout = Rollout(api, helm, as_they_are, there, console, notes, kubectl=kubectl, earlier=hooks.outdated)
        _follow(cluster, rollout, timeout)
        _note_revisions(cluster, api, [w.name for w in as_they_are])


def with_earlier_builds(cluster: Target, hooks: Hooks) -> list[rows.Chart]:
    """Return the sound releases of which a pod runs an earlier build of its image than its node has by now."""
    with cluster.connected() as api:
        found, there = snapshot.take(api, events=False), deployed(api)
    good = {name for name, release in there.items() if release.status == "deployed"}
    every = [c for c in (*catalog.UPSTREAM_CHARTS, *catalog.CHARTS) if c.release in good]
    return [c for c in every if any(map(hooks.outdated, found.of_release(c.release, c.namespace).pods))]


def _busy(cluster: Target) -> Callable[[], bool]:
    """Ask whether a helm run on this cluster goes on with no process waiting for it."""

    def asked() -> bool:
        import os

        import psutil

        for process in psutil.process_iter(["cmdline", "ppid"]):
            words = process.info["cmdline"] or []
            if str(cluster.kubeconfig) in words and process.info["ppid"] != os.getpid() and "helm" in words[0]:
                return True
        return False

    return asked


def _follow(cluster: Target, rollout: Rollout, timeout: float | None) -> None:
    try:
        again = cluster.commands.up
        Wait(cluster.context.console, rollout.poll, timeout, again, sleep=lambda _: time.sleep(0.3)).until_ready()
    except PlatformError as error:
        name = str(error.details.get("service", ""))
        if error.code not in ("SERVICE_FAILED", "WAIT_TIMEOUT") or not name:
            raise
        if "schema" in error.why:
            raise releases.misfit(name, error.why) from error
        report = (cluster.commands.report,) if cluster.commands.report else ()
        steps = (f"invoke helm.status {name}", *report, f"then: {cluster.commands.up}")
        what = f"the release {error.what}"
        raise PlatformError(error.code, what, why=error.why, steps=steps, details=error.details) from error
    finally:
        rollout.stop()
