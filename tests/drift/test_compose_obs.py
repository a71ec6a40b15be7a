"""Observability: what Prometheus scrapes, the rules, the data sources and every query of the dashboards."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra import dashboards
from infra.settings import ROOT
from tests.drift import compose_files
from tests.drift.repo import read

SERVICES = compose_files.everything()
BOARDS = dashboards.boards(ROOT)
QUERIES = [query for board in BOARDS.values() for query in dashboards.queries(board)]
WANTED = {"overview", "postgresql", "redis", "object-store", "temporal", "training", "logs"}
OBS = "compose/obs"
RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load(read(f"{OBS}/prometheus/rules/platform.yml"))["groups"] for rule in group["rules"]
]
INNER_PORTS = {
    "postgres-exporter": "9187",
    "redis-exporter": "9121",
    "node-exporter": "9100",
    "temporal": "9090",
    "mlflow": "5000",
    "loki": "3100",
    "alloy": "12345",
    "grafana": "3000",
    "minio-datasets": "9000",
    "minio-results": "9000",
}
"""Where the services have their metrics inside the network; documented by their makers."""


def scraped() -> dict[str, list[str]]:
    """Job -> targets, those of the file for the default object store included."""
    config = yaml.safe_load(read(f"{OBS}/prometheus/prometheus.yml"))
    store = yaml.safe_load(read(f"{OBS}/prometheus/targets/silo/object-store.yml"))
    found = {}
    for job in config["scrape_configs"]:
        groups = store if "file_sd_configs" in job else job["static_configs"]
        found[job["job_name"]] = [target for group in groups for target in group["targets"]]
    return found


def test_every_target_is_a_service_and_its_port() -> None:
    targets = {t for job in scraped().values() for t in job} - {"localhost:9090"}
    assert targets == {f"{name}:{port}" for name, port in INNER_PORTS.items()}
    assert {t.split(":")[0] for t in targets} <= set(SERVICES)


def test_services_have_their_metrics_where_they_are_asked() -> None:
    assert SERVICES["temporal"]["environment"]["PROMETHEUS_ENDPOINT"].endswith(":9090")
    assert "--server.http.listen-addr=0.0.0.0:12345" in SERVICES["alloy"]["command"]
    assert SERVICES["minio-results"]["environment"]["MINIO_PROMETHEUS_AUTH_TYPE"] == "public"
    for name in ("loki", "grafana", "mlflow"):
        assert compose_files.published(SERVICES[name])[0][3] == INNER_PORTS[name]


@pytest.mark.parametrize("rule", RULES, ids=[r["alert"] for r in RULES])
def test_rule_says_when_how_bad_and_what(rule: dict[str, Any]) -> None:
    assert set(rule) == {"alert", "expr", "for", "labels", "annotations"}
    assert rule["expr"].strip()
    assert re.fullmatch(r"\d+[sm]", rule["for"])
    assert rule["labels"]["severity"] in ("warning", "critical")
    assert rule["annotations"]["summary"]
    assert rule["annotations"]["summary"].count("{{") == rule["annotations"]["summary"].count("}}")


def test_rules_cover_what_they_should() -> None:
    alerts = [r["alert"] for r in RULES]
    assert len(set(alerts)) == len(alerts)
    assert {"ServiceDown", "DiskFull", "BackupTooOld", "TaskQueueStuck", "ReplicationSlotInactive"} <= set(alerts)


def test_prometheus_accepts_its_files(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not on this machine")
    argv = [
        promtool,
        "check",
        "rules",
        str(ROOT / OBS / "prometheus/rules/platform.yml"),
        str(queries_as_rules(tmp_path)),
    ]
    done = subprocess.run(argv, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    argv = [promtool, "check", "config", "--syntax-only", str(ROOT / OBS / "prometheus/prometheus.yml")]
    done = subprocess.run(argv, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def queries_as_rules(folder: Path) -> Path:
    """Every PromQL query of the dashboards as a recording rule: promtool parses them with the rules."""
    prom = [q.runnable for q in QUERIES if q.source == dashboards.PROMETHEUS]
    rules = [{"record": f"dashboard:query:{i}", "expr": text} for i, text in enumerate(prom)]
    path = folder / "queries.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboards", "rules": rules}]}), encoding="utf-8")
    return path


def test_alerts_fire_when_they_should() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not on this machine")
    argv = [promtool, "test", "rules", str(ROOT / "tests/drift/alerts_test.yml")]
    done = subprocess.run(argv, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_tried() -> None:
    tried = {
        case["alertname"]
        for test in yaml.safe_load(read("tests/drift/alerts_test.yml"))["tests"]
        for case in test["alert_rule_test"]
        if case["exp_alerts"]
    }
    assert tried == {r["alert"] for r in RULES}


def test_dashboards_are_there_and_differ() -> None:
    assert {name.removesuffix(".json") for name in BOARDS} == WANTED
    assert len({board["uid"] for board in BOARDS.values()}) == len(BOARDS)
    assert len({board["title"] for board in BOARDS.values()}) == len(BOARDS)
    assert all(re.fullmatch(r"[a-z-]{1,40}", board["uid"]) for board in BOARDS.values())


@pytest.mark.parametrize("name", BOARDS)
def test_panels_are_whole(name: str) -> None:
    panels = BOARDS[name]["panels"]
    assert [i for i, n in Counter(p["id"] for p in panels).items() if n > 1] == []
    for panel in panels:
        assert panel["title"]
        assert panel["targets"]
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24


@pytest.mark.parametrize("name", BOARDS)
def test_panels_do_not_lie_upon_each_other(name: str) -> None:
    cells = Counter(
        (x, y)
        for place in (p["gridPos"] for p in BOARDS[name]["panels"])
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    )
    assert [cell for cell, n in cells.items() if n > 1] == []


def provisioned() -> dict[str, dict[str, Any]]:
    loaded = yaml.safe_load(read(f"{OBS}/grafana/provisioning/datasources/platform.yml"))
    return {source["uid"]: source for source in loaded["datasources"]}


def test_data_sources_lead_to_services() -> None:
    sources = provisioned()
    assert set(sources) == {dashboards.PROMETHEUS, dashboards.LOKI, dashboards.POSTGRES}
    for source in sources.values():
        host = source["url"].removeprefix("http://").split(":")[0]
        assert host in SERVICES
    assert sources[dashboards.POSTGRES]["secureJsonData"] == {"password": "${POSTGRES_PASSWORD}"}
    assert {"POSTGRES_USER", "POSTGRES_PASSWORD"} <= set(SERVICES["grafana"]["environment"])


def test_every_reference_to_a_data_source_exists() -> None:
    types = {uid: source["type"] for uid, source in provisioned().items()}

    def references(node: Any) -> list[tuple[str, str]]:
        if isinstance(node, dict):
            own = [(node["datasource"]["uid"], node["datasource"]["type"])] if "datasource" in node else []
            return own + [r for value in node.values() for r in references(value)]
        return [r for value in node for r in references(value)] if isinstance(node, list) else []

    found = [r for board in BOARDS.values() for r in references(board)]
    assert len(found) > 100
    assert {(uid, kind) for uid, kind in found} <= set(types.items())


def test_dashboards_are_where_grafana_looks() -> None:
    provider = yaml.safe_load(read(f"{OBS}/grafana/provisioning/dashboards/platform.yml"))["providers"][0]
    inner = provider["options"]["path"]
    assert f"./obs/grafana/dashboards:{inner}:ro" in SERVICES["grafana"]["volumes"]
    assert "./obs/grafana/provisioning:/etc/grafana/provisioning:ro" in SERVICES["grafana"]["volumes"]
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home.removeprefix(f"{inner}/") in BOARDS


@pytest.mark.parametrize("query", QUERIES, ids=[f"{q.dashboard}/{q.panel}/{i}" for i, q in enumerate(QUERIES)])
def test_query_is_whole(query: dashboards.Query) -> None:
    assert query.text.strip()
    assert "$" not in query.runnable, "a variable that nobody defines"
    for pair in ("()", "[]", "{}"):
        assert query.runnable.count(pair[0]) == query.runnable.count(pair[1])
    if query.source == dashboards.LOKI:
        assert "{service" in query.runnable


def test_alloy_gives_the_labels_that_the_dashboards_ask_for() -> None:
    text = read(f"{OBS}/alloy/config.alloy")
    labels = set(re.findall(r'target_label\s+= "(\w+)"', text))
    asked = {label for q in QUERIES if q.source == dashboards.LOKI for label in re.findall(r"{(\w+)=", q.runnable)}
    assert asked <= labels == {"stack", "service", "container"}
    assert 'sys.env("PLATFORM_STACK")' in text
    assert SERVICES["alloy"]["environment"]["PLATFORM_STACK"] == "${PLATFORM_STACK:-platform}"
    assert "http://loki:3100/loki/api/v1/push" in text
    assert text.count("{") == text.count("}")


def test_loki_keeps_its_data_in_its_volume_and_forgets_in_time() -> None:
    config = yaml.safe_load(read(f"{OBS}/loki/loki.yaml"))
    assert "loki_data:/loki" in SERVICES["loki"]["volumes"]
    assert config["common"]["path_prefix"] == "/loki"
    assert config["limits_config"]["retention_period"]
    assert config["compactor"]["retention_enabled"] is True
    assert config["server"]["http_listen_port"] == 3100
    assert config["auth_enabled"] is False
    assert config["analytics"]["reporting_enabled"] is False
