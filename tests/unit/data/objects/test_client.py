"""The client against answers that a test makes up."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from infra.data.objects import fetch, upload
from infra.data.objects.client import Client
from infra.data.objects.fetch import Scratch
from infra.data.objects.link import S3Error
from infra.data.objects.login import StoreLogin
from infra.data.objects.pool import Pool
from infra.data.objects.records import ObjectItem, Record
from infra.data.objects.xml import ListedObject
from infra.errors import ExitCode, PlatformError
from tests.unit.helpers import answering, everything, serving

SECRET = "s3cret-that-nobody-may-see"
DATE = "Date: Mon, 23 Nov 2026 18:00:00 GMT\r\n"


def answer(body: bytes = b"", status: str = "200 OK", headers: str = "") -> bytes:
    """An HTTP answer."""
    return f"HTTP/1.1 {status}\r\n{DATE}{headers}Content-Length: {len(body)}\r\n\r\n".encode("latin-1") + body


def client_of(port: int) -> Client:
    return Client(StoreLogin("minio-datasets", "127.0.0.1", port, "access", SECRET), limit=2.0)


def error_body(code: str) -> bytes:
    return f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>why</Message></Error>".encode()


@pytest.mark.parametrize(
    ("code", "hint"),
    [("SignatureDoesNotMatch", ".env"), ("ExpiredToken", ".env"), ("RequestTimeTooSkewed", "clock")],
)
def test_refused_logins_and_wrong_clocks_are_said(code: str, hint: str) -> None:
    with serving(answering(answer(error_body(code), "403 Forbidden"))) as port:
        client = client_of(port)
        with pytest.raises(PlatformError) as caught:
            client.request("GET", "bucket", "key")
        client.close()
    assert caught.value.exit == ExitCode.DEPENDENCY
    assert hint in everything(caught.value)
    assert SECRET not in everything(caught.value) + repr(client.login)


def listed(body: str) -> list[ListedObject]:
    page = f'<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{body}</ListBucketResult>'
    with serving(answering(answer(page.encode()))) as port:
        client = client_of(port)
        try:
            return list(client.listing("bucket"))
        finally:
            client.close()


def contents(key: str) -> str:
    return (
        f"<Contents><Key>{key}</Key><Size>3</Size><ETag>&quot;e&quot;</ETag><LastModified>m</LastModified></Contents>"
    )


def test_keys_of_a_listing_are_decoded_where_it_says_so() -> None:
    assert listed("<EncodingType>url</EncodingType>" + contents("a+b%2Bc%0A%FF/..")) == [
        ListedObject("a b+c\n\udcff/..", 3, "e", "m")
    ]
    assert listed(contents("a+b%2B")) == [ListedObject("a+b%2B", 3, "e", "m")]


@pytest.mark.parametrize(
    "body", ["<IsTruncated>true</IsTruncated>", "<IsTruncated>true</IsTruncated><NextContinuationToken/>", "<Contents>"]
)
def test_a_listing_that_is_not_whole_is_an_error(body: str) -> None:
    with pytest.raises(PlatformError) as caught:
        listed(body)
    assert caught.value.exit == ExitCode.DEPENDENCY


def in_turn(*answers: bytes) -> Callable[[socket.socket], None]:
    """A handler that gives one answer after the other, whatever connection they are asked over."""
    rest = iter(answers)

    def handle(link: socket.socket) -> None:
        while link.recv(65536):
            link.sendall(next(rest, b""))

    return handle


def fetched(tmp_path: Path, item: ObjectItem, *answers: bytes) -> Record:
    (tmp_path / "tmp").mkdir()
    with serving(in_turn(*answers)) as port:
        client = client_of(port)
        try:
            return fetch.fetch(client, Pool(tmp_path), Scratch(tmp_path / "tmp"), item)
        finally:
            client.close()


BODY = b"content"
MD5 = hashlib.md5(BODY, usedforsecurity=False).hexdigest()
MODIFIED = "Last-Modified: Mon, 23 Nov 2026 17:59:59 GMT\r\n"


def item(etag: str = MD5, size: int = len(BODY)) -> ObjectItem:
    return ObjectItem("minio-datasets", "bucket", "key", size, etag, "2026-11-23T17:59:59Z")


def etag(value: str) -> str:
    return f'ETag: "{value}"\r\n{MODIFIED}'


def test_headers_and_metadata_are_kept_verbatim(tmp_path: Path) -> None:
    headers = "Content-Type: a/b\r\nCache-Control: no-store\r\nX-Amz-Meta-Who: M\xc3\xa9  x\r\nServer: s\r\n"
    record = fetched(tmp_path, item(), answer(BODY, headers=etag(MD5) + headers))
    assert record["type"] == "a/b"
    assert record["headers"] == {"cache-control": "no-store"}
    assert record["metadata"] == {"who": "M\xc3\xa9  x"}
    sent = fetch.headers_of(record)
    assert sent == {"content-type": "a/b", "cache-control": "no-store", "x-amz-meta-who": "M\xc3\xa9  x"}
    assert "racy" not in record


def test_an_engine_that_ignores_conditions_is_caught_by_its_etag(tmp_path: Path) -> None:
    new = b"another content"
    other = hashlib.md5(new, usedforsecurity=False).hexdigest()
    looked = f"HTTP/1.1 200 OK\r\n{DATE}{etag(other)}Content-Length: {len(new)}\r\n\r\n".encode()
    record = fetched(tmp_path, item(), answer(new, headers=etag(other)), looked, answer(new, headers=etag(other)))
    assert (record["sha256"], record["etag"]) == (hashlib.sha256(new).hexdigest(), other)


def test_bytes_of_two_versions_are_never_taken(tmp_path: Path) -> None:
    mixed = answer(b"conTENT", headers=etag(MD5))
    head = f"HTTP/1.1 200 OK\r\n{DATE}{etag('new')}Content-Length: 7\r\n\r\n".encode()
    record = fetched(tmp_path, item(), mixed, head, *[mixed, head] * fetch.CHANGES)
    assert "sha256" not in record
    assert list((tmp_path / "tmp").iterdir()) == []


def test_an_etag_that_is_no_hash_is_trusted_only_when_time_has_passed(tmp_path: Path) -> None:
    head = f"HTTP/1.1 200 OK\r\n{DATE}{etag('opaque')}Content-Length: 7\r\n\r\n".encode()
    record = fetched(tmp_path, item("opaque"), answer(BODY, headers=etag("opaque")), head)
    assert record["racy"] is True


def test_an_object_that_is_listed_but_cannot_be_had_is_named(tmp_path: Path) -> None:
    page = f"<ListBucketResult>{contents('key')}</ListBucketResult>".encode()
    record = fetched(tmp_path, item(), answer(error_body("NoSuchKey"), "404 Not Found"), answer(page))
    assert "lists it" in record["failed"]


def test_an_object_that_was_deleted_is_noted(tmp_path: Path) -> None:
    page = b"<ListBucketResult></ListBucketResult>"
    record = fetched(tmp_path, item(), answer(error_body("NoSuchKey"), "404 Not Found"), answer(page))
    assert record["gone"] is True


def test_an_upload_whose_end_fails_after_200_is_an_error() -> None:
    with serving(answering(answer(error_body("InternalError")))) as port:
        client = client_of(port)
        with pytest.raises(S3Error, match="InternalError"):
            client.complete("bucket", "key", "upload", ["e"])
        client.close()


def test_parts_stay_within_their_number(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x")
    size = 10_000 * fetch.PART + 1
    with open(path, "rb") as file:
        lengths = [part.length for part in upload.parts(file, size)]
    assert (sum(lengths), len(lengths) <= upload.MOST_PARTS) == (size, True)
