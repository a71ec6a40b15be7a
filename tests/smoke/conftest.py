"""What the contract suite is run against: `pytest tests/smoke --tier T`; it starts nothing itself."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infra import catalog
from tests.smoke.platform import STORES, Platform

_KEY = pytest.StashKey[Platform]()


def pytest_addoption(parser: pytest.Parser) -> None:
    default = os.environ.get("PLATFORM_TEST_TIER", "native")
    parser.addoption("--tier", default=default, help="tier of the running platform (default: PLATFORM_TEST_TIER)")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """A directory that is named after a tier has what only that tier can do."""
    return True if collection_path.name in set(catalog.TIERS) - {config.getoption("--tier")} else None


def _platform(config: pytest.Config) -> Platform:
    if _KEY not in config.stash:
        config.stash[_KEY] = Platform(config.getoption("--tier"))
    return config.stash[_KEY]


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("needs"):
        for feature in marker.args:
            reason = _platform(item.config).gap(feature)
            if reason:
                pytest.skip(f"{feature}: {reason}")


@pytest.fixture(scope="session")
def platform(request: pytest.FixtureRequest) -> Platform:
    """The running platform."""
    found = _platform(request.config)
    assert found.status["state"] == "ready", f"the platform is {found.status['state']}: invoke status"
    return found


@pytest.fixture(scope="session", params=STORES)
def prefix(request: pytest.FixtureRequest) -> str:
    """Each object store, by the prefix of its variables in the contract."""
    return str(request.param)


@pytest.fixture
def s3(platform: Platform, prefix: str) -> Iterator[Any]:
    """A client of that store."""
    client = platform.storage(prefix)
    yield client
    client.close()
