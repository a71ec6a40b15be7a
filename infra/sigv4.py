"""AWS Signature Version 4 for single small S3 requests, on the standard library alone.

Probes and bucket set-up run in every `up` and in the supervisor, where importing boto3 (0.4 s, 30 MB) would
cost more than the work. Data operations use boto3, and tests hold this signer against botocore's.
Source: "Authenticating Requests (AWS Signature Version 4)", Amazon S3 API reference.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import time
from dataclasses import dataclass
from urllib.parse import quote

REGION = "us-east-1"


@dataclass(frozen=True)
class Reply:
    """Status and body of an S3 answer."""

    status: int
    body: bytes


@dataclass(frozen=True)
class Store:
    """An S3 server without TLS: host, port and keys."""

    host: str
    port: int
    access_key: str
    secret_key: str

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
        connection = http.client.HTTPConnection(self.host, self.port, timeout=limit)
        try:
            connection.request(method, encoded, body=body, headers=headers)
            answer = connection.getresponse()
            return Reply(answer.status, answer.read())
        finally:
            connection.close()


def sign(store: Store, method: str, encoded_path: str, body: bytes, stamp: str) -> dict[str, str]:
    """Headers that authenticate a request at the time `stamp` (YYYYMMDDThhmmssZ)."""
    digest = hashlib.sha256(body).hexdigest()
    signed = {"host": f"{store.host}:{store.port}", "x-amz-content-sha256": digest, "x-amz-date": stamp}
    names = ";".join(signed)
    lines = [method, encoded_path, "", *(f"{k}:{v}" for k, v in signed.items()), "", names, digest]
    scope = f"{stamp[:8]}/{REGION}/s3/aws4_request"
    to_sign = "\n".join(["AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256("\n".join(lines).encode()).hexdigest()])
    signature = _hmac(_key(store.secret_key, stamp[:8]), to_sign).hex()
    credential = f"Credential={store.access_key}/{scope}"
    return {**signed, "Authorization": f"AWS4-HMAC-SHA256 {credential}, SignedHeaders={names}, Signature={signature}"}


def _key(secret: str, day: str) -> bytes:
    key = b"AWS4" + secret.encode()
    for part in (day, REGION, "s3", "aws4_request"):
        key = _hmac(key, part)
    return key


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode(), hashlib.sha256).digest()
