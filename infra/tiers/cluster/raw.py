"""Objects that `kubectl apply` has put into the cluster, before Helm took over or beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from infra import catalog, shell
from infra.kube.api import Api, NoAnswer
from infra.kube.kubectl_cli import OWNER, Kubectl
from infra.kube.snapshot import RELEASE, Object, metadata
from infra.tiers.cluster.target import Target

KINDS: Mapping[str, str] = {
    "deployment": "/apis/apps/v1/namespaces/{}/deployments",
    "statefulset": "/apis/apps/v1/namespaces/{}/statefulsets",
    "daemonset": "/apis/apps/v1/namespaces/{}/daemonsets",
    "cronjob": "/apis/batch/v1/namespaces/{}/cronjobs",
    "job": "/apis/batch/v1/namespaces/{}/jobs",
    "ingress": "/apis/networking.k8s.io/v1/namespaces/{}/ingresses",
    "service": "/api/v1/namespaces/{}/services",
    "configmap": "/api/v1/namespaces/{}/configmaps",
    "secret": "/api/v1/namespaces/{}/secrets",
}
"""Kinds that raw manifests make, in the order of their removal; volumes' claims are not among them: they hold data."""
APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


@dataclass(frozen=True)
class Raw:
    """An object, as kubectl names it: `deployment/backend`."""

    namespace: str
    name: str


def find(cluster: Target) -> list[Raw]:
    """Return every object in the platform's namespaces that kubectl has applied and that is no part of a release."""
    with cluster.connected() as api:
        return [thing for namespace in catalog.NAMESPACES for thing in _in(api, namespace)]


def _in(api: Api, namespace: str) -> list[Raw]:
    found = []
    for kind, path in KINDS.items():
        try:
            things = api.items(path.format(namespace))
        except NoAnswer as error:
            if error.status == 404:
                continue
            raise
        found += [Raw(namespace, f"{kind}/{metadata(thing)['name']}") for thing in things if is_raw(thing)]
    return found


def is_raw(thing: Object) -> bool:
    """Return whether kubectl has applied it, at the client's or the server's side, and neither Helm nor we have."""
    about: dict[str, Any] = metadata(thing)
    if about.get("ownerReferences") or RELEASE in (about.get("annotations") or {}):
        return False
    if (about.get("labels") or {}).get("app.kubernetes.io/managed-by") == "Helm":
        return False
    managers = [m for m in about.get("managedFields") or [] if m.get("operation") == "Apply"]
    server_side = any(str(m.get("manager", "")).startswith("kubectl") for m in managers)
    ours = any(m.get("manager") == OWNER for m in managers)
    return not ours and (APPLIED in (about.get("annotations") or {}) or server_side)


def remove(kubectl: Kubectl, found: Sequence[Raw]) -> None:
    """Remove them, namespace by namespace."""
    for namespace in dict.fromkeys(thing.namespace for thing in found):
        names = [thing.name for thing in found if thing.namespace == namespace]
        shell.run(kubectl.delete(names, namespace), limit=180)
