"""Grafana's password: which requests change it. Grafana has no wheel; its answers are those of its documentation."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from infra import endpoints, grafana
from infra.errors import PlatformError
from infra.settings import load


class Server(ThreadingHTTPServer):
    """A server with one user, as Grafana's API shows it."""

    password = "old"


class Api(BaseHTTPRequestHandler):
    server: Server

    def _answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def _knows(self) -> bool:
        given = self.headers["Authorization"].removeprefix("Basic ")
        return base64.b64decode(given).decode() == f"admin:{self.server.password}"

    def do_GET(self) -> None:
        self._answer(200 if self._knows() and self.path == "/api/user" else 401)

    def do_PUT(self) -> None:
        said = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        right = self._knows() and self.path == "/api/user/password" and said["oldPassword"] == self.server.password
        if right:
            self.server.password = said["newPassword"]
        self._answer(200 if right else 401)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server(("127.0.0.1", 0), Api)
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()


def ends(server: Server) -> endpoints.Endpoints:
    settings = load(environ={"GRAFANA_ADMIN_PASSWORD": "new"})
    built = endpoints.build(settings, ("grafana",))
    return replace(built, ports={**built.ports, "GRAFANA_PORT": server.server_address[1]})


def test_the_password_that_it_has_is_found_and_changed(server: Server) -> None:
    assert grafana.give_password(ends(server), ["wrong", "old"])
    assert server.password == "new"
    assert not grafana.give_password(ends(server), ["wrong", "old"])


def test_a_password_that_nobody_knows_stays(server: Server) -> None:
    with pytest.raises(PlatformError) as raised:
        grafana.give_password(ends(server), ["wrong"])
    assert raised.value.code == "LOGIN_REFUSED"
    assert server.password == "old"


def test_one_that_does_not_answer_is_said(server: Server) -> None:
    gone = replace(ends(server), ports={**ends(server).ports, "GRAFANA_PORT": 1})
    with pytest.raises(PlatformError) as raised:
        grafana.give_password(gone, [])
    assert raised.value.code == "UNREACHABLE"
