"""The logins of a contract: data that proves that they work, and that they do not any more."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

import psycopg
import pytest
import redis

from infra.sigv4 import Store


def store(contract: Mapping[str, str], prefix: str) -> Store:
    url = urlsplit(contract[f"{prefix}_STORAGE_ENDPOINT"])
    keys = contract[f"{prefix}_STORAGE_ACCESS_KEY"], contract[f"{prefix}_STORAGE_SECRET_KEY"]
    return Store(url.hostname or "", url.port or 0, *keys)


def fill(contract: Mapping[str, str]) -> None:
    with psycopg.connect(contract["DATABASE_URL"]) as link:
        link.execute("create table if not exists kept as select 7 as n")
    with redis.Redis.from_url(contract["REDIS_URL"]) as client:
        client.set("kept", "7")
    assert store(contract, "INTERNAL").request("PUT", "/training-results/kept", b"7").status == 200


def works(contract: Mapping[str, str]) -> None:
    """These logins work, and nothing is lost."""
    with psycopg.connect(contract["DATABASE_URL"]) as link:
        assert link.execute("select n from kept").fetchone() == (7,)
    with redis.Redis.from_url(contract["REDIS_URL"]) as client:
        assert client.get("kept") == b"7"
    assert store(contract, "INTERNAL").request("GET", "/training-results/kept").body == b"7"
    assert store(contract, "EXTERNAL").request("GET", "/training-datasets").status == 200


def refused(old: Mapping[str, str], now: Mapping[str, str]) -> None:
    """What was changed works no more; Redis without a password takes any, and the user's own settings stay."""
    if old["DATABASE_URL"] != now["DATABASE_URL"]:
        with pytest.raises(psycopg.OperationalError, match="authentication failed"):
            psycopg.connect(old["DATABASE_URL"])
    if old["REDIS_URL"] != now["REDIS_URL"] and urlsplit(now["REDIS_URL"]).password:
        with redis.Redis.from_url(old["REDIS_URL"]) as client, pytest.raises(redis.AuthenticationError):
            client.get("kept")
    for prefix, path in (("INTERNAL", "/training-results/kept"), ("EXTERNAL", "/training-datasets")):
        if old[f"{prefix}_STORAGE_SECRET_KEY"] != now[f"{prefix}_STORAGE_SECRET_KEY"]:
            assert store(old, prefix).request("GET", path).status == 403


def forget(contract: Mapping[str, str]) -> None:
    """Take the data away."""
    with psycopg.connect(contract["DATABASE_URL"]) as link:
        link.execute("drop table if exists kept")
    with redis.Redis.from_url(contract["REDIS_URL"]) as client:
        client.delete("kept")
    store(contract, "INTERNAL").request("DELETE", "/training-results/kept")
