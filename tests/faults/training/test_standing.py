"""Where a training in a cluster stands, as the real database keeps it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from infra.training import contract
from infra.training.jobs import Job, Jobs, Superseded
from tests.faults.conftest import Victim

ID = "mine-1"


@pytest.fixture
def jobs(platform: Victim) -> Iterator[Jobs]:
    with contextlib.closing(Jobs(contract.read(platform.contract))) as found:
        found.migrate()
        found.add(ID, "mine", "true", {}, None)
        yield found


def row(jobs: Jobs) -> Job:
    found = jobs.get(ID)
    assert found is not None
    return found


def test_the_states_of_a_queue_and_what_they_let_happen(jobs: Jobs) -> None:
    jobs.set_standing(ID, "queued", "2 of 3: no room")
    assert (row(jobs).state, row(jobs).note) == ("queued", "2 of 3: no room")
    jobs.set_standing(ID, "admitted", "")
    assert (row(jobs).state, row(jobs).note) == ("admitted", None)
    attempt = jobs.claim(ID)
    assert attempt == 1
    jobs.set_standing(ID, "admitted", "its pod is starting")
    assert row(jobs).state == "running", "its pod has said so itself"
    jobs.set_standing(ID, "preempted", "1 of 1: no room")
    jobs.record(ID, attempt, 1, {"loss": 0.5})
    assert (row(jobs).state, row(jobs).epoch) == ("preempted", 1), "what it has done until then counts"
    assert jobs.claim(ID) == 2
    with pytest.raises(Superseded):
        jobs.record(ID, 1, 2, {"loss": 0.4})
    jobs.finish(ID, "succeeded")
    jobs.set_standing(ID, "queued", "too late")
    assert (row(jobs).state, row(jobs).note) == ("succeeded", None)
