"""Containers that an earlier version has started, in the same checkout: recognised, adopted, stopped, upgraded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests.faults import earlier
from tests.faults.compose.conftest import LIGHT, project
from tests.faults.conftest import Victim
from tests.faults.earlier import Checkout
from tests.faults.native.tools import Deposit
from tests.smoke import containers
from tests.smoke.stage import stage


@pytest.fixture
def checkout() -> Iterator[Checkout]:
    """A checkout with the files of the earlier version."""
    with earlier.checkout() as made:
        yield made


@pytest.fixture
def victim(checkout: Checkout) -> Iterator[Victim]:
    """A platform that is run from it, not started yet."""
    with stage("compose", **LIGHT) as made:
        yield Victim(replace(made, root=checkout.root, env=checkout.known(made.env)))


def running(engine: Any, victim: Victim) -> dict[str, str]:
    """The running containers of a platform: id by name."""
    found = containers.of_project(engine, project(victim))
    return {box["Names"][0]: box["Id"] for box in found if box["State"] == "running"}


def states(victim: Victim) -> dict[str, str]:
    """The state of each service, by what `status` says."""
    return {s["name"]: s["state"] for s in victim.stage.data("status")["services"]}


def test_they_are_recognised_adopted_and_stopped_with_the_same_data(
    checkout: Checkout, victim: Victim, engine: Any
) -> None:
    victim.up()
    deposit = Deposit(victim).put()
    before, said = running(engine, victim), states(victim)
    volumes = set(containers.volumes_of(engine, project(victim)))

    checkout.today()
    assert states(victim) == said
    assert victim.invoke("doctor").returncode == 0, "its own containers are in their own way"
    assert running(engine, victim) == before, "a look changes nothing"

    victim.up()
    deposit.check()
    assert set(running(engine, victim)) == set(before)
    assert set(containers.volumes_of(engine, project(victim))) >= volumes

    victim.invoke("down", check=True)
    assert running(engine, victim) == {}
    victim.up()
    deposit.check()


def test_they_are_stopped_without_being_adopted_first(checkout: Checkout, victim: Victim, engine: Any) -> None:
    victim.up("-s", "redis")
    with Deposit(victim).redis() as client:
        client.set("kept", "yes")
    checkout.today()
    assert victim.stage.data("down") == {"stopped": True}
    assert running(engine, victim) == {}
    victim.up("-s", "redis")
    with Deposit(victim).redis() as client:
        assert client.get("kept") == "yes"
