"""kill -9 of an object store under load: whatever it has acknowledged is there, with its type and metadata."""

from __future__ import annotations

import hashlib
import os
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from infra import catalog
from tests.faults.conftest import Victim
from tests.faults.native import tools

STORE, LIVES, WRITERS, EACH = "minio-results", 3, 4, 200
BUCKET = next(b.name for b in catalog.BUCKETS if b.store == STORE)


def _client(victim: Victim) -> Any:
    contract = victim.contract
    return boto3.client(
        "s3",
        endpoint_url=contract["INTERNAL_STORAGE_ENDPOINT"],
        aws_access_key_id=contract["INTERNAL_STORAGE_ACCESS_KEY"],
        aws_secret_access_key=contract["INTERNAL_STORAGE_SECRET_KEY"],
        region_name="us-east-1",
        config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}, max_pool_connections=WRITERS),
    )


@contextmanager
def _written(s3: Any) -> Iterator[dict[str, str]]:
    """Objects that are written all the time; each is noted with its SHA-256 once the store has acknowledged it."""
    acknowledged: dict[str, str] = {}
    over = threading.Event()

    def write(writer: int) -> None:
        choice = random.Random(writer)
        for number in range(1_000_000):
            if over.is_set():
                return
            body, key = os.urandom(choice.choice((100, 5_000, 300_000))), f"killed/{writer}/{number}"
            digest = hashlib.sha256(body).hexdigest()
            try:
                s3.put_object(Bucket=BUCKET, Key=key, Body=body, ContentType="image/x-test", Metadata={"sum": digest})
            except (BotoCoreError, ClientError):
                time.sleep(0.05)
            else:
                acknowledged[key] = digest

    with ThreadPoolExecutor(WRITERS) as threads:
        try:
            writing = [threads.submit(write, writer) for writer in range(WRITERS)]
            yield acknowledged
        finally:
            over.set()
    for one in writing:
        one.result()


def test_what_a_store_has_acknowledged_outlives_its_kills(running: Victim) -> None:
    s3 = _client(running)
    engine = next(s["engine"] for s in running.stage.data("status")["services"] if s["name"] == STORE)
    forgets = "s3-metadata-durable" in {gap.feature for gap in catalog.gaps(engine)}
    with _written(s3) as acknowledged:
        for life in range(LIVES):
            had = len(acknowledged)
            tools.until("writes", lambda: len(acknowledged) >= had + EACH)  # noqa: B023
            before = tools.pids(running)[STORE]
            tools.kill_all(running, STORE)
            tools.until(f"life {life + 2}", lambda: tools.is_ready(running, STORE, old=before))  # noqa: B023
    for key, digest in acknowledged.items():
        got = s3.get_object(Bucket=BUCKET, Key=key)
        assert hashlib.sha256(got["Body"].read()).hexdigest() == digest, key
        assert forgets or (got["ContentType"], got["Metadata"]) == ("image/x-test", {"sum": digest}), key
    listed = s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix="killed/")
    assert set(acknowledged) <= {entry["Key"] for page in listed for entry in page.get("Contents", ())}
