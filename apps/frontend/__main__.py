"""`python -m apps.frontend`: the page on APP_HOST (127.0.0.1) and APP_PORT (8001); `/api/...` is asked of BACKEND_URL.

On one address there is nothing to allow across origins, and the browser need not know where the backend is.
Needs nothing but Python's standard library. APP_ALLOWED_HOSTS names what it may be called, beside localhost.
"""

from __future__ import annotations

import http.client
import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

from apps import hosts

STATIC = Path(__file__).resolve().parent / "static"
FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/app.js": ("app.js", "text/javascript; charset=utf-8"),
    "/style.css": ("style.css", "text/css; charset=utf-8"),
}
LARGEST = 65_536
"""Bytes of a request's body, at most."""
LIMIT = 60.0
"""Seconds for the backend's answer, and for a browser to send its request."""


class Server(ThreadingHTTPServer):
    """Serves the page; knows where the backend is."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], backend: str, names: frozenset[str]) -> None:
        where = urlsplit(backend)
        self.names = names
        self.backend = (where.hostname or "127.0.0.1", where.port or 80)
        super().__init__(address, Handler)


class Handler(BaseHTTPRequestHandler):
    """Files of the page, and questions to the backend."""

    server: Server
    protocol_version = "HTTP/1.1"
    timeout = LIMIT

    def do_GET(self) -> None:
        """Send a file, `/health`, or the backend's answer."""
        path = urlsplit(self.path).path
        if not self._is_meant():
            return
        if path in FILES:
            name, kind = FILES[path]
            self._answer(200, (STATIC / name).read_bytes(), kind)
        elif path == "/health":
            self._answer(200, b'{"status":"ok"}')
        else:
            self._pass_on()

    def do_POST(self) -> None:
        """Pass the request on to the backend."""
        if self._is_meant():
            self._pass_on()

    do_DELETE = do_POST  # noqa: N815 - the name is http.server's

    def _is_meant(self) -> bool:
        """Refuse a request under the name of another site."""
        host = self.headers.get("Host")
        good = hosts.accepts(self.server.names, host, self.connection.getsockname()[0])
        if not good:
            self.close_connection = True
            self._fail(421, "USAGE", hosts.refusal(host))
        return good

    def _pass_on(self) -> None:
        if not self.path.startswith("/api/"):
            self._fail(404, "NOT_FOUND", "there is no such page")
            return
        body = self._body()
        if body is None:
            self.close_connection = True
            self._fail(413, "USAGE", f"the request has no length, or more than {LARGEST} bytes")
            return
        try:
            self._answer(*self._asked(body))
        except (OSError, http.client.HTTPException) as error:
            self._fail(502, "UNREACHABLE", f"the backend does not answer: {error}")

    def _body(self) -> bytes | None:
        length = self.headers.get("Content-Length", "0")
        fits = length.isascii() and length.isdigit() and int(length) <= LARGEST
        return self.rfile.read(int(length)) if fits and not self.headers.get("Transfer-Encoding") else None

    def _asked(self, body: bytes) -> tuple[int, bytes, str]:
        connection = http.client.HTTPConnection(*self.server.backend, timeout=LIMIT)
        try:
            # The type goes along: what another site's form can send is no JSON, and the backend refuses it.
            kind = self.headers.get("Content-Type")
            connection.request(
                self.command, self.path.removeprefix("/api"), body, {"Content-Type": kind} if kind else {}
            )
            answer = connection.getresponse()
            return answer.status, answer.read(), answer.getheader("Content-Type", "application/json")
        finally:
            connection.close()

    def _fail(self, status: int, code: str, message: str) -> None:
        self._answer(status, json.dumps({"error": {"code": code, "message": message, "why": ""}}).encode())

    def _answer(self, status: int, body: bytes, kind: str = "application/json") -> None:
        self.send_response(status)
        headers = {"Content-Type": kind, "Content-Length": str(len(body)), "Cache-Control": "no-store"}
        headers |= {"Content-Security-Policy": "default-src 'self'", "X-Content-Type-Options": "nosniff"}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Log nothing: the page asks every second."""


def main() -> int:
    """Serve until a signal ends the process."""
    host, port = os.environ.get("APP_HOST") or "127.0.0.1", int(os.environ.get("APP_PORT") or "8001")
    backend = os.environ.get("BACKEND_URL") or "http://127.0.0.1:8000"
    with Server((host, port), backend, hosts.allowed(os.environ)) as server:
        sys.stderr.write(f"serving on {host}:{port}\n")
        server.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
