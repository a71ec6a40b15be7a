"""A cluster that an earlier version has made, in the same checkout: recognised, adopted, stopped, upgraded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.faults import earlier
from tests.faults.conftest import Victim
from tests.faults.earlier import Checkout
from tests.faults.kind.product import Product, product
from tests.faults.native.tools import Deposit

pytestmark = pytest.mark.usefixtures("rig")


@pytest.fixture
def checkout() -> Iterator[Checkout]:
    """A checkout with the files of the earlier version."""
    with earlier.checkout() as made:
        yield made


@pytest.fixture
def cluster(checkout: Checkout) -> Iterator[Product]:
    """A stack that is run from it, not started yet."""
    with product() as made:
        yield Product(replace(made.stage, root=checkout.root, env=checkout.known(made.stage.env)))


def states(cluster: Product) -> dict[str, str]:
    """The state of each service, by what `kind.status` says."""
    return {s["name"]: s["state"] for s in cluster.data("kind.status")["services"]}


def nodes(cluster: Product) -> list[str]:
    """The containers of its nodes, by id."""
    return [node.id for node in cluster.nodes()]


def test_it_is_recognised_adopted_stopped_and_upgraded_with_the_same_data(checkout: Checkout, cluster: Product) -> None:
    cluster.invoke("kind.up")
    deposit = Deposit(Victim(cluster.stage)).put()
    made, said = nodes(cluster), states(cluster)

    checkout.today()
    assert states(cluster) == said
    cluster.invoke("doctor")
    cluster.invoke("kind.up")
    assert nodes(cluster) == made, "the cluster is adopted, not made again"
    assert set(cluster.statuses().values()) == {"deployed"}
    deposit.check()

    cluster.invoke("kind.down")
    cluster.invoke("kind.up")
    assert nodes(cluster) == made
    deposit.check()
