"""A rendered site for Argo CD or Flux: what makes them apply the same folders, one wave after the other.

Both only ever add and change: nothing is pruned, since what a site no longer names may hold data.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from infra.errors import PlatformError
from infra.prod.render import GITOPS, Rendered

Object = dict[str, Any]


@dataclass(frozen=True)
class Repository:
    """A Git repository that holds the rendered folders: its address, the branch or tag, and the path inside it."""

    url: str
    revision: str
    path: str

    def folder(self, wave: str) -> str:
        """Return the path of a wave's folder."""
        return "/".join(part for part in (self.path.strip("./"), wave) if part)


def files(rendered: Rendered, kind: str, repository: Repository) -> dict[str, list[Object]]:
    """Return the objects for a controller, by the name of their file.

    Raises:
        PlatformError: USAGE for a controller that is not known, or without a repository.
    """
    if kind not in KINDS:
        raise PlatformError("USAGE", f"--gitops {kind} is not known", steps=(f"use one of {', '.join(KINDS)}",))
    if not repository.url:
        steps = ("add --repository https://git.example.com/acme/sites.git",)
        raise PlatformError("USAGE", "--gitops needs the repository that holds what is rendered", steps=steps)
    return {f"{GITOPS}/{kind}.yaml": KINDS[kind](rendered.site.name, list(rendered.waves), repository)}


def _argocd(site: str, waves: Sequence[str], repository: Repository) -> list[Object]:
    """Make an Application for each wave. Their order is kept by an Application over this folder.

    Argo CD waits for the health of an Application only with its health check in argocd-cm:
    https://argo-cd.readthedocs.io/en/stable/operator-manual/health/#argocd-app
    """
    return [_application(site, place, wave, repository) for place, wave in enumerate(waves)]


def _application(site: str, place: int, wave: str, repository: Repository) -> Object:
    source = {"repoURL": repository.url, "targetRevision": repository.revision, "path": repository.folder(wave)}
    policy = {
        "automated": {"prune": False, "selfHeal": False},
        "syncOptions": ["ServerSideApply=true", "CreateNamespace=false", "Prune=false"],
        "retry": {"limit": 5, "backoff": {"duration": "30s", "factor": 2, "maxDuration": "10m"}},
    }
    about = {
        "name": f"{site}-{wave}",
        "namespace": "argocd",
        "annotations": {"argocd.argoproj.io/sync-wave": str(place)},
    }
    there = {"server": "https://kubernetes.default.svc", "namespace": "default"}
    spec = {"project": "default", "source": source, "destination": there, "syncPolicy": policy}
    return {"apiVersion": "argoproj.io/v1alpha1", "kind": "Application", "metadata": about, "spec": spec}


def _flux(site: str, waves: Sequence[str], repository: Repository) -> list[Object]:
    """Make the repository and a Kustomization for each wave, which waits until the one before is ready."""
    about = {"name": site, "namespace": "flux-system"}
    spec = {"interval": "5m", "url": repository.url, "ref": {"branch": repository.revision}}
    source = {"apiVersion": "source.toolkit.fluxcd.io/v1", "kind": "GitRepository", "metadata": about, "spec": spec}
    before = (None, *waves)
    return [source, *(_kustomization(site, w, b, repository) for w, b in zip(waves, before, strict=False))]


def _kustomization(site: str, wave: str, before: str | None, repository: Repository) -> Object:
    about = {"name": f"{site}-{wave}", "namespace": "flux-system"}
    spec: Object = {
        "interval": "10m",
        "retryInterval": "1m",
        "timeout": "30m",
        "path": f"./{repository.folder(wave)}",
        "prune": False,
        "wait": True,
        "sourceRef": {"kind": "GitRepository", "name": site},
    }
    spec |= {"dependsOn": [{"name": f"{site}-{before}"}]} if before else {}
    return {
        "apiVersion": "kustomize.toolkit.fluxcd.io/v1",
        "kind": "Kustomization",
        "metadata": about,
        "spec": spec,
    }


KINDS: Mapping[str, Callable[[str, Sequence[str], Repository], list[Object]]] = {"argocd": _argocd, "flux": _flux}
"""Controllers that apply what a repository holds."""
