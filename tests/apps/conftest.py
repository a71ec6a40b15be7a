"""A native platform of its own, with the reference application running on it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import requests

from tests.smoke.stage import ODD_LOGINS, Stage, stage


@dataclass(frozen=True)
class Application:
    """The running application."""

    stage: Stage
    urls: Mapping[str, str]

    def ask(self, method: str, path: str, name: str = "backend", **options: Any) -> requests.Response:
        """One request to the backend (or the frontend)."""
        return requests.request(method, self.urls[name] + path, timeout=120, **options)


@pytest.fixture(scope="session")
def application() -> Iterator[Application]:
    with stage("native", **ODD_LOGINS) as made:
        made.invoke("up", check=True)
        urls = made.data("app.run")["urls"]
        yield Application(made, urls)
