"""The parts of the backend that need no platform."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from apps import hosts
from apps.backend import api
from apps.backend.links import links
from apps.backend.ready import MASK, Readiness, masked
from infra import catalog
from infra.errors import PlatformError
from infra.training.contract import Contract
from tests.unit.helpers import free_port

PASSWORD = "p@ss word"


def contract(port: int = 1, **changes: str) -> Contract:
    values = dict.fromkeys(catalog.CONTRACT_NAMES, f"http://127.0.0.1:{port}")
    values |= {
        "DATABASE_URL": f"postgresql://admin:p%40ss%20word@127.0.0.1:{port}/platform",
        "USER_DATABASE_URL": f"postgresql://admin:p%40ss%20word@127.0.0.1:{port}/users",
        "REDIS_URL": f"redis://127.0.0.1:{port}/0",
        "TEMPORAL_HOST": f"127.0.0.1:{port}",
        "TEMPORAL_NAMESPACE": "default",
        "EXTERNAL_STORAGE_SECRET_KEY": "external-secret",
        "INTERNAL_STORAGE_SECRET_KEY": "internal-secret",
        "OBSERVABILITY_BACKENDS": "database",
    }
    return Contract(values | changes)


def test_every_dependency_that_is_away_has_its_reason() -> None:
    found = asyncio.run(Readiness(contract(free_port(), OBSERVABILITY_BACKENDS="database,mlflow,clearml")).ask())
    names = {"database platform", "database users", "redis", "temporal", "external storage", "internal storage"}
    assert set(found) == names | {"mlflow", "clearml"}
    assert [name for name, state in found.items() if state.ready or not state.reason] == []


def test_trackers_that_are_not_configured_are_not_asked() -> None:
    found = asyncio.run(Readiness(contract(free_port())).ask())
    assert not {"mlflow", "clearml"} & set(found)


@pytest.mark.parametrize("secret", [PASSWORD, "p%40ss%20word", "external-secret", "internal-secret"])
def test_reasons_hold_no_password(secret: str) -> None:
    assert masked(f"refused: {secret}!", contract().values) == f"refused: {MASK}!"


def test_links_from_the_contract_hold_no_login() -> None:
    text = json.dumps(links(contract(OBSERVABILITY_BACKENDS="mlflow"), {}))
    assert "@" not in text
    assert "p%40ss" not in text
    assert "MLflow" in text
    assert "ClearML" not in text


def test_given_links_are_taken_as_they_are() -> None:
    given = json.dumps({"Grafana": "http://127.0.0.1:30030", "Redis": "127.0.0.1:30679"})
    found = links(contract(), {"SERVICE_LINKS": given})
    assert [(e["name"], e["web"]) for e in found] == [("Grafana", True), ("Redis", False)]


@pytest.mark.parametrize("text", ["{", "[]", '{"a": 1}'])
def test_links_that_cannot_be_used_are_an_error(text: str) -> None:
    with pytest.raises(PlatformError, match="SERVICE_LINKS"):
        links(contract(), {"SERVICE_LINKS": text})


def test_a_script_is_no_link() -> None:
    found = links(contract(), {"SERVICE_LINKS": json.dumps({"x": "javascript:alert(1)"})})
    assert found[0]["web"] is False


@pytest.mark.parametrize("path", ["/health", "/services", "/trainings", "/openapi.json"])
def test_a_page_of_another_site_that_leads_its_name_here_gets_nothing(path: str) -> None:
    app = api.create(contract(), [], "subprocess", None, hosts.allowed({"APP_ALLOWED_HOSTS": "backend"}))
    assert _status(app, path, "evil.example") == 421
    assert _status(app, "/health", "backend:8000") == 200


def test_a_backend_without_a_key_starts_no_training() -> None:
    app = api.create(contract(), [], "subprocess", None)
    assert _status(app, "/trainings", "localhost", "POST") == 422


def _status(app: Any, path: str, host: str, method: str = "GET") -> int:
    """Ask an application, as a server does; the HTTP status of its answer."""
    sent: list[dict[str, Any]] = []
    headers = [(b"host", host.encode()), (b"content-type", b"application/json")]
    scope = {"type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": b""}
    scope |= {"headers": headers, "server": ("127.0.0.1", 8000), "root_path": "", "http_version": "1.1"}

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"{}"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    return int(sent[0]["status"])
