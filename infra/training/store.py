"""Objects in buckets: what the training needs of an object store, and S3 behind it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from infra.training.contract import Storage, connect_storage
from infra.training.patience import BUDGET, patiently

THREADS = 8
# Answers that mean "not now": throttling and errors of the server's own.
_TEMPORARY_STATUS = frozenset({429, 500, 502, 503, 504})


class ObjectStore(Protocol):
    """Bytes by bucket and key."""

    def get(self, bucket: str, key: str) -> bytes | None:
        """Return the object, or None when there is none."""

    def put(self, bucket: str, key: str, data: bytes, content_type: str = "application/octet-stream") -> None:
        """Write or overwrite an object."""

    def listing(self, bucket: str, prefix: str) -> dict[str, str]:
        """Return the ETag by key of everything below a prefix; the ETag of a plain upload is its MD5 in hex."""


class S3Store:
    """A store on S3, by the names that buckets have on every tier; waits a while for a server that is away.

    Raises (every method):
        Unavailable: the server did not answer for the whole budget.
        botocore.exceptions.ClientError: it answered with an error, e.g. no such bucket or wrong keys.
    """

    def __init__(self, storage: Storage, budget: float = BUDGET) -> None:
        self._client = connect_storage(storage)
        self._budget, self._prefix = budget, storage.prefix
        self._name = f"the object store {storage.endpoint}"

    def get(self, bucket: str, key: str) -> bytes | None:
        """Return the object, or None when there is none."""
        return patiently(lambda: self._get(bucket, key), _temporary, self._name, self._budget)

    def put(self, bucket: str, key: str, data: bytes, content_type: str = "application/octet-stream") -> None:
        """Write or overwrite an object."""
        wanted = {"Bucket": self._prefix + bucket, "Key": key, "Body": data, "ContentType": content_type}
        patiently(lambda: self._client.put_object(**wanted), _temporary, self._name, self._budget)

    def listing(self, bucket: str, prefix: str) -> dict[str, str]:
        """Return the ETag by key of everything below a prefix."""
        return patiently(lambda: dict(self._listing(bucket, prefix)), _temporary, self._name, self._budget)

    def _get(self, bucket: str, key: str) -> bytes | None:
        from botocore.exceptions import ClientError

        try:
            return bytes(self._client.get_object(Bucket=self._prefix + bucket, Key=key)["Body"].read())
        except ClientError as error:
            if error.response["Error"]["Code"] == "NoSuchKey":
                return None
            raise

    def _listing(self, bucket: str, prefix: str) -> Iterator[tuple[str, str]]:
        pages = self._client.get_paginator("list_objects_v2")
        for page in pages.paginate(Bucket=self._prefix + bucket, Prefix=prefix):
            # Some servers leave Contents (and KeyCount) out of an empty list.
            yield from ((entry["Key"], entry["ETag"].strip('"')) for entry in page.get("Contents", []))


def get_all(store: ObjectStore, bucket: str, keys: Iterable[str]) -> list[bytes | None]:
    """Read many objects at once, in the order of the keys."""
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(lambda key: store.get(bucket, key), keys))


def put_all(store: ObjectStore, bucket: str, objects: Iterable[tuple[str, bytes]], content_type: str) -> None:
    """Write many objects at once; raises the first failure."""
    with ThreadPoolExecutor(THREADS) as pool:
        for _ in pool.map(lambda item: store.put(bucket, item[0], item[1], content_type), objects):
            pass


def _temporary(error: Exception) -> bool:
    from botocore.exceptions import ClientError, HTTPClientError, IncompleteReadError
    from botocore.exceptions import ConnectionError as NoConnection

    if isinstance(error, ClientError):
        status: Any = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        return status in _TEMPORARY_STATUS
    # Connection refused, closed, reset, or too slow; also in the middle of a body.
    away = (NoConnection, HTTPClientError, IncompleteReadError, ConnectionError, TimeoutError)
    return isinstance(error, away)
