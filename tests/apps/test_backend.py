"""The backend over HTTP against a real platform: readiness, and a training from its start to its end."""

from __future__ import annotations

import time
from typing import Any

from tests.apps.conftest import Application

LIMIT = 600.0
DEPENDENCIES = {"database platform", "database users", "redis", "temporal", "external storage", "internal storage"}
ENDED = ("succeeded", "failed", "cancelled")


def followed(application: Application, job: str, until: tuple[str, ...]) -> list[dict[str, Any]]:
    """What the backend says of a training until it is in one of the states."""
    seen: list[dict[str, Any]] = []
    end = time.monotonic() + LIMIT
    while not seen or seen[-1]["state"] not in (*until, *ENDED):
        assert time.monotonic() < end, seen[-1]
        seen.append(application.ask("GET", f"/trainings/{job}").json())
        time.sleep(0.1)
    return seen


def start(application: Application, **body: Any) -> str:
    answer = application.ask("POST", "/trainings", json=body)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["job"])


def test_it_lives_and_every_dependency_is_ready(application: Application) -> None:
    assert application.ask("GET", "/health").json() == {"status": "ok"}
    answer = application.ask("GET", "/ready")
    states = answer.json()["dependencies"]
    assert (answer.status_code, answer.json()["ready"]) == (200, True), states
    assert {name for name, state in states.items() if state["ready"]} == DEPENDENCIES


def test_services_are_listed_with_addresses_that_answer(application: Application) -> None:
    found = {entry["name"]: entry for entry in application.ask("GET", "/services").json()}
    assert {"PostgreSQL", "Temporal"} <= set(found)
    assert all("@" not in str(entry["address"]) for entry in found.values())
    assert requests_get(str(found["Temporal"]["address"])) == 200


def requests_get(url: str) -> int:
    import requests

    return requests.get(url, timeout=30).status_code


def test_a_training_is_started_followed_and_succeeds(application: Application) -> None:
    seen = followed(application, start(application, epochs=8, experiment="over-http"), ("succeeded",))
    last = seen[-1]
    assert (last["state"], last["epoch"], last["epochs"]) == ("succeeded", 8, 8), last
    assert last["heldout_accuracy"] > 0.9
    assert "val_accuracy" in last["metrics"]
    assert any(s["state"] == "running" for s in seen), "its progress could not be seen"
    listed = application.ask("GET", "/trainings").json()
    assert last["job"] in [job["job"] for job in listed]


def test_the_command_line_sees_the_same_training(application: Application) -> None:
    job = application.ask("GET", "/trainings").json()[0]
    shown = application.stage.data("train.show", job["job"])
    assert (shown["state"], shown["experiment"]) == (job["state"], job["experiment"])


def test_a_training_is_cancelled(application: Application) -> None:
    job = start(application, epochs=100_000)
    assert followed(application, job, ("running",))[-1]["state"] == "running"
    assert application.ask("DELETE", f"/trainings/{job}").status_code == 202
    assert followed(application, job, ENDED)[-1]["state"] == "cancelled"
    assert application.ask("DELETE", f"/trainings/{job}").json()["state"] == "cancelled"


def test_bad_requests_are_refused_with_the_reason(application: Application) -> None:
    before = application.ask("GET", "/trainings").json()
    wrong: list[Any] = [{"epochs": 0}, {"epochs": 1.5}, {"epochs": "x"}, {"experiment": "a\nb"}, {"unknown": 1}, []]
    for body in wrong:
        answer = application.ask("POST", "/trainings", json=body)
        assert answer.status_code == 422, body
        assert answer.json()["detail"][0]["loc"]
    assert application.ask("POST", "/trainings", data='{"epochs": 3}').status_code == 422
    assert application.ask("GET", "/trainings/no-such-job").json()["error"]["code"] == "NOT_FOUND"
    assert application.ask("DELETE", "/trainings/no-such-job").status_code == 404
    assert application.ask("GET", "/trainings").json() == before


def test_what_another_site_can_send_through_the_page_starts_nothing(application: Application) -> None:
    answer = application.ask(
        "POST", "/api/trainings", "frontend", data='{"epochs": 3}', headers={"Content-Type": "text/plain"}
    )
    assert answer.status_code == 422


def test_a_dependency_that_is_away_is_named_with_the_reason_and_heals(application: Application) -> None:
    made = application.stage
    redis = next(s for s in made.data("status")["services"] if s["name"] == "redis")
    pause(redis["pid"], "STOP")
    try:
        answer = application.ask("GET", "/ready")
        states = answer.json()["dependencies"]
    finally:
        pause(redis["pid"], "CONT")
    assert answer.status_code == 503
    assert [name for name, state in states.items() if not state["ready"]] == ["redis"]
    assert states["redis"]["reason"]
    assert application.ask("GET", "/ready").status_code == 200


def pause(pid: int, how: str) -> None:
    import os
    import signal

    os.kill(pid, getattr(signal, f"SIG{how}"))


def test_a_second_run_changes_nothing_and_a_killed_backend_comes_back(application: Application) -> None:
    made = application.stage
    before = made.state("app")["services"]
    made.invoke("app.run", check=True)
    assert {n: s["pid"] for n, s in made.state("app")["services"].items()} == {n: s["pid"] for n, s in before.items()}
    pause(before["backend"]["pid"], "KILL")
    made.invoke("app.run", check=True)
    end = time.monotonic() + 60
    while made.state("app")["services"]["backend"]["pid"] == before["backend"]["pid"]:
        assert time.monotonic() < end
        time.sleep(0.05)
    made.invoke("app.run", check=True)
    assert application.ask("GET", "/health").status_code == 200
