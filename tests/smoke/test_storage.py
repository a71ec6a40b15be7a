"""Both object stores: buckets, objects, multipart, presigned addresses, refused logins."""

from __future__ import annotations

import hashlib
import io
import os
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from boto3.s3.transfer import TransferConfig
from botocore.exceptions import ClientError

from infra import catalog
from tests.smoke.platform import STORES, Platform

MIB = 1024 * 1024
REFUSED = (400, 401, 403)


def buckets_of(prefix: str, platform: Platform) -> set[str]:
    """The buckets that the catalogue wants in a store."""
    wanted = catalog.BUCKETS + (catalog.OBS_BUCKETS if platform.service("mlflow") else ())
    return {b.name for b in wanted if b.store == STORES[prefix]}


@pytest.fixture
def bucket(prefix: str) -> str:
    """A bucket of the store."""
    return next(b.name for b in catalog.BUCKETS if b.store == STORES[prefix])


@pytest.fixture
def folder(s3: Any, bucket: str) -> Iterator[str]:
    """A prefix for this test's keys, emptied afterwards."""
    made = f"smoke-{uuid.uuid4()}/"
    yield made
    for entry in s3.list_objects_v2(Bucket=bucket, Prefix=made).get("Contents", []):
        s3.delete_object(Bucket=bucket, Key=entry["Key"])


def test_every_bucket_is_there(platform: Platform, prefix: str, s3: Any) -> None:
    there = {b["Name"] for b in s3.list_buckets()["Buckets"]}
    assert buckets_of(prefix, platform) <= there


@pytest.mark.parametrize("name", ["plain.bin", "학습/ünïcode & plus+%41 #1.bin"])
def test_put_get_list_delete(s3: Any, bucket: str, folder: str, name: str) -> None:
    key, body = folder + name, os.urandom(1000)
    s3.put_object(Bucket=bucket, Key=key, Body=body, ContentType="image/png")
    got = s3.get_object(Bucket=bucket, Key=key)
    assert got["Body"].read() == body
    assert got["ContentType"] == "image/png"
    listed = s3.list_objects_v2(Bucket=bucket, Prefix=folder)["Contents"]
    assert [(e["Key"], e["Size"]) for e in listed] == [(key, 1000)]
    s3.delete_object(Bucket=bucket, Key=key)
    with pytest.raises(ClientError) as gone:
        s3.get_object(Bucket=bucket, Key=key)
    assert gone.value.response["Error"]["Code"] == "NoSuchKey"


def test_overwriting_changes_the_object(s3: Any, bucket: str, folder: str) -> None:
    for body in (b"old and longer", b"new"):
        s3.put_object(Bucket=bucket, Key=f"{folder}a", Body=body)
    assert s3.get_object(Bucket=bucket, Key=f"{folder}a")["Body"].read() == b"new"
    assert s3.head_object(Bucket=bucket, Key=f"{folder}a")["ContentLength"] == 3


def test_long_lists_come_in_pages(s3: Any, bucket: str, folder: str) -> None:
    keys = [f"{folder}{i:02d}" for i in range(25)]
    for key in keys:
        s3.put_object(Bucket=bucket, Key=key, Body=b"x")
    pages = s3.get_paginator("list_objects_v2").paginate(
        Bucket=bucket, Prefix=folder, PaginationConfig={"PageSize": 10}
    )
    assert [[e["Key"] for e in page["Contents"]] for page in pages] == [keys[:10], keys[10:20], keys[20:]]


def test_multipart_of_64_mib(s3: Any, bucket: str, folder: str) -> None:
    body = os.urandom(64 * MIB)
    parts = TransferConfig(multipart_threshold=8 * MIB, multipart_chunksize=8 * MIB)
    sent: list[str] = []
    s3.meta.events.register("before-call.s3.UploadPart", lambda model, **_: sent.append(model.name))
    s3.upload_fileobj(io.BytesIO(body), bucket, f"{folder}big", Config=parts)
    assert len(sent) == 8
    assert s3.head_object(Bucket=bucket, Key=f"{folder}big")["ContentLength"] == 64 * MIB
    back = io.BytesIO()
    s3.download_fileobj(bucket, f"{folder}big", back, Config=parts)
    assert hashlib.sha256(back.getvalue()).digest() == hashlib.sha256(body).digest()


def test_unfinished_upload_leaves_no_object(s3: Any, bucket: str, folder: str) -> None:
    where = {"Bucket": bucket, "Key": f"{folder}half"}
    upload = s3.create_multipart_upload(**where)["UploadId"]
    s3.upload_part(**where, UploadId=upload, PartNumber=1, Body=b"x" * 5 * MIB)
    s3.abort_multipart_upload(**where, UploadId=upload)
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket, Prefix=folder)


@pytest.fixture
def presigned(s3: Any, bucket: str, folder: str) -> str:
    """A presigned GET address of an object that holds `its content`."""
    s3.put_object(Bucket=bucket, Key=f"{folder}open me.txt", Body=b"its content")
    where = {"Bucket": bucket, "Key": f"{folder}open me.txt"}
    return str(s3.generate_presigned_url("get_object", Params=where, ExpiresIn=300))


def test_presigned_get(presigned: str) -> None:
    answer = requests.get(presigned, timeout=10)
    assert (answer.status_code, answer.content) == (200, b"its content")


def test_tampered_presigned_get_is_refused(presigned: str) -> None:
    for wrong in (
        presigned[:-1] + ("0" if presigned[-1] != "0" else "1"),
        presigned.replace("Expires=300", "Expires=900"),
    ):
        assert wrong != presigned
        answer = requests.get(wrong, timeout=10)
        assert answer.status_code == 403
        assert b"its content" not in answer.content


def test_wrong_secret_is_refused(platform: Platform, prefix: str, bucket: str) -> None:
    client = platform.storage(prefix, secret="not the secret")
    with pytest.raises(ClientError) as refused:
        client.put_object(Bucket=bucket, Key="smoke-refused", Body=b"x")
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403


def test_anonymous_is_refused(platform: Platform, prefix: str, s3: Any, bucket: str, folder: str) -> None:
    s3.put_object(Bucket=bucket, Key=f"{folder}private", Body=b"private words")
    base = f"{platform.contract[f'{prefix}_STORAGE_ENDPOINT']}/{bucket}"
    got = requests.get(f"{base}/{folder}private", timeout=10)
    put = requests.put(f"{base}/{folder}anonymous", data=b"x", timeout=10)
    assert got.status_code in REFUSED
    assert b"private words" not in got.content
    assert put.status_code in REFUSED
    assert len(s3.list_objects_v2(Bucket=bucket, Prefix=folder)["Contents"]) == 1


@pytest.mark.needs("separate-stores")
def test_stores_are_separate(platform: Platform) -> None:
    there = {p: {b["Name"] for b in platform.storage(p).list_buckets()["Buckets"]} for p in STORES}
    for prefix, other in (("EXTERNAL", "INTERNAL"), ("INTERNAL", "EXTERNAL")):
        assert not buckets_of(prefix, platform) & there[other]
