"""A small image registry on this machine that speaks the real protocol: tokens, manifests, refusals, rate limits."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

INDEX = b'{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": []}'
SINGLE = b'{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json"}'
TOKEN = "a-token"


def digest(content: bytes) -> str:
    """The digest of a manifest."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


class Registry:
    """What it has (`repository:tag`), how it behaves, and what it was asked."""

    def __init__(self) -> None:
        self.has: set[str] = set()
        self.private: set[str] = set()
        self.limited = 0
        """So many manifests are refused for too many requests before one is given."""
        self.says_digest = True
        self.asked: list[str] = []
        self.host = ""


class _Handler(BaseHTTPRequestHandler):
    registry: Registry

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        url = urlsplit(self.path)
        self.registry.asked.append(f"{self.command} {url.path}")
        if url.path == "/token":
            return self._token(parse_qs(url.query))
        _, _, *repository, _, tag = url.path.split("/")
        name = f"{'/'.join(repository)}:{tag}"
        if self.headers.get("Authorization") != f"Bearer {TOKEN}-{'/'.join(repository)}":
            realm = f'Bearer realm="http://{self.registry.host}/token",service="here",scope="repository:{"/".join(repository)}:pull"'
            return self._send(401, {"WWW-Authenticate": realm})
        if self.registry.limited:
            self.registry.limited -= 1
            return self._send(429)
        if name not in self.registry.has:
            return self._send(404)
        content = INDEX if "index" in self.headers.get("Accept", "") else SINGLE
        headers = {"Docker-Content-Digest": digest(content)} if self.registry.says_digest else {}
        return self._send(200, headers, content if body else b"")

    def _token(self, query: dict[str, list[str]]) -> None:
        repository = query["scope"][0].split(":")[1]
        if repository in self.registry.private or query.get("service") != ["here"]:
            return self._send(403)
        return self._send(200, {}, f'{{"token": "{TOKEN}-{repository}"}}'.encode())

    def _send(self, code: int, headers: dict[str, str] | None = None, content: bytes = b"") -> None:
        self.send_response(code)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)


@contextmanager
def running() -> Iterator[Registry]:
    """A registry on a free port of 127.0.0.1."""
    registry = Registry()
    handler = type("Handler", (_Handler,), {"registry": registry})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    registry.host = f"127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield registry
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
