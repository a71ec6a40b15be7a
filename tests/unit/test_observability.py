"""The proof that observability works: how its data sources are reached."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from infra import catalog, endpoints
from infra.endpoints import Endpoints, Login
from infra.observability import Sources
from tests.unit.helpers import settings_of


class Asked(BaseHTTPRequestHandler):
    """Answers with the path and the login of each question; Grafana takes only the login of the tier."""

    def do_GET(self) -> None:
        given = base64.b64decode((self.headers.get("Authorization") or "").removeprefix("Basic ")).decode()
        status = 200 if given in ("", f"admin:{catalog.GRAFANA_ON_KIND}") else 401
        body = json.dumps({"path": self.path, "login": given}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def ends(tmp_path: Path) -> Iterator[Endpoints]:
    """Endpoints of a cluster, whose Grafana has a login that is not the one of the settings."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Asked) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        built = endpoints.build(settings_of(tmp_path), ("prometheus", "loki", "grafana"))
        ports = dict.fromkeys(built.ports, server.server_port)
        yield replace(built, ports=ports, grafana=Login("admin", catalog.GRAFANA_ON_KIND))
        server.shutdown()


def test_through_grafana_with_the_login_of_the_tier(ends: Endpoints) -> None:
    found = Sources(ends).get("prometheus", "/api/v1/targets", state="active")
    assert found["path"].startswith("/api/datasources/proxy/uid/prometheus/api/v1/targets?state=active")
    assert found["login"] == f"admin:{catalog.GRAFANA_ON_KIND}"


def test_directly_and_without_a_login_where_grafana_does_not_run(ends: Endpoints) -> None:
    found = Sources(replace(ends, services=("prometheus",))).get("prometheus", "/api/v1/query")
    assert (found["path"], found["login"]) == ("/api/v1/query", "")


def test_a_refused_login_is_said(ends: Endpoints) -> None:
    with pytest.raises(ValueError, match="HTTP 401"):
        Sources(replace(ends, grafana=Login("admin", "another"))).get("prometheus", "/api/v1/query")
