"""Is what the backend needs there? One question per dependency of the contract, all at once, each with a limit."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from infra import catalog
from infra.training.contract import Contract, Storage, connect_database, connect_redis, connect_storage

if TYPE_CHECKING:
    from temporalio.client import Client

LIMIT = 4.0
"""Seconds for each question."""
_CONNECT = 3
MASK = "****"


def warm_up() -> None:
    """Import what the questions need, so that the first of them are not late for that."""
    import boto3
    import psycopg
    import redis
    import requests
    import temporalio.api.workflowservice.v1
    import temporalio.client

    # The description of S3 is read once.
    boto3.client("s3", region_name="us-east-1", aws_access_key_id="-", aws_secret_access_key="-").close()
    assert all((psycopg, redis, requests, temporalio.client))


@dataclass(frozen=True)
class State:
    """The state of a dependency: true when it answers, the reason when not, and how long that took (seconds)."""

    ready: bool
    reason: str
    seconds: float


class Readiness:
    """The questions, bound to a contract; one client of Temporal serves them all."""

    def __init__(self, contract: Contract) -> None:
        self._contract = contract
        self._temporal: Client | None = None

    async def ask(self) -> dict[str, State]:
        """Return the state of every dependency, by name."""
        questions = self._questions()
        waiting = [self._state(asyncio.to_thread(question)) for question in questions.values()]
        *states, temporal = await asyncio.gather(*waiting, self._state(self._ask_temporal()))
        return {**dict(zip(questions, states, strict=True)), "temporal": temporal}

    def _questions(self) -> dict[str, Callable[[], None]]:
        contract, backends = self._contract, self._contract.backends
        asked: dict[str, Callable[[], None]] = {
            "database platform": lambda: _ask_database(contract, "DATABASE_URL"),
            "database users": lambda: _ask_database(contract, "USER_DATABASE_URL"),
            "redis": lambda: _ask_redis(contract),
            "external storage": lambda: _ask_storage(contract.datasets, "minio-datasets"),
            "internal storage": lambda: _ask_storage(contract.results, "minio-results"),
        }
        web = {"mlflow": ("MLFLOW_TRACKING_URI", "/health"), "clearml": ("CLEARML_API_HOST", "/debug.ping")}
        for name, (variable, path) in web.items():
            if name in backends:
                asked[name] = lambda url=contract[variable] + path: _ask_web(url)  # type: ignore[misc]
        return asked

    async def _state(self, question: object) -> State:
        began, reason = time.monotonic(), ""
        try:
            await asyncio.wait_for(question, LIMIT)  # type: ignore[arg-type]
        except TimeoutError:
            reason = "no answer in time"
        except Exception as error:  # whatever it is, it is the reason
            reason = masked(_first_line(error), self._contract.values)
        return State(not reason, reason, round(time.monotonic() - began, 3))

    async def _ask_temporal(self) -> None:
        from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
        from temporalio.client import Client

        where, namespace = self._contract["TEMPORAL_HOST"], self._contract["TEMPORAL_NAMESPACE"]
        if self._temporal is None:
            self._temporal = await Client.connect(where, namespace=namespace)
        request = DescribeNamespaceRequest(namespace=namespace)
        limit = timedelta(seconds=_CONNECT)
        await self._temporal.workflow_service.describe_namespace(request, retry=False, timeout=limit)


def _ask_database(contract: Contract, variable: str) -> None:
    with connect_database(contract, _CONNECT, variable) as connection:
        connection.execute("select 1")


def _ask_redis(contract: Contract) -> None:
    with connect_redis(contract, timeout=_CONNECT) as client:
        client.ping()


def _ask_storage(storage: Storage, store: str) -> None:
    client = connect_storage(storage, threads=1, patience=_CONNECT)
    try:
        for bucket in (storage.prefix + b.name for b in catalog.BUCKETS if b.store == store):
            try:
                client.head_bucket(Bucket=bucket)
            except client.exceptions.ClientError as error:
                raise OSError(f"bucket {bucket}: {error}") from error
    finally:
        client.close()


def _ask_web(url: str) -> None:
    import requests

    answer = requests.get(url, timeout=_CONNECT)
    if answer.status_code != 200:
        raise OSError(f"{url} answered with HTTP {answer.status_code}")


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), "") or type(error).__name__


def masked(text: str, contract: Mapping[str, str]) -> str:
    """Return the text without the passwords of the contract."""
    keys = [contract[name] for name in ("EXTERNAL_STORAGE_SECRET_KEY", "INTERNAL_STORAGE_SECRET_KEY")]
    written = [urlsplit(contract[name]).password or "" for name in ("DATABASE_URL", "USER_DATABASE_URL", "REDIS_URL")]
    for secret in sorted({*keys, *written, *map(unquote, written)} - {""}, key=len, reverse=True):
        text = text.replace(secret, MASK)
    return text
