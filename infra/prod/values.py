"""The releases of a site, their waves, and the values of each: what values-production.yaml leaves open."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from infra import catalog
from infra.prod import sizes
from infra.prod.rules.access import LOGIN
from infra.prod.site import POSTGRESQL, Site

Values = dict[str, Any]


@dataclass(frozen=True)
class Wave:
    """Releases that are applied together, once everything of the waves before is ready."""

    name: str
    releases: tuple[str, ...]


OPERATORS: tuple[Wave, ...] = (
    Wave("10-certificates", ("cert-manager",)),
    Wave("11-monitoring", ("kube-prometheus-stack",)),
    Wave("12-postgresql-operator", ("cloudnative-pg",)),
    Wave("13-backup-plugin", ("plugin-barman-cloud",)),
)
"""Releases that bring definitions to the cluster which the waves after them use."""
OWN: tuple[Wave, ...] = (
    Wave("20-data", ("postgresql", "redis", "minio")),
    Wave("30-services", ("temporal", "mlflow")),
    Wave("40-applications", ("platform",)),
    Wave("50-observability", ("observability", "loki", "alloy")),
)
BASE = Wave("00-base", ())
"""Namespaces and what holds for all that is in them."""


def waves(site: Site) -> tuple[Wave, ...]:
    """Return the waves of a site with the releases that it has; waves without any are left out."""
    there = set(releases(site))
    found = (Wave(w.name, tuple(r for r in w.releases if r in there)) for w in (*OPERATORS, *OWN))
    return (BASE, *(w for w in found if w.releases))


def releases(site: Site) -> tuple[str, ...]:
    """Return the releases of a site."""
    found = ["postgresql", "redis", "temporal", "mlflow", "platform"]
    found += ["minio"] if site.part("s3").get("createBuckets") else []
    watched = site.engine("observability") != "none"
    found += ["observability"] if watched else []
    if site.says.get("operators") == "install":
        found += ["kube-prometheus-stack", "loki", "alloy"] if watched else []
        found += ["cert-manager", "cloudnative-pg", "plugin-barman-cloud"] * (site.engine("postgres") != "external")
    return tuple(found)


_OWN = frozenset(c.release for c in catalog.CHARTS)


def values(site: Site, release: str) -> Values:
    """Return the values of a release; {} where its values-production.yaml says everything."""
    made = _OF.get(release)
    found = made(site) if made else {}
    if release in {r for w in OWN for r in w.releases} and site.part("images").get("pullSecret"):
        found["imagePullSecrets"] = [{"name": site.part("images")["pullSecret"]}]
    # Who may connect to whom is in one place: infra.prod.network.
    found |= {"networkPolicy": {"enabled": False}} if release in _OWN else {}
    return found


def _postgresql(site: Site) -> Values:
    said, size = site.part("postgres"), sizes.of(site.says)
    if said["engine"] == "external":
        where = {"host": said["host"], "port": said.get("port", 5432)}
        return {"engine": "external", "external": {**where, "sslmode": "verify-full", "caConfigMap": said["ca"]}}
    return {
        "fullnameOverride": site.postgresql,
        "persistence": {"size": said["size"], "storageClass": _storage(site)},
        "resources": dict(size.postgres),
        "parameters": {"max_connections": str(size.connections), "shared_buffers": size.buffers},
        "cloudnativepg": {
            "serviceName": POSTGRESQL,
            "instances": said.get("instances", 3),
            "walSize": said.get("wal", ""),
            "podMonitor": site.engine("observability") != "none",
            "image": {"ref": said.get("image", "")},
            "runAsUser": said.get("user"),
            **_archive(said),
        },
    }


def _archive(said: Mapping[str, Any]) -> Values:
    """Make the values of the archive: where PostgreSQL archives to, as whom, under which name, and its origin."""
    backup, recovery = said["backup"], said.get("recovery", {})
    role = backup.get("identity") == "role"
    return {
        "serverName": recovery.get("as", ""),
        "recovery": {"server": recovery.get("server", ""), "targetTime": recovery.get("to", "")},
        "serviceAccountAnnotations": dict(backup.get("annotations", {})) if role else {},
        "backup": {
            "destinationPath": backup["to"],
            "endpointURL": backup.get("endpoint", ""),
            "retentionPolicy": backup.get("retention", "30d"),
            "inheritFromRole": role,
            "existingSecret": "" if role else "postgresql-backup",
        },
    }


def _redis(site: Site) -> Values:
    said, size = site.part("redis"), sizes.of(site.says)
    if said["engine"] == "external":
        return {"engine": "external", "external": {"host": said["host"], "port": said.get("port", 6379)}}
    return {
        "persistence": {"size": said.get("size", "20Gi"), "storageClass": _storage(site)},
        "parameters": {"maxmemory": size.redis_memory},
        "resources": dict(size.redis),
    }


def _minio(site: Site) -> Values:
    said = site.part("s3")
    names = [f"{said['bucketPrefix']}{b.name}" for b in (*catalog.BUCKETS, *catalog.OBS_BUCKETS)]
    where = {"external": {"endpoint": said["endpoint"]}, "region": said.get("region", "us-east-1")}
    return {**where, "buckets": {"names": names}}


def _temporal(site: Site) -> Values:
    said, size = site.part("temporal"), sizes.of(site.says)
    if said["engine"] == "external":
        return {"engine": "external", "external": {"host": said["host"], "port": said.get("port", 7233)}}
    return {
        "replicas": size.temporal,
        "historyShards": said["shards"],
        "resources": dict(size.server),
        "database": {"maxConnections": size.pool, **_database(site)},
    }


def _database(site: Site) -> Values:
    """Make the address at which clients find PostgreSQL: by the name that its certificate has."""
    said = site.part("postgres")
    if said["engine"] == "external":
        return {"host": said["host"], "port": said.get("port", 5432), "caConfigMap": said["ca"]}
    return {}


def _mlflow(site: Site) -> Values:
    said, size = site.part("s3"), sizes.of(site.says)
    role = said.get("identity") == "role"
    return {
        "replicas": size.replicas,
        "resources": dict(size.mlflow),
        "database": _database(site),
        "artifacts": {
            "bucket": f"{said['bucketPrefix']}mlflow-artifacts",
            "endpoint": said["endpoint"],
            "region": said.get("region", "us-east-1"),
            "identity": dict(said.get("annotations", {})) if role else {},
            "existingSecret": "" if role else "object-store",
        },
    }


def _platform(site: Site) -> Values:
    size, images = sizes.of(site.says), site.part("images")
    part, route = {"replicas": size.replicas}, site.part("route")
    return {
        "backend": {**part, "image": {"ref": images["backend"]}, "resources": dict(size.app)},
        "frontend": {**part, "image": {"ref": images["frontend"]}},
        "worker": {**part, "resources": dict(size.app)},
        "training": _training(site),
        **_notify(site),
        "storage": _buckets(site),
        "database": {"caConfigMap": site.part("postgres").get("ca", "postgresql-ca")},
        "ingress": _ingress(site) if route["kind"] == "ingress" else {"enabled": False},
        "route": _gateway(site) if route["kind"] == "gateway" else {"enabled": False},
    }


def _training(site: Site) -> Values:
    said, size = site.part("training").get("class", {}), sizes.of(site.says)
    found: Values = {"gpus": said.get("count", 0)} if said else {}
    gpu = {"resource": said.get("resource", "nvidia.com/gpu"), "nodeSelector": dict(said.get("nodeSelector", {}))}
    found |= {"gpu": {**gpu, "tolerations": list(said.get("tolerations", []))}} if said else {}
    found |= {"resources": dict(size.training)} if size.training else {}
    role = site.part("s3").get("identity") == "role"
    return found | ({"identity": dict(site.part("s3")["annotations"])} if role else {})


def _notify(site: Site) -> Values:
    """Name the Secret with what is called at the end of a training; without one nothing is."""
    secret = site.part("training").get("notify", "")
    return {"notify": {"existingSecret": secret}} if secret else {}


def _buckets(site: Site) -> Values:
    said = site.part("s3")
    where = {"externalEndpoint": said["endpoint"], "internalEndpoint": said["endpoint"]}
    where |= {"bucketPrefix": said["bucketPrefix"], "region": said.get("region", "us-east-1")}
    return where | ({"identity": dict(said["annotations"])} if said.get("identity") == "role" else {})


def _ingress(site: Site) -> Values:
    route = site.part("route")
    asked = route.get("login", {}).get("annotations", {})
    annotations = {"cert-manager.io/cluster-issuer": route["issuer"], **asked, **_login(site)}
    return {"enabled": True, "className": route["class"], "host": route["host"], "annotations": annotations}


def _gateway(site: Site) -> Values:
    route = site.part("route")
    namespace, _, name = route["parent"].partition("/")
    found = {"enabled": True, "parent": name, "parentNamespace": namespace, "host": route["host"]}
    return {**found, "annotations": _login(site), "filters": _filters(route.get("login", {}).get("filter", ""))}


def _filters(named: str) -> list[Values]:
    """Make the filter that asks for a login, from group/Kind/name."""
    if not named:
        return []
    group, kind, name = named.split("/")
    return [{"type": "ExtensionRef", "extensionRef": {"group": group, "kind": kind, "name": name}}]


def _login(site: Site) -> dict[str, str]:
    """Say on the route who asks people for a login; prod.check demands it."""
    route = site.part("route")
    return {LOGIN: "public" if route.get("public") else next(iter(route["login"]))}


def _stack(site: Site) -> Values:
    """Make the values of kube-prometheus-stack: who is called; no alarm about unseen parts of the control plane."""
    said = site.part("observability")
    unseen = ("kubeControllerManager", "kubeScheduler", "kubeEtcd", "kubeProxy")
    found: Values = {"alertmanager": {"alertmanagerSpec": {"useExistingSecret": True, "configSecret": said["pager"]}}}
    managed = said.get("controlPlane", "managed") == "managed"
    return found | ({part: {"enabled": False} for part in unseen} if managed else {})


def _storage(site: Site) -> str:
    return str(site.part("storage").get("class", ""))


_OF: Mapping[str, Callable[[Site], Values]] = {
    "postgresql": _postgresql,
    "redis": _redis,
    "minio": _minio,
    "temporal": _temporal,
    "mlflow": _mlflow,
    "platform": _platform,
    "kube-prometheus-stack": _stack,
}
