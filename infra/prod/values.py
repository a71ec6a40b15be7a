"""Which releases a site has, in which waves, and the values of each: what values-production.yaml leaves open."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from infra import catalog
from infra.prod import sizes
from infra.prod.site import Site

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
"""What brings definitions to the cluster that the waves after it use."""
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


def values(site: Site, release: str) -> Values:
    """Return the values of a release; {} where its values-production.yaml says everything."""
    made = _OF.get(release)
    found = made(site) if made else {}
    if release in {r for w in OWN for r in w.releases} and site.part("images").get("pullSecret"):
        found["imagePullSecrets"] = [{"name": site.part("images")["pullSecret"]}]
    return found


def _postgresql(site: Site) -> Values:
    said, size = site.part("postgres"), sizes.of(site.says)
    if said["engine"] == "external":
        where = {"host": said["host"], "port": said.get("port", 5432)}
        return {"engine": "external", "external": {**where, "sslmode": "verify-full", "caConfigMap": said["ca"]}}
    return {
        "persistence": {"size": said["size"], "storageClass": _storage(site)},
        "resources": dict(size.postgres),
        "parameters": {"max_connections": str(size.connections), "shared_buffers": size.buffers},
        "cloudnativepg": {
            "instances": said.get("instances", 3),
            "walSize": said.get("wal", ""),
            "podMonitor": site.engine("observability") != "none",
            "image": {"ref": said.get("image", "")},
            "runAsUser": said.get("user"),
            **_archive(said),
        },
    }


def _archive(said: Mapping[str, Any]) -> Values:
    """Where PostgreSQL archives to, as whom, under which name, and what it was made from."""
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
    """Where clients find PostgreSQL: by the name that its certificate has."""
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
    size, images, s3 = sizes.of(site.says), site.part("images"), site.part("s3")
    part = {"replicas": size.replicas}
    return {
        "backend": {**part, "image": {"ref": images["backend"]}, "resources": dict(size.app)},
        "frontend": {**part, "image": {"ref": images["frontend"]}},
        "worker": {**part, "resources": dict(size.app)},
        "training": {"gpus": site.part("training").get("class", {}).get("count", 0)},
        "storage": {"externalEndpoint": s3["endpoint"], "internalEndpoint": s3["endpoint"]},
        "ingress": _ingress(site),
        "signing": {"existingSecret": "platform-signing"},
    }


def _ingress(site: Site) -> Values:
    route = site.part("route")
    if route["kind"] != "ingress":
        return {"enabled": False}
    annotations = {"cert-manager.io/cluster-issuer": route["issuer"], **route.get("login", {}).get("annotations", {})}
    return {"enabled": True, "className": route["class"], "host": route["host"], "annotations": annotations}


def _storage(site: Site) -> str:
    return str(site.part("storage").get("class", ""))


_OF: Mapping[str, Callable[[Site], Values]] = {
    "postgresql": _postgresql,
    "redis": _redis,
    "minio": _minio,
    "temporal": _temporal,
    "mlflow": _mlflow,
    "platform": _platform,
}
