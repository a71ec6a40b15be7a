from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from infra import catalog, endpoints, health, probes
from infra.endpoints import Endpoints
from tests.unit.helpers import settings_of

PSQL = Path("/x/psql")
CORE = ("postgres", "redis", "temporal", "minio-datasets", "minio-results")


def built(root: Path, services: tuple[str, ...] = CORE, **values: str) -> Endpoints:
    return endpoints.build(settings_of(root, **values), services)


def test_each_service_is_asked_with_its_login_on_its_port(tmp_path: Path) -> None:
    odd = "p@ss"
    ends = built(tmp_path, POSTGRES_PASSWORD=odd, REDIS_PASSWORD=odd, MINIO_RESULTS_PORT="9999")
    sql = health.probe(ends, "postgres", PSQL)
    assert (sql["kind"], sql["port"], sql["user"], sql["password"]) == ("sql", 5432, "admin", odd)
    assert (sql["psql"], sql["database"]) == ("/x/psql", "platform")
    assert health.probe(ends, "redis", PSQL) == {"kind": "redis", "host": "127.0.0.1", "port": 6379, "password": odd}
    store = health.probe(ends, "minio-results", PSQL)
    assert (store["kind"], store["port"], store["access_key"]) == ("s3", 9999, "minioadmin")


@pytest.mark.parametrize(
    ("namespace", "path"),
    [("default", "default"), ("my space/x?#", "my%20space%2Fx%3F%23"), ("한", "%ED%95%9C")],
)
def test_temporal_is_asked_for_the_namespace(tmp_path: Path, namespace: str, path: str) -> None:
    ends = endpoints.build(settings_of(tmp_path), CORE)
    ends = Endpoints(**{**vars(ends), "temporal_namespace": namespace})
    probe = health.probe(ends, "temporal", PSQL)
    assert (probe["kind"], probe["port"], probe["path"]) == ("http", 8233, f"/api/v1/namespaces/{path}")


@pytest.mark.parametrize("service", [s.name for s in catalog.SERVICES if s.question.kind in probes.KINDS])
def test_every_service_of_the_catalogue_has_a_question(tmp_path: Path, service: str) -> None:
    """And one that the switch over kinds knows: nobody listens, so the answer is no, and no exception."""
    ports = {
        s.name: str(40001 + i * catalog.STORE_SPAN) for i, s in enumerate(catalog.SETTINGS.values()) if s.kind == "port"
    }
    probe = health.probe(built(tmp_path, (service,), **ports), service, tmp_path / "no-psql")
    assert not probes.check(probe, 0.5).ok


def test_the_end_of_up_asks_for_each_database_and_bucket(tmp_path: Path) -> None:
    questions = health.thorough(built(tmp_path), PSQL)
    names = {f"database {d}" for d in ("postgres", "platform", "users", "labeler")}
    names |= {f"bucket {b.name}" for b in catalog.BUCKETS}
    assert set(questions) == {*CORE, *names}
    assert questions["database labeler"]["database"] == "labeler"
    weights = questions["bucket model-weights"]
    assert (weights["kind"], weights["bucket"], weights["port"]) == ("s3-write", "model-weights", 9002)
    assert questions["bucket training-datasets"]["port"] == 9000


def test_the_bucket_of_mlflow_is_asked_for_where_mlflow_runs(tmp_path: Path) -> None:
    assert "bucket mlflow-artifacts" not in health.thorough(built(tmp_path), PSQL)
    assert "bucket mlflow-artifacts" in health.thorough(built(tmp_path, (*CORE, "mlflow")), PSQL)


def test_all_questions_are_asked_and_answered_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def fake(question: dict[str, Any], limit: float) -> probes.Finding:
        return probes.Finding(question["n"] % 2 == 0, f"{limit:g}")

    monkeypatch.setattr(probes, "check", fake)
    answers = health.ask({str(n): {"n": n} for n in range(20)}, limit=7.0)
    assert {name: a.ok for name, a in answers.items()} == {str(n): n % 2 == 0 for n in range(20)}
    assert {a.detail for a in answers.values()} == {"7"}
    assert health.ask({}) == {}
