"""A stack that an earlier version has started, in the same checkout: recognised, adopted, stopped, upgraded.

The version is the last one before modules moved (its supervisor is `infra.tiers.supervisor`). It comes from the
history, so a shallow clone skips these tests.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace

import psutil
import pytest

from tests.faults import earlier
from tests.faults.conftest import TIER, WORKER, Victim
from tests.faults.earlier import Checkout
from tests.faults.native.tools import Deposit
from tests.smoke.stage import stage

OLD_SUPERVISOR, SUPERVISOR = "infra.tiers.supervisor", "infra.supervision.supervisor"


@pytest.fixture
def checkout() -> Iterator[Checkout]:
    """A checkout with the files of the earlier version."""
    with earlier.checkout() as made:
        yield made


@pytest.fixture
def victim(checkout: Checkout) -> Iterator[Victim]:
    """A platform that is run from it, not started yet."""
    with stage(TIER) as made:
        yield Victim(replace(made, root=checkout.root, env=checkout.known(made.env)))


def supervisors(victim: Victim, home: str = TIER) -> list[str]:
    """The modules of the supervisors that run for a part of the stack."""
    words = [p.cmdline() for p in psutil.process_iter(["cmdline"]) if p.info["cmdline"]]
    own = [w for w in words if w and w[-1] == str(victim.stack_home / home)]
    return [w[w.index("-m") + 1] for w in own if "-m" in w]


def pids(victim: Victim) -> dict[str, int]:
    """The processes of the services, by what `status` says."""
    return {s["name"]: s["pid"] for s in victim.stage.data("status")["services"]}


def test_it_is_recognised_adopted_and_stopped_with_the_same_data(checkout: Checkout, victim: Victim) -> None:
    victim.up()
    deposit = Deposit(victim).put()
    victim.invoke("train.run", "--epochs", "1", check=True)
    before, worker = pids(victim), victim.pid(WORKER)
    assert supervisors(victim) == [OLD_SUPERVISOR]

    checkout.today()
    found = victim.stage.data("status")
    assert (found["state"], {s["name"]: s["pid"] for s in found["services"]}) == ("ready", before)
    assert victim.invoke("doctor").returncode == 0, "its own services are in their own way"

    # Its supervisor still looks after the services, although its files are gone.
    victim.kill("redis")
    victim.invoke("wait", "-s", "redis", check=True)
    assert pids(victim)["redis"] != before["redis"]

    # It would not understand what this version wants: one of this version takes the services over.
    victim.up()
    deposit.check()
    assert supervisors(victim) == [SUPERVISOR]
    jobs = victim.stage.data("train.list")
    assert [j["state"] for j in jobs] == ["succeeded"]
    victim.invoke("train.run", "--epochs", "1", check=True)
    assert victim.pid(WORKER) != worker, "the worker runs the code of the earlier version"

    victim.invoke("down", check=True)
    assert victim.left_over() == []
    victim.up()
    assert supervisors(victim) == [SUPERVISOR]
    deposit.check()


def test_it_is_stopped_without_being_adopted_first(checkout: Checkout, victim: Victim) -> None:
    victim.up("-s", "redis")
    with Deposit(victim).redis() as client:
        client.set("kept", "한글")
    checkout.today()
    assert victim.stage.data("down") == {"stopped": True}
    assert victim.left_over() == []
    victim.up("-s", "redis")
    with Deposit(victim).redis() as client:
        assert client.get("kept") == "한글"
    assert supervisors(victim) == [SUPERVISOR]


def test_services_that_lost_its_supervisor_are_adopted(checkout: Checkout, victim: Victim) -> None:
    victim.up("-s", "redis")
    before = pids(victim)
    victim.kill("supervisor")
    checkout.today()
    alone = victim.invoke("status")
    assert (alone.returncode, "unsupervised" in alone.stdout) == (7, True)
    victim.up("-s", "redis")
    assert supervisors(victim) == [SUPERVISOR]
    assert pids(victim) == before, "a service that runs as wanted is left alone"


def test_a_second_checkout_names_it_as_the_holder_of_a_port(checkout: Checkout, victim: Victim) -> None:
    victim.up("-s", "redis")
    other = {**victim.env, "PLATFORM_STATE_DIR": str(checkout.root / "other state")}
    checkout.today()
    refused = replace(victim.stage, env=other).invoke("up", "-s", "redis")
    assert refused.returncode == 4, refused.stderr
    assert f"another stack of this platform, {victim.stack_home}" in refused.stderr
    assert os.path.isdir(victim.stack_home)
