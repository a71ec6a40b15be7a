"""A proxy before an S3 server that counts the requests and lets a test spoil some of them."""

from __future__ import annotations

import contextlib
import http.client
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from infra.data.objects.login import StoreLogin


@dataclass(frozen=True)
class Asked:
    """A request as it came in."""

    method: str
    path: str
    query: dict[str, list[str]]

    @property
    def listing(self) -> bool:
        """Whether it asks for a page of a listing."""
        return "list-type" in self.query or "versions" in self.query

    @property
    def reads(self) -> bool:
        """Whether it reads an object's content."""
        return self.method == "GET" and not self.query and self.path.count("/") > 1


Spoil = Callable[[Asked], "Spoiled | None"]


@dataclass(frozen=True)
class Spoiled:
    """What a request gets instead of its answer: a status with an S3 code, or only so many bytes of the body."""

    status: int = 0
    cut: int = -1
    code: str = "InternalError"


@dataclass
class Proxy:
    """The proxy: what was asked so far, and what is to happen to a request."""

    login: StoreLogin
    asked: list[Asked] = field(default_factory=list)
    spoil: Spoil = lambda asked: None

    def reads(self) -> list[str]:
        """Paths of the objects whose contents were read."""
        return [a.path for a in self.asked if a.reads]


@contextlib.contextmanager
def proxy(server: StoreLogin) -> Iterator[Proxy]:
    """A proxy for the block; its login goes where the server's went (signatures hold: the Host header is kept)."""
    made: Proxy

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _any(self) -> None:
            split = urlsplit(self.path)
            asked = Asked(self.command, split.path, parse_qs(split.query, keep_blank_values=True))
            made.asked.append(asked)
            spoiled = made.spoil(asked) or Spoiled()
            body = self.rfile.read(int(self.headers.get("content-length", "0")))
            if spoiled.status:
                self._send(spoiled.status, [], f"<Error><Code>{spoiled.code}</Code></Error>".encode())
                return
            link = http.client.HTTPConnection(server.host, server.port, timeout=60)
            link.request(self.command, self.path, body or None, dict(self.headers.items()))
            got = link.getresponse()
            self._send(got.status, got.getheaders(), got.read(), spoiled.cut)
            link.close()

        def _send(self, status: int, headers: list[tuple[str, str]], body: bytes, cut: int = -1) -> None:
            self.send_response_only(status)
            kept = [(n, v) for n, v in headers if n.lower() not in ("transfer-encoding", "connection")]
            if "content-length" not in {n.lower() for n, _ in kept}:
                kept.append(("content-length", str(len(body))))
            for name, value in kept:
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body[:cut] if cut >= 0 else body)
            if 0 <= cut < len(body):
                self.wfile.flush()
                self.close_connection = True

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _any  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:
            """Nothing is logged."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener:
        listener.daemon_threads = True
        login = StoreLogin(server.name, "127.0.0.1", listener.server_address[1], server.access_key, server.secret_key)
        made = Proxy(login)
        thread = threading.Thread(target=listener.serve_forever, daemon=True)
        thread.start()
        try:
            yield made
        finally:
            listener.shutdown()
            thread.join()
