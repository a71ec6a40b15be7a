"""Redis: values, messages, an append-only file."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
import redis

from tests.smoke.platform import Platform


@pytest.fixture
def client(platform: Platform) -> Iterator[redis.Redis]:
    """A client of the contract's Redis."""
    with redis.Redis.from_url(platform.contract["REDIS_URL"], decode_responses=True) as made:
        yield made


def test_set_get_and_expiry(client: redis.Redis) -> None:
    key = f"smoke:{uuid.uuid4()}"
    client.set(key, "값 ü", ex=60)
    assert client.get(key) == "값 ü"
    assert 0 < int(str(client.ttl(key))) <= 60
    client.delete(key)
    assert client.get(key) is None


def test_messages_reach_subscribers(client: redis.Redis) -> None:
    channel = f"smoke:{uuid.uuid4()}"
    with client.pubsub(ignore_subscribe_messages=True) as subscriber:  # type: ignore[no-untyped-call]
        subscriber.subscribe(channel)
        subscriber.get_message(timeout=5)
        assert client.publish(channel, "hello") == 1
        message = subscriber.get_message(timeout=5)
    assert message is not None
    assert (message["channel"], message["data"]) == (channel, "hello")


def test_append_only_file_is_on(client: redis.Redis) -> None:
    facts = client.info("persistence")
    assert isinstance(facts, dict)
    assert (facts["aof_enabled"], facts["aof_last_write_status"]) == (1, "ok")
