"""A new site file, written from what its cluster has: uid, version, storage, routes, GPUs, operators."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.errors import PlatformError
from infra.kube.api import NoAnswer
from infra.prod.cluster import Cluster, uid_of

GPUS = ("nvidia.com/gpu", "amd.com/gpu", "gpu.intel.com/i915")
DEFAULT = "storageclass.kubernetes.io/is-default-class"
OPERATORS = ("postgresql.cnpg.io/v1", "barmancloud.cnpg.io/v1")


@dataclass(frozen=True)
class ClusterFacts:
    """Features of a cluster; names are empty where it has none."""

    uid: str
    version: str
    storage: str
    zones: int
    gateway: str
    ingress: str
    gpu: str
    operators: bool
    external_secrets: bool


def look(cluster: Cluster) -> ClusterFacts:
    """Ask a cluster what it has; nothing is changed.

    Raises:
        PlatformError: CONTEXT_REFUSED, UNREACHABLE, LOGIN_REFUSED.
    """
    uid, version = uid_of(cluster), cluster.get("/version")
    nodes = _items(cluster, "/api/v1/nodes")
    classes = _items(cluster, "/apis/storage.k8s.io/v1/storageclasses")
    gateways = _items(cluster, "/apis/gateway.networking.k8s.io/v1/gateways")
    ingresses = _items(cluster, "/apis/networking.k8s.io/v1/ingressclasses")
    zones = {(n["metadata"].get("labels") or {}).get("topology.kubernetes.io/zone") for n in nodes} - {None}
    capacity = {name for n in nodes for name in (n.get("status") or {}).get("capacity") or {}}
    return ClusterFacts(
        uid,
        f"{version.get('major', '1')}.{str(version.get('minor', '34')).rstrip('+')}",
        _preferred(classes),
        max(len(zones), 1),
        next((f"{g['metadata']['namespace']}/{g['metadata']['name']}" for g in gateways), ""),
        next((i["metadata"]["name"] for i in ingresses), ""),
        next((name for name in GPUS if name in capacity), ""),
        all(_there(cluster, group) for group in OPERATORS),
        _there(cluster, "external-secrets.io/v1"),
    )


def _items(cluster: Cluster, path: str) -> list[dict[str, Any]]:
    try:
        return cluster.items(path)
    except NoAnswer:
        return []


def _there(cluster: Cluster, group: str) -> bool:
    try:
        return bool(cluster.get(f"/apis/{group}").get("resources"))
    except NoAnswer:
        return False


def _preferred(classes: list[dict[str, Any]]) -> str:
    """Return the default class, else the first."""
    marked = [c for c in classes if (c["metadata"].get("annotations") or {}).get(DEFAULT) == "true"]
    return next((str(c["metadata"]["name"]) for c in (*marked, *classes)), "")


def text(name: str, context: str, found: ClusterFacts) -> str:
    """Write the site file; what only its owner knows stands there as `CHANGE-ME`."""
    import yaml

    parts = dict(_parts(name, context, found))
    body = "\n".join(str(yaml.safe_dump({k: v}, sort_keys=False, width=120)).rstrip() for k, v in parts.items())
    head = f"# Written by prod.init from what the cluster has. Replace every CHANGE-ME, then: invoke prod.check {name}"
    return f"{head}\n{body}\n"


def _parts(name: str, context: str, found: ClusterFacts) -> Iterator[tuple[str, Any]]:
    yield "site", name
    yield "cluster", {"context": context, "uid": found.uid, "version": found.version}
    yield "size", "small"
    yield "images", {"backend": "CHANGE-ME/platform-backend:1.0.0", "frontend": "CHANGE-ME/platform-frontend:1.0.0"}
    yield "route", _route(found)
    yield "storage", {"class": found.storage or "CHANGE-ME", "zones": found.zones}
    yield (
        "secrets",
        {"from": "external-secrets", "store": "CHANGE-ME"} if found.external_secrets else {"from": "kubernetes"},
    )
    yield "operators", "present" if found.operators else "install"
    yield (
        "postgres",
        {"engine": "cloudnativepg", "size": "100Gi", "wal": "20Gi", "backup": {"to": "s3://CHANGE-ME/platform"}},
    )
    yield "redis", {"engine": "single"}
    yield "s3", {"endpoint": "https://CHANGE-ME", "region": "us-east-1", "bucketPrefix": "CHANGE-ME-"}
    yield "temporal", {"engine": "single", "shards": 512}
    yield "observability", {"engine": "none"}
    if found.gpu:
        yield "training", {"class": {"resource": found.gpu, "count": 1}}


def _route(found: ClusterFacts) -> Mapping[str, Any]:
    if found.gateway:
        about = {"kind": "gateway", "parent": found.gateway, "from": found.gateway.partition("/")[0]}
        return {**about, "host": "CHANGE-ME", "login": {"gateway": True}}
    if found.ingress:
        about = {"kind": "ingress", "class": found.ingress, "issuer": "CHANGE-ME", "from": "CHANGE-ME"}
        return {**about, "host": "CHANGE-ME", "login": {"annotations": {"CHANGE-ME": "CHANGE-ME"}}}
    return {"kind": "none"}


def write(path: Path, content: str) -> None:
    """Write a new site file; one that is there is never replaced. Raises PlatformError USAGE, STATE_UNWRITABLE."""
    try:
        with path.open("x", encoding="utf-8", newline="\n") as file:
            file.write(content)
    except FileExistsError as error:
        raise PlatformError("USAGE", f"{path} is there already", steps=("choose another name, or edit it",)) from error
    except OSError as error:
        raise PlatformError("STATE_UNWRITABLE", f"{path} cannot be written", why=str(error)) from error
