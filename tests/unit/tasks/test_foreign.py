from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from infra.endpoints import build, contract
from infra.settings import load
from infra.tasks.foreign import recognized
from infra.training.contract import Contract, Storage, connect_storage, own_session


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _object_store() -> None:
    store = Storage(f"http://127.0.0.1:{closed_port()}", "key", "secret")
    connect_storage(store, patience=1).list_buckets()


def _redis() -> None:
    import redis

    redis.Redis(host="127.0.0.1", port=closed_port()).ping()


def _web() -> None:
    import requests

    requests.get(f"http://127.0.0.1:{closed_port()}", timeout=2)


def _docker() -> None:
    import docker

    docker.DockerClient(f"tcp://127.0.0.1:{closed_port()}", version="1.41", timeout=2).ping()


def _postgres() -> None:
    import psycopg

    psycopg.connect(f"host=127.0.0.1 port={closed_port()} user=u dbname=d")


@pytest.mark.parametrize("call", [_object_store, _redis, _web, _docker, _postgres], ids=lambda c: c.__name__)
def test_a_server_that_is_away_is_unreachable_whoever_asked_it(call: Callable[[], None]) -> None:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - what it is, is the question
        call()
    found = recognized(caught.value)
    assert found is not None
    assert (found.code, found.exit) == ("UNREACHABLE", 5)
    assert type(caught.value).__name__ not in found.what
    assert found.steps


def _client_error(status: int, code: str) -> Exception:
    from botocore.exceptions import ClientError

    told: Any = {"Error": {"Code": code, "Message": "no"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    made: Exception = ClientError(told, "ListObjectsV2")
    return made


def _of_docker() -> Exception:
    import docker

    error: Exception = docker.errors.APIError("500 Server Error: no")
    return error


def _of_temporal(status: str) -> Exception:
    from temporalio.service import RPCError, RPCStatusCode

    return RPCError("Namespace x is not found.", RPCStatusCode[status], b"")


def _of_redis(name: str) -> Exception:
    from redis import exceptions

    error: Exception = getattr(exceptions, name)("no")
    return error


@pytest.mark.parametrize(
    ("error", "code", "step"),
    [
        (_client_error(404, "NoSuchBucket"), "REQUEST_REFUSED", "invoke up"),
        (_client_error(403, "AccessDenied"), "LOGIN_REFUSED", "MINIO_ROOT_USER"),
        (_client_error(500, "InternalError"), "REQUEST_REFUSED", "invoke logs"),
        (_of_docker(), "REQUEST_REFUSED", "docker info"),
        (_of_temporal("NOT_FOUND"), "REQUEST_REFUSED", "invoke logs -s temporal"),
        (_of_temporal("UNAVAILABLE"), "UNREACHABLE", "invoke logs -s temporal"),
        (_of_redis("ResponseError"), "REQUEST_REFUSED", "invoke logs -s redis"),
        (_of_redis("AuthenticationError"), "LOGIN_REFUSED", "REDIS_PASSWORD"),
    ],
)
def test_a_server_that_says_no_is_quoted_with_a_step(error: Exception, code: str, step: str) -> None:
    found = recognized(error)
    assert found is not None
    assert found.code == code
    assert found.why
    assert any(step in s for s in found.steps)
    assert type(error).__name__ not in found.what + found.why


def test_what_is_no_servers_failure_stays_a_defect() -> None:
    assert recognized(KeyError("x")) is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AWS_PROFILE", "nobody"),
        ("AWS_CONFIG_FILE", __file__),
        ("AWS_SHARED_CREDENTIALS_FILE", __file__),
        ("AWS_S3_US_EAST_1_REGIONAL_ENDPOINT", "bogus"),
        ("AWS_MAX_ATTEMPTS", "many"),
        ("AWS_ENDPOINT_URL", "http://127.0.0.2:1"),
        ("AWS_USE_FIPS_ENDPOINT", "true"),
    ],
)
def test_variables_of_the_caller_steer_no_object_store(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    values = contract(build(load(environ={}), ("postgres",)))
    client = connect_storage(replace(Contract(values).results, region="eu-west-1"))
    assert client.meta.endpoint_url == values["INTERNAL_STORAGE_ENDPOINT"]
    assert client.meta.region_name == "eu-west-1"


def test_a_sites_certificates_are_for_us_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", "/etc/site.pem")
    assert own_session()._session.get_config_variable("ca_bundle") == "/etc/site.pem"
