from __future__ import annotations

import psycopg
import pytest
from botocore.exceptions import ClientError, ConnectTimeoutError, EndpointConnectionError
from temporalio.service import RPCError, RPCStatusCode

from infra.training import jobs, store, temporal_client
from infra.training.patience import Unavailable, patiently


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


def failing(times: int) -> tuple[list[int], object]:
    calls: list[int] = []

    def call() -> str:
        calls.append(1)
        if len(calls) <= times:
            raise ConnectionError("refused\nmore")
        return "done"

    return calls, call


def run(times: int, budget: float, clock: Clock) -> str:
    _, call = failing(times)
    return patiently(call, lambda e: True, "Redis", budget, clock.sleep, lambda: clock.now)  # type: ignore[arg-type]


def test_it_tries_again_with_growing_pauses() -> None:
    clock = Clock()
    assert run(6, 40, clock) == "done"
    assert clock.pauses == [0.2, 0.4, 0.8, 1.6, 3.0, 3.0]


def test_it_gives_up_within_the_budget() -> None:
    clock = Clock()
    with pytest.raises(Unavailable, match=r"^Redis does not answer: refused$"):
        run(1000, 10, clock)
    assert clock.now <= 10


def test_no_budget_is_one_try() -> None:
    clock = Clock()
    with pytest.raises(Unavailable):
        run(1, 0, clock)
    assert clock.pauses == []


def test_other_failures_come_through() -> None:
    with pytest.raises(ZeroDivisionError):
        patiently(lambda: 1 // 0, lambda e: isinstance(e, OSError), "it")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (EndpointConnectionError(endpoint_url="http://x"), True),
        (ConnectTimeoutError(endpoint_url="http://x"), True),
        (ConnectionResetError(), True),
        (ClientError({"ResponseMetadata": {"HTTPStatusCode": 503}, "Error": {}}, "PutObject"), True),
        (ClientError({"ResponseMetadata": {"HTTPStatusCode": 403}, "Error": {}}, "PutObject"), False),
        (ValueError("x"), False),
    ],
)
def test_what_is_temporary_for_an_object_store(error: Exception, expected: bool) -> None:
    assert store._temporary(error) is expected


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (psycopg.OperationalError("connection refused"), True),
        (psycopg.OperationalError("FATAL:  the database system is starting up"), True),
        (psycopg.InterfaceError("the connection is closed"), True),
        (psycopg.OperationalError('FATAL:  password authentication failed for user "admin"'), False),
        (psycopg.OperationalError('FATAL:  database "platform" does not exist'), False),
        (psycopg.errors.UndefinedTable("relation jobs"), False),
    ],
)
def test_what_is_temporary_for_postgresql(error: Exception, expected: bool) -> None:
    assert jobs.temporary(error) is expected


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (RuntimeError("Failed client connect"), True),
        (RPCError("tcp connect error", RPCStatusCode.UNAVAILABLE, b""), True),
        (RPCError("Timeout expired", RPCStatusCode.CANCELLED, b""), True),
        (RPCError("context deadline exceeded", RPCStatusCode.DEADLINE_EXCEEDED, b""), True),
        (RPCError("namespace rate limit exceeded", RPCStatusCode.RESOURCE_EXHAUSTED, b""), True),
        (RPCError("Namespace nowhere is not found", RPCStatusCode.NOT_FOUND, b""), False),
        (ValueError("x"), False),
    ],
)
def test_what_is_temporary_for_temporal(error: Exception, expected: bool) -> None:
    assert temporal_client._away(error) is expected
