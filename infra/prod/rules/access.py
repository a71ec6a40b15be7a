"""Rules for who reaches what: routes, Services, TLS, Secrets, network policies."""

from __future__ import annotations

import re

from infra.prod.rules.base import (
    RESTRICTED,
    SERVERS,
    Broken,
    Guard,
    Object,
    Objects,
    Rule,
    containers,
    every_container,
    of_kind,
    ours,
    pods,
    same_namespace,
    texts,
)

DEVELOPMENT = re.compile(r"devpass|minioadmin|prom-operator")
LOGIN = "platform/login"
"""Annotation of a route: who asks people for a login, or `public`."""
_PLAIN_DATABASE = re.compile(r"sslmode=(disable|allow|prefer)|^(disable|allow|prefer)$")
_SECRET_NAME = re.compile(r"PASSWORD|PASSWD|PWD|SECRET_KEY|SECRET_ACCESS_KEY|TOKEN")


def _development_login(objects: Objects) -> Broken:
    for thing in objects:
        if found := next((t for t in texts(thing) if DEVELOPMENT.search(t)), None):
            yield thing, f"has a password of the development platform ({DEVELOPMENT.search(found)[0]})"  # type: ignore[index]


def _node_port(objects: Objects) -> Broken:
    for thing in of_kind(objects, "Service"):
        if thing["spec"].get("type") in ("NodePort", "LoadBalancer"):
            yield thing, f"is of type {thing['spec']['type']}: it can be reached from outside without a login"


def _route(objects: Objects) -> Broken:
    for thing in of_kind(objects, "Ingress"):
        annotations = thing["metadata"].get("annotations") or {}
        if not thing["spec"].get("tls"):
            yield thing, "has no TLS"
        if not any(key.endswith("issuer") for key in annotations):
            yield thing, "names no issuer of its certificate"
        if not thing["spec"].get("ingressClassName"):
            yield thing, "names no class"
    for thing in of_kind(objects, "HTTPRoute"):
        if not thing["spec"].get("hostnames"):
            yield thing, "takes every host name of its Gateway"


def _login(objects: Objects) -> Broken:
    for thing in of_kind(objects, "Ingress", "HTTPRoute"):
        if not (thing["metadata"].get("annotations") or {}).get(LOGIN):
            yield thing, "leads to the application without a login: set route.login, or route.public"


def _plaintext(objects: Objects) -> Broken:
    for owner, container in containers(objects):
        for entry in container.get("env") or []:
            name, value = entry["name"], str(entry.get("value", ""))
            off = name in ("SQL_TLS", "SQL_TLS_ENABLED") and value == "false"
            if off or (name == "PGSSLMODE" and _PLAIN_DATABASE.search(value)) or "sslmode=disable" in value:
                yield owner, f"{container['name']}: {name}={value} lets a database be reached without TLS"
        names = {e["name"] for e in container.get("env") or []}
        if "PGHOST" in names and "PGSSLMODE" not in names:
            yield owner, f"{container['name']}: PGHOST without PGSSLMODE may reach a database without TLS"
    for thing in of_kind(objects, "Cluster"):
        rules = (thing["spec"].get("postgresql") or {}).get("pg_hba") or []
        if not any(line.split()[:1] == ["hostnossl"] and line.split()[-1] == "reject" for line in rules):
            yield thing, "accepts connections without TLS: add `hostnossl all all all reject` to pg_hba"


def _secret(objects: Objects) -> Broken:
    for thing in of_kind(objects, "Secret"):
        if thing.get("data") or thing.get("stringData"):
            yield thing, "is a Secret by value: name one that exists"
    for owner, container in containers(objects):
        for entry in container.get("env") or []:
            if _SECRET_NAME.search(entry["name"]) and entry.get("value"):
                yield owner, f"{container['name']}: {entry['name']} is given by value"


def _default_deny(objects: Objects) -> Broken:
    policies = of_kind(objects, "NetworkPolicy")
    denied = {
        p["metadata"].get("namespace")
        for p in policies
        if not p["spec"].get("podSelector")
        and set(p["spec"].get("policyTypes") or []) == {"Ingress", "Egress"}
        and not p["spec"].get("ingress")
        and not p["spec"].get("egress")
    }
    for thing in of_kind(objects, "Namespace"):
        if thing["metadata"]["name"] in RESTRICTED and thing["metadata"]["name"] not in denied:
            yield thing, "has no NetworkPolicy that denies everything by default"


def _port(objects: Objects) -> Broken:
    policies = [p for p in of_kind(objects, "NetworkPolicy") if "Ingress" in (p["spec"].get("policyTypes") or [])]
    for owner, pod in pods(of_kind(objects, "Deployment", "StatefulSet")):
        labels = pod["metadata"].get("labels") or {}
        mine = [p for p in policies if same_namespace(p, owner) and _selects(p["spec"].get("podSelector"), labels)]
        for number in sorted({p["containerPort"] for c in pod["spec"]["containers"] for p in c.get("ports") or []}):
            if ours(owner) and (not mine or any(_opens_to_all(p, number) for p in mine)):
                yield owner, f"listens on {number}, and every pod may connect"


def _selects(selector: Object | None, labels: Object) -> bool:
    return bool(((selector or {}).get("matchLabels") or {}).items() <= labels.items())


def _opens_to_all(policy: Object, port: int) -> bool:
    rules = [r for r in policy["spec"].get("ingress") or [] if not r.get("from")]
    return any(not r.get("ports") or any(p.get("port") in (port, None) for p in r["ports"]) for r in rules)


_NODE_PORT_GUARD = Guard(
    {"": ("services",)}, "!has(object.spec.type) || object.spec.type in ['ClusterIP', 'ExternalName']"
)
_LOGIN_GUARD = Guard(
    {"networking.k8s.io": ("ingresses",), "gateway.networking.k8s.io": ("httproutes",)},
    f"has(object.metadata.annotations) && '{LOGIN}' in object.metadata.annotations",
)
_SECRET_GUARD = Guard(
    SERVERS,
    every_container(
        f"!has(c.env) || c.env.all(e, !e.name.matches('{_SECRET_NAME.pattern}') || !has(e.value) || e.value == '')"
    ),
)

RULES: tuple[Rule, ...] = (
    Rule("development-login", "no password of the development platform", _development_login, _LOGIN_GUARD),
    Rule("node-port", "no Service of type NodePort or LoadBalancer", _node_port, _NODE_PORT_GUARD),
    Rule("route", "routes have a host, TLS, a class and an issuer", _route),
    Rule("login", "the application is not published without a login", _login, _LOGIN_GUARD),
    Rule("plaintext", "databases are reached by TLS only", _plaintext),
    Rule("secret-by-value", "no password is in a manifest", _secret, _SECRET_GUARD),
    Rule("default-deny", "namespaces deny connections by default", _default_deny),
    Rule("open-port", "each port is guarded by a NetworkPolicy that says who may connect", _port),
)
