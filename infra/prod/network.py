"""Permitted connections: one table of flows, and the NetworkPolicies that allow these and nothing else.

Each namespace denies everything by default, in both directions; a flow opens the port of its target and lets its source
go there. `infra.prod.reach` computes from rendered policies who can reach whom, and compares it with this table.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from infra.prod.postgres import PART
from infra.prod.site import Site

Object = dict[str, Any]
NAME, COMPONENT = "app.kubernetes.io/name", "app.kubernetes.io/component"
GUARDED = ("platform", "temporal", "training")
"""Namespaces that deny everything by default."""


@dataclass(frozen=True)
class Peer:
    """One end of a flow: pods of a namespace by their labels (none: all of them), or addresses outside (`cidr`)."""

    name: str
    namespace: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    cidr: str = ""

    @property
    def selector(self) -> dict[str, Any]:
        """The labels as a selector; {} for all pods."""
        return {"matchLabels": dict(self.labels)} if self.labels else {}


@dataclass(frozen=True)
class Flow:
    """Connections that are allowed: from where, to where, to which TCP ports (none: to all)."""

    source: Peer
    target: Peer
    ports: tuple[int, ...]


def _pods(name: str, component: str, namespace: str = "platform") -> Peer:
    return Peer(f"{name}/{component}", namespace, ((NAME, name), (COMPONENT, component)))


POSTGRES = Peer("postgresql", "platform", ((PART, "postgresql"),))
REDIS, BUCKETS = _pods("redis", "server"), _pods("minio", "buckets")
TEMPORAL, WEB = _pods("temporal", "server", "temporal"), _pods("temporal", "web", "temporal")
TEMPORAL_SCHEMA = _pods("temporal", "schema", "temporal")
TEMPORAL_NAMESPACES = _pods("temporal", "namespaces", "temporal")
MLFLOW, MLFLOW_SCHEMA = _pods("mlflow", "server"), _pods("mlflow", "schema")
BACKEND, FRONTEND, WORKER = (_pods("platform", part) for part in ("backend", "frontend", "worker"))
SMOKE = _pods("platform", "smoke")
"""The pod of prod.smoke: a client as the backend is, and of the applications, too."""
DATABASES = _pods("postgresql", "databases")
TRAINING = _pods("training", "training", "training")
OBSERVERS = Peer("observability", "observability")
OPERATORS = Peer("cnpg-system", "cnpg-system")
ANYWHERE = "0.0.0.0/0"
API_PORTS = (443, 6443)
"""Of the API server, which has another address on each cluster."""


def flows(site: Site) -> list[Flow]:
    """Return every connection that a site needs."""
    workers = Flow(TRAINING, TRAINING, ())  # of one training: their collectives listen on ports of the moment
    return [*_data(site), *_services(site), *_applications(site), workers, *_watchers(site)]


def _data(site: Site) -> Iterator[Flow]:
    clients = (TEMPORAL, TEMPORAL_SCHEMA, MLFLOW, MLFLOW_SCHEMA, BACKEND, WORKER, SMOKE, TRAINING)
    said = site.part("postgres")
    if said["engine"] == "external":
        there = Peer("external PostgreSQL", cidr=_cidr(str(said["host"])))
        yield from (Flow(client, there, (int(said.get("port", 5432)),)) for client in (*clients, DATABASES))
    else:
        yield from (Flow(client, POSTGRES, (5432,)) for client in (*clients, POSTGRES))
        yield Flow(OPERATORS, POSTGRES, (5432, 8000))
        yield Flow(POSTGRES, Peer("the API server", cidr=ANYWHERE), API_PORTS)
        yield Flow(
            POSTGRES, Peer("the archive", cidr=_store(site)), _port(said["backup"].get("endpoint", "https://aws"))
        )
    redis = site.part("redis")
    cache = Peer("external Redis", cidr=_cidr(str(redis.get("host", "")))) if redis["engine"] == "external" else REDIS
    yield from (Flow(c, cache, (int(redis.get("port", 6379)),)) for c in (BACKEND, WORKER, SMOKE, TRAINING))


def _services(site: Site) -> Iterator[Flow]:
    if site.engine("temporal") == "single":
        yield Flow(TEMPORAL, TEMPORAL, (6933, 6934, 6935, 6939, 7233, 7234, 7235, 7239))
        yield from (Flow(client, TEMPORAL, (7233,)) for client in (WEB, TEMPORAL_NAMESPACES, BACKEND, WORKER, SMOKE))
    else:
        said = site.part("temporal")
        there = Peer("external Temporal", cidr=_cidr(str(said["host"])))
        yield from (Flow(client, there, (int(said.get("port", 7233)),)) for client in (WEB, BACKEND, WORKER, SMOKE))
    store = Peer("the object store", cidr=_store(site))
    ports = _port(site.part("s3")["endpoint"])
    yield from (Flow(client, store, ports) for client in (BUCKETS, MLFLOW, BACKEND, WORKER, SMOKE, TRAINING))
    yield from (Flow(client, MLFLOW, (5000,)) for client in (BACKEND, WORKER, SMOKE, TRAINING))


def _applications(site: Site) -> Iterator[Flow]:
    yield from (Flow(client, BACKEND, (8000,)) for client in (FRONTEND, SMOKE))
    yield Flow(SMOKE, FRONTEND, (8080,))
    yield Flow(WORKER, Peer("the API server", cidr=ANYWHERE), API_PORTS)
    route = site.part("route")
    if route["kind"] != "none":
        yield Flow(Peer("the route", str(route["from"])), FRONTEND, (8080,))


def _watchers(site: Site) -> Iterator[Flow]:
    if site.engine("observability") == "none":
        return
    yield Flow(OBSERVERS, TEMPORAL, (9090,))
    yield Flow(OBSERVERS, MLFLOW, (5000,))
    yield from [Flow(OBSERVERS, BACKEND, (8000,))]
    yield from [Flow(OBSERVERS, REDIS, (6379,))] if site.engine("redis") == "single" else []
    yield from [Flow(OBSERVERS, POSTGRES, (9187,))] if site.engine("postgres") == "cloudnativepg" else []


def _store(site: Site) -> str:
    return str(site.part("s3").get("cidr", ANYWHERE))


def _port(address: str) -> tuple[int, ...]:
    from urllib.parse import urlsplit

    parts = urlsplit(address)
    return (parts.port or (443 if parts.scheme == "https" else 80),)


def _cidr(host: str) -> str:
    """Return the address as a network of one; anywhere for a name, which a NetworkPolicy cannot hold."""
    import ipaddress

    try:
        return str(ipaddress.ip_network(host))
    except ValueError:
        return ANYWHERE


# --- the policies


def policies(site: Site) -> list[Object]:
    """Return the policies of a site: deny everything, allow names to be resolved, allow the flows."""
    every = flows(site)
    made = [policy for namespace in GUARDED for policy in (_denied(namespace), _resolving(namespace))]
    targets = dict.fromkeys(f.target for f in every if f.target.namespace in GUARDED)
    sources = dict.fromkeys(f.source for f in every if f.source.namespace in GUARDED)
    made += [_ingress(peer, [f for f in every if f.target == peer]) for peer in targets]
    return [*made, *(_egress(peer, [f for f in every if f.source == peer]) for peer in sources)]


def _policy(name: str, namespace: str, spec: Mapping[str, Any]) -> Object:
    about = {"name": name, "namespace": namespace}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": about, "spec": dict(spec)}


def _denied(namespace: str) -> Object:
    return _policy("default-deny", namespace, {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]})


def _resolving(namespace: str) -> Object:
    """Allow DNS of the cluster, also by the address of a cache on each node."""
    servers = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}}]
    cached = [{"ipBlock": {"cidr": "169.254.0.0/16"}}]
    ports = [{"protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")]
    egress = [{"to": [*servers, *cached], "ports": ports}]
    return _policy("resolve-names", namespace, {"podSelector": {}, "policyTypes": ["Egress"], "egress": egress})


def _ingress(peer: Peer, found: list[Flow]) -> Object:
    rules = [{"from": [_end(f.source)], "ports": _ports(f)} for f in found]
    spec = {"podSelector": peer.selector, "policyTypes": ["Ingress"], "ingress": rules}
    return _policy(f"to-{_slug(peer)}", peer.namespace, spec)


def _egress(peer: Peer, found: list[Flow]) -> Object:
    rules = [{"to": [_end(f.target)], "ports": _ports(f)} for f in found]
    spec = {"podSelector": peer.selector, "policyTypes": ["Egress"], "egress": rules}
    return _policy(f"from-{_slug(peer)}", peer.namespace, spec)


def _ports(flow: Flow) -> list[dict[str, Any]]:
    return [{"protocol": "TCP", "port": port} for port in flow.ports]


def _end(peer: Peer) -> dict[str, Any]:
    if peer.cidr:
        return {"ipBlock": {"cidr": peer.cidr}}
    where = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": peer.namespace}}}
    return where | ({"podSelector": peer.selector} if peer.labels else {})


def _slug(peer: Peer) -> str:
    plain = peer.name.replace("/", "-").replace(" ", "-").lower()
    return plain if len(plain) < 50 else hashlib.sha256(plain.encode()).hexdigest()[:8]
