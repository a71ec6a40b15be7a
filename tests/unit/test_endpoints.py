from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from infra import catalog, endpoints
from infra.endpoints import Endpoints, Login, StorePlace, contract
from infra.errors import PlatformError
from tests.unit.helpers import settings_of

CORE = ("postgres", "redis", "temporal", "minio-datasets", "minio-results")


def built(root: Path, services: tuple[str, ...] = CORE, **values: str) -> Endpoints:
    return endpoints.build(settings_of(root, **values), services)


ALWAYS = tuple(n for n in catalog.CONTRACT_NAMES if not n.startswith(("MLFLOW_", "CLEARML_")))
"""The names that do not depend on what runs."""


def test_the_contract_has_exactly_the_names_of_the_catalogue(tmp_path: Path) -> None:
    everything = tuple(s.name for s in catalog.SERVICES)
    assert tuple(contract(built(tmp_path, everything))) == catalog.CONTRACT_NAMES


def test_the_contract_names_no_tracker_that_does_not_run(tmp_path: Path) -> None:
    assert tuple(contract(built(tmp_path))) == ALWAYS
    assert set(contract(built(tmp_path, (*CORE, "mlflow")))) == {*ALWAYS, "MLFLOW_TRACKING_URI"}
    lacking = endpoints.absent(built(tmp_path, (*CORE, "mlflow", "grafana")))
    assert lacking == {"clearml": ("CLEARML_API_HOST", "CLEARML_WEB_HOST", "CLEARML_FILES_HOST")}


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


ELSEWHERE = {
    "PLATFORM_S3_ENGINE": "external",
    "S3_DATASETS_ENDPOINT": "https://data.example.com/",
    "S3_RESULTS_ENDPOINT": "http://10.0.0.7:9000",
    "S3_RESULTS_ACCESS_KEY": "ours",
    "S3_RESULTS_SECRET_KEY": "hush, hush",
}


def elsewhere(root: Path, **values: str) -> Endpoints:
    settings = settings_of(root, **{**ELSEWHERE, **values})
    return endpoints.build(settings, CORE, endpoints.external(settings))


def test_stores_elsewhere_reach_the_contract_with_their_own_keys_or_the_common_ones(tmp_path: Path) -> None:
    values = contract(elsewhere(tmp_path))
    assert values["EXTERNAL_STORAGE_ENDPOINT"] == "https://data.example.com"
    assert (values["EXTERNAL_STORAGE_ACCESS_KEY"], values["EXTERNAL_STORAGE_SECRET_KEY"]) == ("minioadmin",) * 2
    assert values["INTERNAL_STORAGE_ENDPOINT"] == "http://10.0.0.7:9000"
    assert (values["INTERNAL_STORAGE_ACCESS_KEY"], values["INTERNAL_STORAGE_SECRET_KEY"]) == ("ours", "hush, hush")
    assert tuple(values) == ALWAYS


def test_a_region_elsewhere_is_told_to_every_sdk(tmp_path: Path) -> None:
    assert contract(elsewhere(tmp_path, S3_REGION="eu-north-1"))["AWS_DEFAULT_REGION"] == "eu-north-1"


@pytest.mark.parametrize(
    ("url", "host", "port", "secure"),
    [
        ("https://s3.example.com", "s3.example.com", 443, True),
        ("http://s3.example.com/", "s3.example.com", 80, False),
        ("https://[fd00::1]:9000", "fd00::1", 9000, True),
    ],
)
def test_where_a_store_elsewhere_is(tmp_path: Path, url: str, host: str, port: int, secure: bool) -> None:
    place = elsewhere(tmp_path, S3_DATASETS_ENDPOINT=url).place("minio-datasets")
    assert (place.host, place.port, place.secure) == (host, port, secure)


def test_an_address_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(PlatformError, match="S3_RESULTS_ENDPOINT is not set") as caught:
        elsewhere(tmp_path, S3_RESULTS_ENDPOINT="")
    assert caught.value.code == "SETTING_INVALID"


def test_addresses_mean_nothing_while_the_stores_are_ours(tmp_path: Path) -> None:
    assert endpoints.external(settings_of(tmp_path, **{**ELSEWHERE, "PLATFORM_S3_ENGINE": "silo"})) == {}


def test_a_tier_with_stores_of_its_own_refuses(tmp_path: Path) -> None:
    with pytest.raises(PlatformError, match="PLATFORM_S3_ENGINE"):
        endpoints.refuse_external(settings_of(tmp_path, **ELSEWHERE), "native", "remove it")


def test_the_name_of_a_database_is_quoted_in_its_url(tmp_path: Path) -> None:
    ends = built(tmp_path)
    assert ends.database_url("a b?c/d#%").endswith("/a%20b%3Fc%2Fd%23%25")


def test_the_contract_has_a_login_for_mlflow_where_it_runs_and_wants_one(tmp_path: Path) -> None:
    plain = built(tmp_path, ("postgres", "mlflow"))
    assert not set(catalog.MLFLOW_LOGIN) & set(contract(plain))
    closed = replace(plain, mlflow=endpoints.Login("admin", "twelve-or-more"))
    assert [contract(closed)[name] for name in catalog.MLFLOW_LOGIN] == ["admin", "twelve-or-more"]
    assert not set(catalog.MLFLOW_LOGIN) & set(contract(replace(closed, services=("postgres",))))


# --- names that other tools look for


def test_familiar_names_are_those_of_the_catalogue(tmp_path: Path) -> None:
    assert tuple(endpoints.familiar(built(tmp_path))) == catalog.FAMILIAR_NAMES


@pytest.mark.parametrize(("store", "url"), [("datasets", "http://localhost:3"), ("results", "http://localhost:4")])
def test_each_store_has_its_own_familiar_names(tmp_path: Path, store: str, url: str) -> None:
    ends = built(tmp_path, MINIO_DATASETS_PORT="3", MINIO_RESULTS_PORT="4")
    assert endpoints.familiar(ends, store)["AWS_ENDPOINT_URL_S3"] == url
    assert f"[profile {store}]\nendpoint_url = {url}\n" in endpoints.profiles(ends)
    assert (
        f"# AWS_* is the store of {'data sets' if store == 'datasets' else store}" in endpoints.store_comments(store)[2]
    )


def test_familiar_names_have_the_keys_and_the_region_of_their_store(tmp_path: Path) -> None:
    places = {
        service: StorePlace(f"https://{name}.example", Login(f"{name}-key", f"{name}-secret"), f"{name}-1")
        for name, service in endpoints.STORES.items()
    }
    ends = replace(built(tmp_path), elsewhere=places)
    for name in endpoints.STORES:
        found = endpoints.familiar(ends, name)
        assert tuple(found) == catalog.FAMILIAR_NAMES
        aws = [found[f"AWS_{part}"] for part in ("ENDPOINT_URL_S3", "ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "REGION")]
        assert aws == [f"https://{name}.example", f"{name}-key", f"{name}-secret", f"{name}-1"]


def test_a_familiar_name_among_the_settings_is_recognised_as_an_output(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("PGHOST=db\n")
    with pytest.raises(PlatformError, match="is an output of"):
        settings_of(tmp_path)
