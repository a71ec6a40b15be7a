"""Objects as they are rendered, each right in every way; tests break one of them."""

from __future__ import annotations

from typing import Any

Object = dict[str, Any]
DIGEST = "sha256:" + "a" * 64


def container(**more: Any) -> Object:
    return {
        "name": "server",
        "image": f"acme/server:1@{DIGEST}",
        "resources": {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"memory": "1Gi"}},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        **more,
    }


def pod(*containers: Object, **spec: Any) -> Object:
    context = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    inner = {"securityContext": context, "containers": list(containers or (container(),)), **spec}
    return {"metadata": {"labels": {"app": "server"}}, "spec": inner}


def spread(**more: Any) -> Object:
    return {"topologySpreadConstraints": [{"maxSkew": 1}], **more}


def deployment(template: Object | None = None, replicas: int = 2, **spec: Any) -> Object:
    about = {"name": "server", "namespace": "platform"}
    body = {"replicas": replicas, "template": template or pod(**spread()), **spec}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": about, "spec": body}


def job(**spec: Any) -> Object:
    about = {"name": "schema-0123", "namespace": "platform"}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": about, "spec": {"template": pod(), **spec}}


def thing(kind: str, spec: Object | None = None, api: str = "v1", **about: Any) -> Object:
    found: Object = {"apiVersion": api, "kind": kind, "metadata": {"name": "it", "namespace": "platform", **about}}
    return found | ({"spec": spec} if spec is not None else {})


def cluster(**spec: Any) -> Object:
    body = {
        "instances": 3,
        "imageName": f"acme/postgresql:18@{DIGEST}",
        "resources": {"limits": {"memory": "1Gi"}},
        "affinity": {"enablePodAntiAffinity": True, "podAntiAffinityType": "required"},
        "plugins": [{"name": "barman", "isWALArchiver": True}],
        "postgresql": {
            "synchronous": {"method": "any", "number": 1, "dataDurability": "required"},
            "parameters": {"max_connections": "400"},
            "pg_hba": ["hostnossl all all all reject"],
        },
    }
    return thing("Cluster", {**body, **spec}, "postgresql.cnpg.io/v1", name="postgresql")


def policy(name: str = "server", ports: tuple[int, ...] = (80,), labels: Object | None = None) -> Object:
    spec = {
        "podSelector": {"matchLabels": labels or {"app": "server"}},
        "policyTypes": ["Ingress"],
        "ingress": [{"from": [{"podSelector": {}}], "ports": [{"port": p} for p in ports]}],
    }
    return thing("NetworkPolicy", spec, "networking.k8s.io/v1", name=name)
