"""The memory limit of the object stores: above what they reserve without any work, or they never rest."""

from __future__ import annotations

import re
import urllib.request
from pathlib import Path

import pytest

from infra import catalog, settings
from infra.tiers.native.services import METRICS_PORT, stores
from tests.faults.conftest import Victim
from tests.faults.native.tools import process_of


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
