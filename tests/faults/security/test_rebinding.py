"""A web page that leads its own name to this machine (DNS rebinding), tried in Chromium: by name, of one origin."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

import pytest

from tests.apps.browser import Browser, Page, running
from tests.faults.conftest import Victim
from tests.rig import browser as rig

NAME = "evil.example"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A browser for which the page's name leads here, as after the page's own name server has said so."""
    program = rig.find()
    if not program:
        pytest.skip("no Chromium on this machine: python -m tests.rig.browser")
    with running(program, f"--host-resolver-rules=MAP {NAME} 127.0.0.1") as browser:
        yield browser


@dataclass(frozen=True)
class Site:
    """A private platform with its application, and a browser."""

    victim: Victim
    browser: Browser

    def said(self, address: str, path: str = "/", name: str = NAME) -> str:
        """The text that a page of that name shows of the service at that address."""
        page = Page(self.browser, f"http://{name}:{urlsplit(address).port}{path}")
        page.until("location.protocol == 'http:' && document.readyState == 'complete'")
        return str(page.value("document.documentElement.innerText"))


@pytest.fixture(scope="module")
def site(platform: Victim, chromium: Browser) -> Site:
    platform.up("--private")
    return Site(platform, chromium)


def test_the_application_answers_to_its_own_names_alone(site: Site) -> None:
    urls = site.victim.stage.data("app.run")["urls"]
    for name in ("backend", "frontend"):
        assert "this application is not called" in site.said(urls[name])
        assert "this application is not called" not in site.said(urls[name], name="127.0.0.1")


def test_a_private_object_store_wants_keys_that_no_page_knows(site: Site) -> None:
    address = site.victim.contract["INTERNAL_STORAGE_ENDPOINT"]
    assert "AccessDenied" in site.said(address, "/training-results")
