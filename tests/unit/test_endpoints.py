from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from infra import catalog, endpoints
from infra.endpoints import Endpoints, contract
from tests.unit.helpers import settings_of

CORE = ("postgres", "redis", "temporal", "minio-datasets", "minio-results")


def built(root: Path, services: tuple[str, ...] = CORE, **values: str) -> Endpoints:
    return endpoints.build(settings_of(root, **values), services)


def test_the_contract_with_all_defaults_word_by_word(tmp_path: Path) -> None:
    assert contract(built(tmp_path)) == {
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


def test_the_contract_has_exactly_the_names_of_the_catalogue(tmp_path: Path) -> None:
    assert set(contract(built(tmp_path))) == set(catalog.CONTRACT_NAMES)


def test_ports_and_logins_that_were_moved_reach_the_contract(tmp_path: Path) -> None:
    odd = "p@ss:w/ö?#%"
    moved = {"POSTGRES_PORT": "1", "REDIS_PORT": "2", "MINIO_DATASETS_PORT": "3", "POSTGRES_PASSWORD": odd}
    values = contract(endpoints.build(settings_of(tmp_path, **moved, REDIS_PASSWORD=odd), CORE))
    database, redis = urlsplit(values["DATABASE_URL"]), urlsplit(values["REDIS_URL"])
    assert (database.port, unquote(database.password or "")) == (1, odd)
    assert (redis.port, redis.username, unquote(redis.password or "")) == (2, "", odd)
    assert values["EXTERNAL_STORAGE_ENDPOINT"] == "http://localhost:3"


@pytest.mark.parametrize(
    ("chosen", "services", "backends"),
    [
        ("", CORE, "database"),
        ("", (*CORE, "mlflow"), "database,mlflow"),
        ("database", (*CORE, "mlflow"), "database"),
        ("clearml, mlflow", CORE, "clearml,mlflow"),
    ],
)
def test_where_trainings_are_tracked(tmp_path: Path, chosen: str, services: tuple[str, ...], backends: str) -> None:
    values = contract(built(tmp_path, services, OBSERVABILITY_BACKENDS=chosen))
    assert values["OBSERVABILITY_BACKENDS"] == backends


def test_people_and_programs_are_told_the_number_and_not_localhost(tmp_path: Path) -> None:
    ends = built(tmp_path)
    assert ends.url("temporal", "ui") == "http://127.0.0.1:8233"
    assert ends.url("temporal") == "127.0.0.1:7233"
    assert ends.address("minio-results", "console") == "127.0.0.1:9003"


def test_a_role_that_a_service_lacks_is_a_defect(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="redis has no console port"):
        built(tmp_path).port("redis", "console")
