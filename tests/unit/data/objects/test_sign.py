from __future__ import annotations

import datetime
from typing import Any

import pytest
from botocore import auth, awsrequest, credentials

from infra.data.objects import sign

STAMP = "20260102T030405Z"
LOGIN = ("minioadmin", "s3cret: #1 $HOME %20")
KEYS = ["plain.txt", "two words", "../up", "a//b", "./x", "dir/", "한글/é", "a+b&c=d%e~f", "-lead", "'(x)!*\n\x07"]
HEADERS = {"x-amz-meta-who": "a  b", "x-amz-meta-latin": "\xe9t\xe9", "content-type": "text/plain; charset=utf-8"}


@pytest.fixture(autouse=True)
def _fixed_time(monkeypatch: pytest.MonkeyPatch) -> None:
    fixed = datetime.datetime.strptime(STAMP, "%Y%m%dT%H%M%SZ")
    monkeypatch.setattr(auth, "get_current_datetime", lambda *_, **__: fixed)


def by_botocore(method: str, path: str, query: str, headers: dict[str, str]) -> str:
    """The Authorization header that botocore's signer for S3 makes."""
    url = f"http://127.0.0.1:9000{path}" + (f"?{query}" if query else "")
    request = awsrequest.AWSRequest(method=method, url=url, headers={**headers, "host": "127.0.0.1:9000"})
    request.headers["X-Amz-Content-SHA256"] = sign.EMPTY
    request.context["payload_signing_enabled"] = True
    auth.S3SigV4Auth(credentials.Credentials(*LOGIN), "s3", sign.REGION).add_auth(request)
    made: Any = request.headers["Authorization"]
    return str(made)


def ours(method: str, path: str, query: str, headers: dict[str, str]) -> str:
    always = {"host": "127.0.0.1:9000", "x-amz-date": STAMP, "x-amz-content-sha256": sign.EMPTY}
    return sign.authorization(LOGIN, method, path, query, {**headers, **always})


@pytest.mark.parametrize("key", KEYS)
def test_it_signs_any_key_as_botocore_does(key: str) -> None:
    path = sign.encode_path("bucket", key)
    assert ours("GET", path, "", {}) == by_botocore("GET", path, "", {})


def test_it_signs_queries_as_botocore_does() -> None:
    query = sign.encode_query({"versions": "", "prefix": "a b/é+", "encoding-type": "url", "X": "1"})
    assert ours("GET", "/bucket", query, {}) == by_botocore("GET", "/bucket", query, {})


def test_it_signs_headers_as_botocore_does() -> None:
    plain = {name: value for name, value in HEADERS.items() if value.isascii()}
    assert ours("PUT", "/bucket/key", "", plain) == by_botocore("PUT", "/bucket/key", "", plain)


def test_keys_are_sent_verbatim() -> None:
    assert sign.encode_path("b", "../a//./b/") == "/b/../a//./b/"
    assert sign.encode_path("b", "\udcff") == "/b/%FF"
