"""What an engine is said not to do: tried for real, so that the catalogue is neither too proud nor too modest."""

from __future__ import annotations

import base64
import hashlib
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests
from botocore.exceptions import ClientError, FlexibleChecksumError

from infra import catalog
from tests.smoke.platform import Platform

MIB = 1024 * 1024
ELSEWHERE = {"s3-console": "tried by the tests of the consoles, not of the API"}


def conditional_write(s3: Any, bucket: str, *_: object) -> bool:
    """A create-only write does not overwrite, of many at once one wins, and a stale compare-and-swap is refused."""
    tag = s3.put_object(Bucket=bucket, Key="once", Body=b"first")["ETag"]
    if _written(s3, bucket, "once", b"second", IfNoneMatch="*"):
        return False
    bodies = [f"writer {n}".encode() for n in range(WRITERS)]
    with ThreadPoolExecutor(WRITERS) as threads:
        written = list(threads.map(lambda body: _written(s3, bucket, "raced", body, IfNoneMatch="*"), bodies))
    winners = [body for body, won in zip(bodies, written, strict=True) if won]
    s3.put_object(Bucket=bucket, Key="once", Body=b"third")
    stale = _written(s3, bucket, "once", b"fourth", IfMatch=tag)
    return not stale and winners == [s3.get_object(Bucket=bucket, Key="raced")["Body"].read()]


def _written(s3: Any, bucket: str, key: str, body: bytes, **more: str) -> bool:
    try:
        s3.put_object(Bucket=bucket, Key=key, Body=body, **more)
    except ClientError:
        return False
    return True


def ranges(s3: Any, bucket: str, *_: object) -> bool:
    """A part of an object is answered with 206 and says which part it is."""
    s3.put_object(Bucket=bucket, Key="ranged", Body=b"0123456789")
    got = s3.get_object(Bucket=bucket, Key="ranged", Range="bytes=2-4")
    status = got["ResponseMetadata"]["HTTPStatusCode"]
    try:
        return (status, got["Body"].read(), got.get("ContentRange")) == (206, b"234", "bytes 2-4/10")
    except FlexibleChecksumError:
        return False


def checksums(s3: Any, bucket: str, *_: object) -> bool:
    """What arrives with another checksum than it was sent with is refused and not stored."""
    wrong = {
        "ContentMD5": base64.b64encode(hashlib.md5(b"other", usedforsecurity=False).digest()).decode(),
        "ChecksumSHA256": base64.b64encode(hashlib.sha256(b"other").digest()).decode(),
        "ChecksumCRC32": base64.b64encode(b"none").decode(),
    }
    taken = [name for name, value in wrong.items() if _written(s3, bucket, "damaged", b"sent", **{name: value})]
    return not taken and not s3.list_objects_v2(Bucket=bucket, Prefix="damaged").get("Contents")


def presigned_v2(s3: Any, bucket: str, platform: Platform) -> bool:
    """An address signed as boto3 does without a named version (SigV2) is accepted, a changed one is not."""
    s3.put_object(Bucket=bucket, Key="signed", Body=b"its content")
    where = {"Bucket": bucket, "Key": "signed"}
    address = platform.storage("INTERNAL", signature="s3").generate_presigned_url("get_object", Params=where)
    assert "Signature=" in address and "X-Amz" not in address  # noqa: PT018
    got, changed = (requests.get(a, timeout=30) for a in (address, address.replace("Expires=", "Expires=1")))
    return (got.status_code, got.content, changed.status_code) == (200, b"its content", 403)


def metadata_durable(s3: Any, bucket: str, platform: Platform) -> bool:
    """User metadata and content types outlive a restart of the store."""
    s3.put_object(Bucket=bucket, Key="labelled", Body=b"x", Metadata={"who": "smoke"}, ContentType="text/x-smoke")
    done = platform.invoke("restart", "--service", "minio-results")
    assert done.returncode == 0, done.stderr
    head = s3.head_object(Bucket=bucket, Key="labelled")
    kept = {k.lower(): v for k, v in head["Metadata"].items()}
    return kept == {"who": "smoke"} and head["ContentType"] == "text/x-smoke"


def versioning(s3: Any, bucket: str, platform: Platform) -> bool:
    """An overwritten object can still be read."""
    try:
        s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
        first = s3.put_object(Bucket=bucket, Key="kept", Body=b"first")["VersionId"]
        s3.put_object(Bucket=bucket, Key="kept", Body=b"second")
        old = s3.get_object(Bucket=bucket, Key="kept", VersionId=first)["Body"].read()
    except (ClientError, KeyError):
        return False
    return bool(old == b"first")


def upload_part_copy(s3: Any, bucket: str, platform: Platform) -> bool:
    """A part of a multipart upload can be copied from another object."""
    s3.put_object(Bucket=bucket, Key="source", Body=b"s" * 5 * MIB)
    where = {"Bucket": bucket, "Key": "target"}
    upload = s3.create_multipart_upload(**where)["UploadId"]
    try:
        source = {"Bucket": bucket, "Key": "source"}
        part = s3.upload_part_copy(**where, UploadId=upload, PartNumber=1, CopySource=source)["CopyPartResult"]
        parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
        s3.complete_multipart_upload(**where, UploadId=upload, MultipartUpload=parts)
    except (ClientError, KeyError):
        s3.abort_multipart_upload(**where, UploadId=upload)
        return False
    return bool(s3.get_object(**where)["Body"].read() == b"s" * 5 * MIB)


def key_file_and_prefix(s3: Any, bucket: str, *_: object) -> bool:
    """A key and keys below it live side by side."""
    try:
        for key in ("a", "a/b"):
            s3.put_object(Bucket=bucket, Key=key, Body=key.encode())
        return all(s3.get_object(Bucket=bucket, Key=k)["Body"].read() == k.encode() for k in ("a", "a/b"))
    except ClientError:
        return False


def closed_to_pages(s3: Any, bucket: str, platform: Platform) -> bool:
    """A web page of another origin reads nothing, even where it can sign: known keys are no secret."""
    s3.put_object(Bucket=bucket, Key="secret", Body=b"weights")
    signed = s3.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "secret"})
    page = {"Origin": "http://evil.example"}
    asked = {**page, "Access-Control-Request-Method": "PUT"}
    answers = [requests.get(signed, headers=page, timeout=30), requests.options(signed, headers=asked, timeout=30)]
    allowed = [answer.headers.get("Access-Control-Allow-Origin", "") for answer in answers]
    return not {"*", "null", page["Origin"]} & set(allowed)


def key_double_slash(s3: Any, bucket: str, *_: object) -> bool:
    """A key with two slashes in a row is listed as it was written."""
    try:
        s3.put_object(Bucket=bucket, Key="double//slash", Body=b"x")
    except ClientError:
        return False
    return [e["Key"] for e in s3.list_objects_v2(Bucket=bucket).get("Contents", [])] == ["double//slash"]


def key_long_segment(s3: Any, bucket: str, *_: object) -> bool:
    """A part of a key between two slashes is as long as S3 allows (here 300 bytes)."""
    key = f"long/{'s' * 300}"
    try:
        s3.put_object(Bucket=bucket, Key=key, Body=b"x")
        return bool(s3.get_object(Bucket=bucket, Key=key)["Body"].read() == b"x")
    except ClientError:
        return False


WRITERS = 16
KEYS: Mapping[str, Callable[..., bool]] = {
    "s3-key-file-and-prefix": key_file_and_prefix,
    "s3-key-double-slash": key_double_slash,
    "s3-key-long-segment": key_long_segment,
}
"""Tries that need no platform around the engine."""

TRIES: Mapping[str, Callable[..., bool]] = {
    "s3-conditional-write": conditional_write,
    "s3-metadata-durable": metadata_durable,
    "s3-versioning": versioning,
    "s3-upload-part-copy": upload_part_copy,
    "s3-closed-to-pages": closed_to_pages,
    "s3-range": ranges,
    "s3-checksum": checksums,
    "s3-presigned-v2": presigned_v2,
    **KEYS,
}


@pytest.fixture
def bucket(platform: Platform) -> Iterator[str]:
    """A bucket in the results store for this test alone."""
    s3, name = platform.storage("INTERNAL"), f"smoke-{uuid.uuid4()}"
    s3.create_bucket(Bucket=name)
    yield name
    _remove(s3, name)


def _remove(s3: Any, bucket: str) -> None:
    for _ in range(3):  # where a key hides the keys below it, these are listed only after it has gone
        _empty(s3, bucket)
    s3.delete_bucket(Bucket=bucket)


def _empty(s3: Any, bucket: str) -> None:
    try:
        found = s3.list_object_versions(Bucket=bucket)
        keys = [(e["Key"], e["VersionId"]) for kind in ("Versions", "DeleteMarkers") for e in found.get(kind, [])]
    except (ClientError, KeyError):
        keys = [(e["Key"], "") for e in s3.list_objects_v2(Bucket=bucket).get("Contents", [])]
    for key, version in keys:
        s3.delete_object(Bucket=bucket, Key=key, **({"VersionId": version} if version else {}))


@pytest.mark.parametrize("feature", TRIES)
def test_feature_is_there_or_declared_as_missing(platform: Platform, bucket: str, feature: str) -> None:
    works = TRIES[feature](platform.storage("INTERNAL"), bucket, platform)
    reason = platform.gap(feature)
    if reason:
        assert not works, f"the catalogue says that {feature} does not work here ({reason}), but it does"
        pytest.skip(f"{feature}: {reason}")
    assert works, f"{feature} does not work here, and the catalogue does not say so"


def test_every_declared_gap_of_a_store_is_tried() -> None:
    declared = {g.feature for g in catalog.GAPS if g.feature.startswith("s3-")}
    assert declared - set(ELSEWHERE) <= set(TRIES)
