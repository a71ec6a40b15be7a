"""Each rule of prod.check: what breaks it is found, and what keeps it is not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from infra.prod import rules
from infra.prod.rules.access import LOGIN
from tests.unit.prod import things as t

Objects = Sequence[dict[str, Any]]
ROOT = t.pod(t.container(), securityContext={"runAsUser": 0})
SERVER = t.container(ports=[{"containerPort": 80}])
WEB = t.deployment(t.pod(SERVER, **t.spread()))
OPEN = t.thing("NetworkPolicy", {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{"ports": [{"port": 80}]}]})
DENIED = t.thing("NetworkPolicy", {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}, "networking.k8s.io/v1")
SPACE = t.thing("Namespace", None, "v1", name="platform", namespace="")
CLAIM = t.thing("PersistentVolumeClaim", {"accessModes": ["ReadWriteOnce"]})
MOUNTED = t.pod(volumes=[{"name": "data", "persistentVolumeClaim": {"claimName": "it"}}], **t.spread())


def budget(**spec: Any) -> dict[str, Any]:
    return t.thing("PodDisruptionBudget", {"selector": {"matchLabels": {"app": "server"}}, **spec}, "policy/v1")


def env(**values: str) -> dict[str, Any]:
    return t.container(env=[{"name": name, "value": value} for name, value in values.items()])


def ingress(annotations: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    notes = {"cert-manager.io/cluster-issuer": "x", LOGIN: "oauth2"} if annotations is None else annotations
    body = {"ingressClassName": "traefik", "tls": [{"hosts": ["a.b"]}], **spec}
    return t.thing("Ingress", body, "networking.k8s.io/v1", annotations=notes)


def temporal(pool: int, replicas: int = 3) -> dict[str, Any]:
    return t.deployment(t.pod(env(SQL_MAX_CONNS=str(pool)), **t.spread()), replicas)


def alert(expression: str) -> dict[str, Any]:
    groups = [{"name": "g", "rules": [{"alert": "A", "expr": expression}]}]
    return t.thing("PrometheusRule", {"groups": groups}, "monitoring.coreos.com/v1")


PG = t.cluster()["spec"]["postgresql"]
BROKEN: tuple[tuple[str, str, Objects, str], ...] = (
    ("development-login", "a password", [t.thing("ConfigMap") | {"data": {"a": "x:devpass@y"}}], "devpass"),
    ("image-digest", "a tag", [t.deployment(t.pod(t.container(image="a:1"), **t.spread()))], "a:1 has no digest"),
    ("image-digest", "of PostgreSQL", [t.cluster(imageName="a:1")], "a:1 has no digest"),
    ("image-digest", "before the start", [t.job(template=t.pod(initContainers=[t.container(image="a:1")]))], "a:1"),
    ("limits", "no limit", [t.job(template=t.pod(t.container(resources={})))], "limits.memory"),
    ("limits", "of PostgreSQL", [t.cluster(resources={})], "limits.memory"),
    ("node-port", "NodePort", [t.thing("Service", {"type": "NodePort"})], "NodePort"),
    ("node-port", "LoadBalancer", [t.thing("Service", {"type": "LoadBalancer"})], "LoadBalancer"),
    ("restricted", "root", [t.deployment(ROOT)], "may run as root"),
    ("restricted", "capabilities", [t.job(template=t.pod(t.container(securityContext={})))], "may gain privileges"),
    ("spread", "one node", [t.deployment(t.pod())], "on one node"),
    ("spread", "preferred only", [t.cluster(affinity={"enablePodAntiAffinity": True})], "required"),
    ("budget", "all must stay", [t.deployment(), budget(minAvailable=2)], "cannot be drained"),
    ("budget", "none may go", [t.deployment(), budget(maxUnavailable=0)], "cannot be drained"),
    ("volume-deadlock", "rolling", [t.deployment(MOUNTED), CLAIM], "strategy Recreate"),
    ("route", "plain HTTP", [ingress(tls=[])], "no TLS"),
    ("route", "no issuer", [ingress({LOGIN: "x"})], "no issuer"),
    ("route", "no class", [ingress(ingressClassName="")], "no class"),
    ("route", "every host", [t.thing("HTTPRoute", {})], "every host name"),
    ("login", "Ingress", [ingress({"cert-manager.io/issuer": "x"})], "without a login"),
    ("login", "HTTPRoute", [t.thing("HTTPRoute", {"hostnames": ["a.b"]})], "without a login"),
    ("plaintext", "Temporal", [t.job(template=t.pod(env(SQL_TLS="false")))], "SQL_TLS=false"),
    ("plaintext", "libpq may", [t.job(template=t.pod(env(PGSSLMODE="prefer")))], "PGSSLMODE=prefer"),
    ("plaintext", "libpq by default", [t.job(template=t.pod(env(PGHOST="db")))], "PGHOST without PGSSLMODE"),
    ("plaintext", "the server", [t.cluster(postgresql={**PG, "pg_hba": []})], "hostnossl"),
    ("secret-by-value", "a Secret", [t.thing("Secret") | {"stringData": {"a": "b"}}], "by value"),
    ("secret-by-value", "a variable", [t.job(template=t.pod(env(PGPASSWORD="x")))], "PGPASSWORD is given by value"),
    ("default-deny", "no policy", [SPACE], "denies everything"),
    ("default-deny", "ingress only", [SPACE, t.policy(ports=())], "denies everything"),
    ("open-port", "no policy", [t.deployment(t.pod(SERVER, **t.spread()))], "listens on 80"),
    ("open-port", "others' policy", [WEB, t.policy(labels={"app": "other"})], "listens on 80"),
    ("open-port", "open to all", [WEB, t.policy(), OPEN], "listens on 80"),
    ("durable", "asynchronous", [t.cluster(postgresql={**PG, "synchronous": {}})], "asynchronously"),
    (
        "durable",
        "preferred",
        [t.cluster(postgresql={**PG, "synchronous": {"number": 1, "dataDurability": "preferred"}})],
        "asynchronously",
    ),
    ("durable", "no archive", [t.cluster(plugins=[])], "no WAL"),
    ("connections", "Temporal", [t.cluster(), temporal(20)], "may open 540"),
    ("alert-series", "of another exporter", [alert("sum(pg_up) < 1")], "asks for pg_up"),
    ("helm-hook", "a hook", [t.thing("ConfigMap", annotations={"helm.sh/hook": "pre-install"})], "hook of Helm"),
    ("deadline", "killed", [t.job(activeDeadlineSeconds=300)], "300 s"),
    ("deadline", "gone", [t.job(ttlSecondsAfterFinished=1)], "removes itself"),
    ("bucket-name", "a list", [t.thing("ConfigMap") | {"data": {"BUCKETS": "a-x model-weights"}}], "model-weights"),
    ("bucket-name", "an address", [t.job(template=t.pod(env(TO="s3://mlflow-artifacts")))], "mlflow-artifacts"),
    ("kind-tier", "a port", [t.thing("ConfigMap") | {"data": {"a": "http://127.0.0.1:30500"}}], "127.0.0.1:30500"),
)


@pytest.mark.parametrize(
    ("rule", "objects", "said"), [(r, o, s) for r, _, o, s in BROKEN], ids=[f"{r}: {what}" for r, what, _, _ in BROKEN]
)
def test_what_breaks_a_rule_is_found(rule: str, objects: Objects, said: str) -> None:
    texts = [f.text for f in rules.findings(objects) if f.rule == rule]
    assert any(said in text for text in texts), texts


KEPT: tuple[tuple[str, Objects], ...] = (
    ("a Deployment", [t.deployment(t.pod(SERVER, **t.spread())), t.policy()]),
    ("one replica", [t.deployment(t.pod(), replicas=1)]),
    ("a Job", [t.job()]),
    ("PostgreSQL", [t.cluster(), temporal(10)]),
    ("a budget", [t.deployment(), budget(minAvailable=1)]),
    ("a budget of others", [t.deployment(), budget(maxUnavailable=0, selector={"matchLabels": {"app": "other"}})]),
    ("a volume", [t.deployment(MOUNTED, strategy={"type": "Recreate"}), CLAIM]),
    ("an Ingress", [ingress()]),
    ("a Service", [t.thing("Service", {"type": "ClusterIP"})]),
    ("default deny", [SPACE, DENIED]),
    ("TLS", [t.job(template=t.pod(env(PGHOST="db", PGSSLMODE="verify-full", SQL_TLS="true")))]),
    ("a Secret by name", [t.job(template=t.pod(t.container(env=[{"name": "PGPASSWORD", "valueFrom": {}}])))]),
    (
        "an alert",
        [alert('max by (pod) (rate(cnpg_backends_total{a!="x"}[5m])) / 1e3 > 0.9 unless absent(up{a="b"})')],
    ),
    ("a bucket with its prefix", [t.job(template=t.pod(env(TO="s3://acme-model-weights")))]),
)


@pytest.mark.parametrize("objects", [k[1] for k in KEPT], ids=[k[0] for k in KEPT])
def test_what_keeps_the_rules_is_not_found(objects: Objects) -> None:
    assert rules.findings(objects) == []


def test_every_rule_has_a_test_that_breaks_it() -> None:
    assert {rule for rule, _, _, _ in BROKEN} == {rule.name for rule in rules.RULES}


def test_a_finding_names_its_object() -> None:
    assert rules.findings([t.job(activeDeadlineSeconds=1)])[0].object == "Job platform/schema-0123"
