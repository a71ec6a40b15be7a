"""The server of the page, with a backend that is a few lines long."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from apps import hosts
from apps.frontend.__main__ import LARGEST, STATIC, Server
from tests.unit.helpers import free_port


class Backend(BaseHTTPRequestHandler):
    """Answers with what it was asked."""

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        asked = {"method": self.command, "path": self.path, "body": self.rfile.read(length).decode()}
        body = json.dumps({**asked, "type": self.headers.get("Content-Type")}).encode()
        self.send_response(418)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_DELETE = do_GET  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:
        pass


def serving(server: ThreadingHTTPServer) -> Iterator[int]:
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


@pytest.fixture
def backend() -> Iterator[int]:
    yield from serving(ThreadingHTTPServer(("127.0.0.1", 0), Backend))


@pytest.fixture
def frontend(backend: int) -> Iterator[int]:
    yield from serving(Server(("127.0.0.1", 0), f"http://127.0.0.1:{backend}", hosts.allowed({})))


def ask(port: int, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes, str]:
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        link.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = link.getresponse()
        return answer.status, answer.read(), answer.getheader("Content-Type", "")
    finally:
        link.close()


@pytest.mark.parametrize("path", ["/", "/app.js", "/style.css"])
def test_the_page_and_its_parts_are_served(frontend: int, path: str) -> None:
    status, body, kind = ask(frontend, "GET", path)
    assert (status, body) == (200, (STATIC / (path[1:] or "index.html")).read_bytes())
    assert kind.endswith("charset=utf-8")


@pytest.mark.parametrize("path", ["/../__main__.py", "/static/../__init__.py", "/%2e%2e/__main__.py", "/x"])
def test_nothing_else_is_served(frontend: int, path: str) -> None:
    assert ask(frontend, "GET", path)[0] == 404


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_questions_go_to_the_backend_as_they_are(frontend: int, method: str) -> None:
    body = b'{"epochs": 3}' if method == "POST" else None
    status, told, _ = ask(frontend, method, "/api/trainings?limit=2", body, Content_Type="text/plain")
    expected = {"method": method, "path": "/trainings?limit=2", "body": (body or b"").decode(), "type": "text/plain"}
    assert (status, json.loads(told)) == (418, expected)


def test_a_backend_that_is_away_is_said() -> None:
    for port in serving(Server(("127.0.0.1", 0), f"http://127.0.0.1:{free_port()}", hosts.allowed({}))):
        status, body, _ = ask(port, "GET", "/api/ready")
        assert (status, json.loads(body)["error"]["code"]) == (502, "UNREACHABLE")
        assert ask(port, "GET", "/health")[0] == 200


@pytest.mark.parametrize("length", [str(LARGEST + 1), "-1", "x"])
def test_a_body_that_is_too_large_or_has_no_length_is_refused(frontend: int, length: str) -> None:
    assert ask(frontend, "POST", "/api/trainings", None, Content_Length=length)[0] == 413


def test_the_page_may_load_nothing_from_elsewhere() -> None:
    for name in ("index.html", "app.js", "style.css"):
        text = (STATIC / name).read_text(encoding="utf-8")
        assert "://" not in text
        assert "innerHTML" not in text


@pytest.mark.parametrize("path", ["/", "/health", "/api/trainings"])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_a_page_of_another_site_that_leads_its_name_here_gets_nothing(frontend: int, method: str, path: str) -> None:
    status, body, _ = ask(frontend, method, path, Host="evil.example")
    assert status == 421
    assert b"APP_ALLOWED_HOSTS" in body
    assert b"<title>" not in body
