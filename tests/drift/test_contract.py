"""The catalogue against the contract: names, numbers and logins that applications and habits rely on.

Written out here a second time on purpose. A change of this file is a change of the contract.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from infra import catalog, settings
from infra.endpoints import build, contract

PORTS = {
    "postgres": {"sql": 5432},
    "redis": {"redis": 6379},
    "temporal": {"grpc": 7233, "ui": 8233},
    "minio-datasets": {"api": 9000, "console": 9001},
    "minio-results": {"api": 9002, "console": 9003},
    "mlflow": {"web": 5000},
    "loki": {"api": 3100},
    "grafana": {"web": 3200},
    "clearml": {"api": 8008, "web": 8080, "files": 8081},
}
LOGINS = {
    "postgres": ("admin", "devpass"),
    "redis": None,
    "temporal": None,
    "minio-datasets": ("minioadmin", "minioadmin"),
    "minio-results": ("minioadmin", "minioadmin"),
    "grafana": ("admin", "admin"),
}
CORE = ["postgres", "redis", "temporal", "minio-datasets", "minio-results"]
OBSERVABILITY = ["mlflow", "loki", "grafana", "clearml"]
DATABASES = ["platform", "users", "labeler"]
BUCKETS = {
    "minio-datasets": ["training-datasets"],
    "minio-results": ["model-weights", "training-checkpoints", "config-schemas", "training-results"],
}
VALUES = {
    "DATABASE_URL": "postgresql://admin:devpass@localhost:5432/platform",
    "USER_DATABASE_URL": "postgresql://admin:devpass@localhost:5432/users",
    "REDIS_URL": "redis://localhost:6379/0",
    "TEMPORAL_HOST": "localhost:7233",
    "TEMPORAL_NAMESPACE": "default",
    "EXTERNAL_STORAGE_ENDPOINT": "http://localhost:9000",
    "EXTERNAL_STORAGE_ACCESS_KEY": "minioadmin",
    "EXTERNAL_STORAGE_SECRET_KEY": "minioadmin",
    "INTERNAL_STORAGE_ENDPOINT": "http://localhost:9002",
    "INTERNAL_STORAGE_ACCESS_KEY": "minioadmin",
    "INTERNAL_STORAGE_SECRET_KEY": "minioadmin",
    "OBSERVABILITY_BACKENDS": "database",
    "CLEARML_API_HOST": "http://localhost:8008",
    "CLEARML_WEB_HOST": "http://localhost:8080",
    "CLEARML_FILES_HOST": "http://localhost:8081",
    "MLFLOW_TRACKING_URI": "http://localhost:5000",
}


@pytest.mark.parametrize("name", PORTS)
def test_ports(name: str) -> None:
    assert {port.role: port.default for port in catalog.service(name).ports} == PORTS[name]


@pytest.mark.parametrize("name", LOGINS)
def test_logins(name: str) -> None:
    names = catalog.service(name).login
    assert (tuple(catalog.SETTINGS[n].default for n in names) if names else None) == LOGINS[name]


def test_redis_has_no_password() -> None:
    assert catalog.SETTINGS["REDIS_PASSWORD"].default == ""


def test_core_and_observability() -> None:
    of = {overlay: [s.name for s in catalog.SERVICES if s.overlay == overlay] for overlay in ("core", "obs")}
    assert of["core"] == CORE
    assert set(OBSERVABILITY) <= set(of["obs"])


def test_every_port_can_be_moved() -> None:
    ports = [p for s in catalog.SERVICES for p in s.ports] + [catalog.TEMPORAL_METRICS_PORT]
    moved = {p.setting: (catalog.SETTINGS[p.setting].kind, catalog.SETTINGS[p.setting].default) for p in ports}
    assert moved == {p.setting: ("port", str(p.default)) for p in ports}
    assert len(moved) == len(ports), "two ports share a setting"


def test_databases() -> None:
    assert [d.name for d in catalog.DATABASES] == DATABASES


def test_buckets() -> None:
    assert {store: [b.name for b in catalog.BUCKETS if b.store == store] for store in BUCKETS} == BUCKETS
    assert [(b.name, b.store) for b in catalog.OBS_BUCKETS] == [("mlflow-artifacts", "minio-results")]


def test_mlflow_has_a_schema_of_its_own() -> None:
    assert catalog.MLFLOW_SCHEMA == "mlflow"


def test_contract_for_applications(tmp_path: Path) -> None:
    defaults = settings.load(tmp_path, environ={})
    everything = {**VALUES, "OBSERVABILITY_BACKENDS": "database,mlflow,clearml"}
    assert contract(build(defaults, (*CORE, *OBSERVABILITY))) == everything
    assert tuple(VALUES) == catalog.CONTRACT_NAMES


def test_contract_of_the_core(tmp_path: Path) -> None:
    values = contract(build(settings.load(tmp_path, environ={}), tuple(CORE)))
    assert values == {n: v for n, v in VALUES.items() if not n.startswith(("CLEARML_", "MLFLOW_"))}


def test_mlflow_is_a_backend_where_it_runs(tmp_path: Path) -> None:
    defaults = settings.load(tmp_path, environ={})
    assert contract(build(defaults, (*CORE, "mlflow")))["OBSERVABILITY_BACKENDS"] == "database,mlflow"


def test_every_gap_names_a_tier_or_an_engine() -> None:
    from infra.tiers.providers import S3_ENGINES

    assert {g.where for g in catalog.GAPS} <= {*catalog.TIERS, *S3_ENGINES, "external"}


@pytest.mark.parametrize("tier", catalog.TIERS)
def test_a_tier_runs_every_service_or_says_why_not(tier: str) -> None:
    missing = {g.feature for g in catalog.gaps(tier)} & {s.name for s in catalog.SERVICES}
    assert {s.name for s in catalog.SERVICES} == {s.name for s in catalog.offered(tier)} | missing
    assert set(CORE).isdisjoint(missing)
    assert all(g.reason and g.instead for g in catalog.gaps(tier))
