from __future__ import annotations

import contextlib
import datetime
import http.client
import socket
import threading
from typing import Any
from urllib.parse import quote

import pytest
from botocore import auth, awsrequest, credentials

from infra import sigv4
from infra.sigv4 import Store
from tests.unit.helpers import free_port, serving

STAMP = "20260102T030405Z"
STORE = Store("127.0.0.1", 9000, "minioadmin", "minioadmin")
PATHS = ["/", "/bucket", "/bucket/key", "/b/two words", "/b/한글/é", "/b/a+b&c=d%e~f-g_h.i", "/b/a//b/", "/b/'(x)!*"]


@pytest.fixture
def _fixed_time(monkeypatch: pytest.MonkeyPatch) -> None:
    fixed = datetime.datetime.strptime(STAMP, "%Y%m%dT%H%M%SZ")
    monkeypatch.setattr(auth, "get_current_datetime", lambda *_, **__: fixed)


def by_botocore(store: Store, method: str, encoded: str, body: bytes) -> dict[str, Any]:
    """The headers that botocore's signer for S3 makes of the same request."""
    url = f"http://{store.host}:{store.port}{encoded}"
    digest = sigv4.sign(store, method, encoded, body, STAMP)["x-amz-content-sha256"]
    headers = {"host": f"{store.host}:{store.port}", "X-Amz-Content-SHA256": digest}
    request = awsrequest.AWSRequest(method=method, url=url, data=body, headers=headers)
    request.context["payload_signing_enabled"] = True
    login = credentials.Credentials(store.access_key, store.secret_key)
    auth.S3SigV4Auth(login, "s3", sigv4.REGION).add_auth(request)
    return dict(request.headers.items())


@pytest.mark.usefixtures("_fixed_time")
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("method", "body"), [("GET", b""), ("PUT", "데이터".encode()), ("DELETE", b"")])
def test_the_signature_is_that_of_botocore(path: str, method: str, body: bytes) -> None:
    encoded = quote(path, safe="/-_.~")
    assert (
        sigv4.sign(STORE, method, encoded, body, STAMP)["Authorization"]
        == (by_botocore(STORE, method, encoded, body)["Authorization"])
    )


@pytest.mark.usefixtures("_fixed_time")
def test_secrets_beyond_ascii_are_signed_as_botocore_does() -> None:
    store = Store("127.0.0.1", 9000, "key+1", "pässwörd 한글/+")
    ours = sigv4.sign(store, "GET", "/", b"", STAMP)["Authorization"]
    assert ours == by_botocore(store, "GET", "/", b"")["Authorization"]


def test_another_secret_body_path_or_time_gives_another_signature() -> None:
    def signature(secret: str = "s", body: bytes = b"", path: str = "/", stamp: str = STAMP) -> str:
        return sigv4.sign(Store("h", 1, "k", secret), "PUT", path, body, stamp)["Authorization"]

    other_day = signature(stamp="20260103T030405Z")
    variants = {signature(), signature("t"), signature(body=b"x"), signature(path="/x"), other_day}
    assert len(variants) == 5


def test_the_request_that_is_sent_carries_path_headers_and_body() -> None:
    seen: list[str] = []

    def handle(link: socket.socket) -> None:
        request = b""
        while not request.endswith(b"\r\n\r\nbody"):
            request += link.recv(65536)
        seen.append(request.decode())
        link.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\nConnection: close\r\n\r\ngone")

    with serving(handle) as port:
        reply = Store("127.0.0.1", port, "k", "s").request("PUT", "/b/두 단어+", b"body")
    assert (reply.status, reply.body) == (404, b"gone")
    assert seen[0].splitlines()[0] == "PUT /b/%EB%91%90%20%EB%8B%A8%EC%96%B4%2B HTTP/1.1"
    assert f"\r\nhost: 127.0.0.1:{port}\r\n" in seen[0].lower()
    assert seen[0].lower().count("\r\nhost:") == 1


def test_nobody_there_is_an_os_error() -> None:
    with pytest.raises(ConnectionRefusedError):
        Store("127.0.0.1", free_port(), "k", "s").request("GET", "/")


def test_a_server_that_never_answers_is_a_time_out() -> None:
    def silent(link: socket.socket) -> None:
        while link.recv(65536):
            pass

    with serving(silent) as port, pytest.raises(TimeoutError):
        Store("127.0.0.1", port, "k", "s").request("GET", "/", limit=0.1)


@pytest.mark.usefixtures("_fixed_time")
def test_the_region_is_signed_as_botocore_does(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store("127.0.0.1", 9000, "k", "s", region="eu-north-1")
    ours = sigv4.sign(store, "PUT", "/b", b"x", STAMP)["Authorization"]
    monkeypatch.setattr(sigv4, "REGION", "eu-north-1")
    assert ours == by_botocore(store, "PUT", "/b", b"x")["Authorization"]


@pytest.mark.parametrize(
    ("place", "header"),
    [
        (("s3.example.com", 443, True), "s3.example.com"),
        (("s3.example.com", 443, False), "s3.example.com:443"),
        (("s3.example.com", 80, False), "s3.example.com"),
        (("fd00::1", 9000, True), "[fd00::1]:9000"),
    ],
)
def test_the_host_that_is_signed_is_the_one_that_clients_send(place: tuple[str, int, bool], header: str) -> None:
    assert sigv4.host_header(*place) == header


def test_only_another_region_is_named_when_a_bucket_is_made() -> None:
    assert sigv4.bucket_body("us-east-1") == b""
    assert b"<LocationConstraint>eu-north-1</LocationConstraint>" in sigv4.bucket_body("eu-north-1")


def test_a_certificate_that_is_not_trusted_is_refused() -> None:
    with serving(lambda link: link.sendall(b"HTTP/1.1 200 OK\r\n\r\n")) as port, pytest.raises(OSError, match="SSL"):
        Store("127.0.0.1", port, "k", "s", secure=True).request("GET", "/")


def test_an_answer_without_an_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server of somebody else once filled the memory."""
    monkeypatch.setattr(sigv4, "LARGEST_ANSWER", 1000)

    def serve(listener: socket.socket) -> None:
        link, _ = listener.accept()
        with link, contextlib.suppress(OSError):
            link.recv(65536)
            link.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
            while True:
                link.sendall(bytes(4096))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        store = sigv4.Store("127.0.0.1", listener.getsockname()[1], "minioadmin", "minioadmin")
        with pytest.raises(http.client.HTTPException, match="more than"):
            store.request("GET", "/")
        thread.join(10)
    assert not thread.is_alive()
