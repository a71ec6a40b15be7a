"""Services with a web interface: each answers, or the catalogue says why the tier or engine has none."""

from __future__ import annotations

import pytest
import requests

from infra import catalog
from tests.smoke.platform import STORES, Platform

HEALTH = {
    "mlflow": ("web", "/health"),
    "prometheus": ("web", "/-/ready"),
    "loki": ("api", "/ready"),
    "grafana": ("web", "/api/health"),
    "clearml": ("api", "/debug.ping"),
}
OBS = [s.name for s in catalog.SERVICES if s.overlay == catalog.OVERLAY_OBS]


def url_of(platform: Platform, name: str, role: str) -> str:
    """The address of a running service's port; skips the test when the service does not run."""
    entry = platform.service(name)
    if entry is None:
        pytest.skip(f"{name} was not started")
    roles = [p.role for p in catalog.service(name).ports]
    return str(entry["urls"][roles.index(role)])


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.needs(name)) for name in OBS])
def test_observability_service_is_healthy(platform: Platform, name: str) -> None:
    role, path = HEALTH[name]
    answer = requests.get(url_of(platform, name, role) + path, timeout=10)
    assert answer.status_code == 200


@pytest.mark.needs("s3-console")
@pytest.mark.parametrize("store", STORES.values())
def test_console_of_a_store_answers(platform: Platform, store: str) -> None:
    answer = requests.get(url_of(platform, store, "console"), timeout=10)
    assert answer.status_code == 200
    assert "<html" in answer.text.lower()
