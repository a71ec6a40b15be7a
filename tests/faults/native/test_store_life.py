"""The first write after a start of SeaweedFS, and its end: neither waits for what nobody needs."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from infra import catalog, settings
from infra.tiers.native.object_store import WEED_PORTS
from infra.tiers.native.services import stores
from tests.faults.conftest import Victim
from tests.faults.native.tools import process_of


@pytest.fixture
def platform(running: Victim) -> Victim:
    """A running platform whose stores are SeaweedFS."""
    if Path(process_of(running, stores()[0]).exe()).stem != "weed":
        pytest.skip("another engine than SeaweedFS runs here")
    return running


def log_of(victim: Victim, store: str) -> Path:
    """The log that a store writes."""
    return victim.stack_home / "native" / "logs" / f"{store}.log"


def said(victim: Victim, store: str, since: int) -> str:
    """What a store has logged since its log had that size, in bytes."""
    with log_of(victim, store).open("rb") as file:
        file.seek(since)
        return file.read().decode("utf-8", "replace")


def test_the_volumes_are_there_when_the_store_answers(platform: Victim) -> None:
    platform.invoke("down", check=True)
    before = {store: log_of(platform, store).stat().st_size for store in stores()}
    platform.up()
    for store, size in before.items():
        assert "Not current leader" not in said(platform, store, size), "the first write may wait for 5 s and more"


@pytest.mark.parametrize("store", stores())
def test_a_connection_that_says_nothing_does_not_keep_a_store_from_its_end(platform: Victim, store: str) -> None:
    before = log_of(platform, store).stat().st_size
    first = settings.load(environ=platform.env).port(catalog.STORE_PORTS[store].setting)
    with socket.create_connection(("127.0.0.1", first + WEED_PORTS["volume.port"])):
        platform.invoke("down", check=True)
    platform.up()
    ended = said(platform, store, before).partition("Starting SeaweedFS Mini")[0]
    assert "graceful stop gRPC" in ended, "the volume server was killed before it had closed its files"
