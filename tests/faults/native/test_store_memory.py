"""The memory limit of the object stores: above what they reserve without any work, or they never rest.

What a store reserves depends on where it lists its objects; one of an earlier version goes on as it began.
"""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from infra import catalog, settings
from infra.tiers.native import object_store
from infra.tiers.native.services import METRICS_PORT, stores
from tests.faults.conftest import Victim
from tests.faults.native.tools import process_of
from tests.rig.engines import boto, engine


def figures(victim: Victim, store: str) -> dict[str, float]:
    """The figures of its Go runtime that a store gives, in bytes."""
    port = settings.load(environ=victim.env).port(catalog.STORE_PORTS[store].setting) + METRICS_PORT
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as reply:
        text = reply.read().decode()
    return {name: float(value) for name, value in re.findall(r"^(go_\w+_bytes) (\S+)$", text, re.MULTILINE)}


@pytest.mark.parametrize("store", stores())
def test_an_idle_store_has_room_below_its_limit(platform: Victim, store: str) -> None:
    if Path(process_of(platform, store).exe()).stem != "weed":
        pytest.skip("another engine than SeaweedFS runs here")
    found = figures(platform, store)
    assert found["go_gc_gomemlimit_bytes"] >= 1.4 * found["go_memstats_sys_bytes"]


@pytest.mark.parametrize("earlier", [True, False])
def test_a_store_finds_its_objects_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, earlier: bool) -> None:
    with monkeypatch.context() as patch, _weed(tmp_path, patch, {} if earlier else None) as s3:
        s3.create_bucket(Bucket="kept")
        s3.put_object(Bucket="kept", Key="a/b", Body=b"its content")
    with _weed(tmp_path, monkeypatch, None) as s3:
        assert s3.get_object(Bucket="kept", Key="a/b")["Body"].read() == b"its content"
        assert [e["Key"] for e in s3.list_objects_v2(Bucket="kept")["Contents"]] == ["a/b"]
    assert (tmp_path / "data" / "filerldb").exists() is not earlier


@contextmanager
def _weed(home: Path, patch: pytest.MonkeyPatch, memory: dict[str, str] | None) -> Iterator[Any]:
    """A store with those variables, of an earlier version for example; None: as this version runs it."""
    if memory is not None:
        patch.setattr(object_store, "_weed_memory", lambda _: memory)
    try:
        with engine("weed", home) as login:
            yield boto(login)
    except FileNotFoundError as error:
        pytest.skip(f"there is no {error} on this machine")
