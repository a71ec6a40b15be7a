"""Alerts of production as a real Prometheus sees them, by the rules of the chart and the series of real exporters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from infra.prod.status import METRICS
from infra.settings import ROOT
from tests.faults.kind.cluster import until
from tests.rehearsal import images
from tests.rehearsal.stage import STORE, Stage

RULES = "helm/observability/files/production/production.yml"
IMAGE = "prometheus"


def start(stage: Stage) -> None:
    """Have it watch PostgreSQL, and wait until it has seen it."""
    images.put(stage.workers, [images.OWN[IMAGE]])
    text = (Path(__file__).parent / "prometheus.yaml").read_text(encoding="utf-8")
    things = list(yaml.safe_load_all(text))
    config = next(thing for thing in things if thing["kind"] == "ConfigMap")
    rules = (ROOT / RULES).read_text(encoding="utf-8")
    config["data"] = {"prometheus.yml": yaml.safe_dump(_config(stage)), "production.yml": rules}
    stage.cluster.apply(*things)
    stage.cluster.kubectl("rollout", "restart", f"deployment/{IMAGE}", "-n", STORE)  # it may know earlier instances
    stage.cluster.kubectl("rollout", "status", f"deployment/{IMAGE}", "-n", STORE, "--timeout=180s")
    until("Prometheus has seen PostgreSQL", lambda: bool(value(stage, "sum(cnpg_collector_up)")), 120)


def _config(stage: Stage) -> dict[str, Any]:
    found = stage.cluster.get(
        "pods", "-n", "platform", "-l", f"cnpg.io/podRole=instance,cnpg.io/cluster={stage.server}"
    )
    targets = [
        {
            "targets": [f"{pod['status']['podIP']}:{METRICS}"],
            "labels": {"namespace": "platform", "pod": pod["metadata"]["name"]},
        }
        for pod in found["items"]
    ]
    return {
        "global": {"scrape_interval": "10s", "evaluation_interval": "10s"},
        "rule_files": ["/etc/rehearsal/production.yml"],
        "scrape_configs": [{"job_name": "postgresql", "static_configs": targets}],
    }


def ask(stage: Stage, path: str) -> Any:
    """The `data` of an answer of its API."""
    base = f"/api/v1/namespaces/{STORE}/services/{IMAGE}:9090/proxy/api/v1"
    return json.loads(stage.cluster.kubectl("get", "--raw", f"{base}/{path}"))["data"]


def value(stage: Stage, query: str) -> float:
    """The value of an expression with one result; 0 without any."""
    found = ask(stage, f"query?query={query}")["result"]
    return float(found[0]["value"][1]) if found else 0.0


def firing(stage: Stage) -> set[str]:
    """The names of the alerts that fire."""
    return {a["labels"]["alertname"] for a in ask(stage, "alerts")["alerts"] if a["state"] == "firing"}


def series(stage: Stage) -> set[str]:
    """The names of all series that it has."""
    return set(ask(stage, "label/__name__/values"))
