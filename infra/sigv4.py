"""AWS Signature Version 4 for single small S3 requests, on the standard library alone.

Probes and bucket set-up run in every `up` and in the supervisor, where importing boto3 (0.4 s, 30 MB) would
cost more than the work. Backups of objects sign with it, too; trainings use boto3. Tests compare it to botocore's.
Source: "Authenticating Requests (AWS Signature Version 4)", Amazon S3 API reference.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import http.client
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

REGION = "us-east-1"
NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
_BLANKS = re.compile(r"[ \t]+")


@dataclass(frozen=True)
class Reply:
    """Status and body of an S3 answer."""

    status: int
    body: bytes


@dataclass(frozen=True)
class Store:
    """An S3 server: host, port and keys, whether it speaks TLS, the region that requests are signed for."""

    host: str
    port: int
    access_key: str
    secret_key: str
    secure: bool = False
    region: str = REGION

    def request(self, method: str, path: str, body: bytes = b"", limit: float = 5.0) -> Reply:
        """Send one signed request (no query string) and return the answer, whatever its status.

        Args:
            path: absolute, not yet percent-encoded.
            limit: seconds for connecting and for each read.

        Raises:
            OSError: no connection, or none within the limit; http.client.HTTPException: no HTTP answer.
        """
        encoded = quote(path, safe="/-_.~")
        headers = sign(self, method, encoded, body, time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()))
        connection = connect(self.host, self.port, self.secure, timeout=limit)
        try:
            connection.request(method, encoded, body=body, headers=headers)
            answer = connection.getresponse()
            return Reply(answer.status, limited(answer))
        finally:
            connection.close()


LARGEST_ANSWER = 64 << 20
"""Bytes of an answer that is read into memory; a page of a listing with 1,000 keys has less than 3 MB."""


def limited(answer: http.client.HTTPResponse) -> bytes:
    """Return the body of an answer that has to fit into memory.

    Raises:
        http.client.HTTPException: it is longer than LARGEST_ANSWER.
    """
    body = answer.read(LARGEST_ANSWER + 1)
    if len(body) > LARGEST_ANSWER:
        raise http.client.HTTPException(f"an answer of more than {LARGEST_ANSWER >> 20} MB")
    return body


def bucket_body(region: str) -> bytes:
    """Return the body of a request that makes a bucket: its region, but for the default one, which must not be named.

    Source: CreateBucket, Amazon S3 API reference.
    """
    if region == REGION:
        return b""
    named = f"<LocationConstraint>{region}</LocationConstraint>"
    return f'<CreateBucketConfiguration xmlns="{NAMESPACE}">{named}</CreateBucketConfiguration>'.encode()


def sign(store: Store, method: str, encoded_path: str, body: bytes, stamp: str) -> dict[str, str]:
    """Return the headers that authenticate a request at the time `stamp` (YYYYMMDDThhmmssZ)."""
    digest = hashlib.sha256(body).hexdigest()
    host = host_header(store.host, store.port, store.secure)
    headers = {"host": host, "x-amz-content-sha256": digest, "x-amz-date": stamp}
    keys = (store.access_key, store.secret_key)
    return {**headers, "Authorization": authorization(keys, method, encoded_path, "", headers, store.region)}


def host_header(host: str, port: int, secure: bool) -> str:
    """Return the header `host`, which is signed: without the port where it is the scheme's own, as clients write it."""
    name = f"[{host}]" if ":" in host else host
    return name if port == (443 if secure else 80) else f"{name}:{port}"


def connect(host: str, port: int, secure: bool, timeout: float, blocksize: int = 8192) -> http.client.HTTPConnection:
    """Return a connection, not yet opened; TLS checks the server's certificate (SSL_CERT_FILE adds a company CA)."""
    if not secure:
        return http.client.HTTPConnection(host, port, timeout=timeout, blocksize=blocksize)
    import ssl

    context = ssl.create_default_context()
    return http.client.HTTPSConnection(host, port, timeout=timeout, blocksize=blocksize, context=context)


def authorization(
    keys: tuple[str, str], method: str, path: str, query: str, headers: Mapping[str, str], region: str = REGION
) -> str:
    """Return the Authorization header.

    Args:
        keys: access key and secret key.
        path: percent-encoded.
        query: in canonical order, percent-encoded.
        headers: lower-case; all of them are signed. `x-amz-date` and `x-amz-content-sha256` must be among them.
    """
    names = sorted(headers)
    lines = [name + ":" + _BLANKS.sub(" ", headers[name].strip(" \t")) for name in names]
    signed = ";".join(names)
    canonical = "\n".join([method, path, query, *lines, "", signed, headers["x-amz-content-sha256"]])
    stamp = headers["x-amz-date"]
    scope = f"{stamp[:8]}/{region}/s3/aws4_request"
    # Header values are Latin-1 text, as http.client reads and sends them: the bytes that are signed are those sent.
    digest = hashlib.sha256(canonical.encode("latin-1")).hexdigest()
    to_sign = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{digest}"
    signature = hmac.new(_key(keys[1], stamp[:8], region), to_sign.encode(), hashlib.sha256).hexdigest()
    return f"AWS4-HMAC-SHA256 Credential={keys[0]}/{scope}, SignedHeaders={signed}, Signature={signature}"


@functools.lru_cache(maxsize=4)
def _key(secret: str, day: str, region: str) -> bytes:
    key = b"AWS4" + secret.encode()
    for part in (day, region, "s3", "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key
