"""A Docker engine that only says what it is: for engines that are too old, or too odd, for a test machine."""

from __future__ import annotations

import contextlib
import json
import socketserver
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True

    def __init__(self, path: Path, version: Mapping[str, Any], info: Mapping[str, Any]) -> None:
        self.version, self.info = version, info
        super().__init__(str(path), _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        """`/version` and `/info` say the version, `/_ping` OK; everything else is not known."""
        name = self.path.partition("?")[0].rpartition("/")[2]
        known = {"version": json.dumps(self.server.version), "_ping": "OK"}
        said = {"ServerVersion": self.server.version["Version"], "OSType": "linux", **self.server.info}
        known["info"] = json.dumps(said)
        body = known.get(name, json.dumps({"message": "page not found"})).encode()
        self.send_response(200 if name in known else 404)
        self.send_header("Api-Version", str(self.server.version["ApiVersion"]))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_HEAD(self) -> None:
        """As GET; clients stop reading."""
        self.do_GET()

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def address_string(self) -> str:
        """Clients of a Unix socket have no address."""
        return "local"


@contextlib.contextmanager
def fake_engine(path: Path, version: str, api: str, **info: object) -> Iterator[str]:
    """Listen on a Unix socket as an engine of that version and API; gives the URL for DOCKER_HOST.

    `info` is more of what it says of itself.
    """
    said = {"Version": version, "ApiVersion": api, "MinAPIVersion": "1.12", "Os": "linux", "Arch": "amd64"}
    with _Server(path, said, info) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"unix://{path}"
        finally:
            server.shutdown()
