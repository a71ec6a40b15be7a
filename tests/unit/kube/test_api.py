"""The client of the Kubernetes API against a server with TLS that asks for a certificate."""

from __future__ import annotations

import base64
import json
import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from infra.kube import kubeconfig
from infra.kube.api import Api, NoAnswer, connect

pytestmark = pytest.mark.skipif(not shutil.which("openssl"), reason="there is no openssl to make certificates with")


class Handler(BaseHTTPRequestHandler):
    """What was asked, and with which token."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        said = {"method": self.command, "path": self.path, "token": self.headers.get("Authorization", "")}
        body = json.dumps({"message": "no"} if self.path == "/none" else said).encode()
        self.send_response(404 if self.path == "/none" else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        if self.path == "/last":  # as a server that ends connections which were idle
            self.close_connection = True

    do_POST = do_GET  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def pair(tmp_path: Path) -> tuple[str, str]:
    """A certificate for 127.0.0.1 that is its own authority, and its key, as PEM."""
    names = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", str(tmp_path / "key"), "-out", str(tmp_path / "crt")]
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-x509", "-days", "2"]
    subprocess.run(["openssl", "req", *kind, *names, *files], check=True, capture_output=True)
    return (tmp_path / "crt").read_text(), (tmp_path / "key").read_text()


@pytest.fixture
def server(tmp_path: Path, pair: tuple[str, str]) -> Iterator[int]:
    made = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cadata=pair[0])
    made.load_cert_chain(tmp_path / "crt", tmp_path / "key")
    made.verify_mode = ssl.CERT_OPTIONAL
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as serving:
        serving.socket = made.wrap_socket(serving.socket, server_side=True)
        threading.Thread(target=serving.serve_forever, args=(0.01,), daemon=True).start()
        yield serving.server_address[1]
        serving.shutdown()


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def written(path: Path, port: int, authority: str, **user: str) -> Path:
    encoded = {n: _base64(v) if n.endswith("data") else v for n, v in user.items()}
    link = {"server": f"https://127.0.0.1:{port}", "certificate-authority-data": _base64(authority)}
    body: dict[str, Any] = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
        "clusters": [{"name": "k", "cluster": link}],
        "users": [{"name": "u", "user": encoded}],
    }
    path.write_text(json.dumps(body))
    return path


def test_a_certificate_is_shown_and_one_connection_kept(tmp_path: Path, server: int, pair: tuple[str, str]) -> None:
    user = {"client-certificate-data": pair[0], "client-key-data": pair[1]}
    api = connect(written(tmp_path / "config", server, pair[0], **user))
    assert api.get("/last")["path"] == "/last"
    assert api.get("/api", watch="a b")["path"] == "/api?watch=a%20b", "a connection that has ended is replaced"
    assert json.loads(api.send("POST", "/jobs", "{}"))["method"] == "POST"
    with pytest.raises(NoAnswer, match="no") as caught:
        api.get("/none")
    assert caught.value.status == 404
    api.close()


def test_a_token_is_asked_for_each_request(tmp_path: Path, server: int, pair: tuple[str, str]) -> None:
    found = kubeconfig.load(written(tmp_path / "config", server, pair[0], token="first"))
    api = Api(found)
    assert api.get("/")["token"] == "Bearer first"
    api.close()
    tokens = iter(["second", "third"])
    renewed = Api(kubeconfig.Access("127.0.0.1", server, authority=pair[0], token=lambda: next(tokens)))
    assert [renewed.get("/")["token"] for _ in range(2)] == ["Bearer second", "Bearer third"]
    renewed.close()


def test_a_server_of_another_authority_is_not_trusted(tmp_path: Path, server: int, pair: tuple[str, str]) -> None:
    with pytest.raises(NoAnswer, match="does not answer") as caught:
        Api(kubeconfig.Access("localhost", server, authority=pair[0])).get("/")  # the certificate has another name
    assert caught.value.status == 0
