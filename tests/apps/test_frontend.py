"""The page in a real browser: services with links, a training started, followed and cancelled by its buttons."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.apps import browser
from tests.apps.browser import Page
from tests.apps.conftest import Application
from tests.rig.browser import find


@pytest.fixture(scope="module")
def page(application: Application) -> Iterator[Page]:
    program = find()
    if not program:
        pytest.skip("there is no Chromium on this machine (python -m tests.rig.browser installs one on Debian)")
    with browser.running(program) as opened:
        shown = Page(opened, application.urls["frontend"])
        # The script of the page, which runs last, has asked for the services.
        shown.until("document.querySelectorAll('#services li').length > 0")
        yield shown


def test_the_page_says_that_the_platform_is_ready(page: Page) -> None:
    page.until("document.querySelector('#ready')?.textContent === 'ready'")


def test_it_lists_the_services_with_their_links(application: Application, page: Page) -> None:
    expected = {s["name"]: s["address"] for s in application.ask("GET", "/services").json()}
    page.until("document.querySelectorAll('#services li').length > 0")
    names = page.value("[...document.querySelectorAll('#services li')].map(li => li.firstChild.textContent)")
    links = page.value("Object.fromEntries([...document.querySelectorAll('#services a')].map(a => [a.text, a.href]))")
    assert names == list(expected)
    assert links["Temporal"].rstrip("/") == expected["Temporal"]
    assert "PostgreSQL" not in links


def fill_in(page: Page, experiment: str, epochs: int) -> None:
    page.value(
        f"((form) => {{ form.experiment.value = {experiment!r}; form.epochs.value = '{epochs}';"
        "form.requestSubmit(); })(document.querySelector('#start'))"
    )


def row(experiment: str, state: str) -> str:
    """The row of a training, whose id begins with its experiment; others of that state may be on the page too."""
    return f"document.querySelector('#trainings tr[data-state={state}][data-job^=\"{experiment}-\"]')"


def test_a_training_is_started_shown_live_and_cancelled(application: Application, page: Page) -> None:
    name = "in-the-browser"
    running, cancelled = row(name, "running"), row(name, "cancelled")
    fill_in(page, name, 100_000)
    page.until(running)
    first = page.value(f"Number({running}.dataset.epoch)")
    page.until(f"Number({running}?.dataset.epoch) > {first}")
    assert page.value(f"{running}.querySelector('progress').max") == 100_000
    job = page.value(f"{running}.dataset.job")
    page.value(f"{running}.querySelector('button').click()")
    page.until(cancelled)
    assert page.value(f"{cancelled}.querySelector('button')") is None
    assert application.ask("GET", f"/trainings/{job}").json()["state"] == "cancelled"


def test_a_training_runs_to_its_end_on_the_page(page: Page) -> None:
    succeeded = row("to-the-end", "succeeded")
    fill_in(page, "to-the-end", 3)
    page.until(succeeded)
    assert page.value(f"{succeeded}.innerText").count("%") == 1


def test_what_the_backend_refuses_is_told(page: Page) -> None:
    page.value("document.querySelector('#start').noValidate = true")
    fill_in(page, "refused", 0)
    page.until("!document.querySelector('#error').hidden")
    assert "epochs" in page.value("document.querySelector('#error').textContent")


def test_a_name_with_markup_in_it_stays_text(application: Application, page: Page) -> None:
    answer = application.ask("POST", "/trainings", json={"epochs": 1, "experiment": "<img src=x onerror=alert(1)>"})
    page.until(f"document.querySelector('#trainings tr[data-job=\"{answer.json()['job']}\"]')")
    assert page.value("document.images.length") == 0


def test_a_backend_that_is_away_is_said_and_comes_back(application: Application, page: Page) -> None:
    made = application.stage
    made.invoke("app.stop", check=True)
    page.until("document.querySelector('#ready').className === 'bad'")
    made.invoke("app.run", check=True)
    page.until("document.querySelector('#ready').textContent === 'ready'")
