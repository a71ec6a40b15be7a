"""A primary that is killed, its node that is lost, a node that is emptied: no acknowledged write is lost."""

from __future__ import annotations

from tests.faults.kind.cluster import run, until
from tests.rehearsal import postgresql
from tests.rehearsal.conftest import Table
from tests.rehearsal.ledger import Ledger
from tests.rehearsal.stage import Stage

ROWS = 200


def _judged(ledger: Ledger, table: Table, fault: str, bar: float) -> None:
    lost, gap = ledger.lost(), ledger.longest_gap()
    seen = f"{len(lost)} of {len(ledger.acknowledged)} acknowledged writes lost"
    table.add(fault, f"none lost, under {bar:.0f} s", seen, gap)
    assert not lost, ledger.errors[-3:]
    assert gap < bar, f"nothing was acknowledged for {gap:.1f} s: {ledger.errors[-3:]}"


def test_the_primary_is_deleted(stage: Stage, table: Table) -> None:
    postgresql.until_healthy(stage)
    with Ledger(postgresql.url(stage)) as ledger:
        name = postgresql.primary(stage)["metadata"]["name"]
        stage.cluster.kubectl("delete", "pod", name, "-n", "platform", "--grace-period=0", "--force")
        ledger.wait_for(ROWS, 180)
        postgresql.until_healthy(stage)
    _judged(ledger, table, "the primary's pod is deleted", 30)


def test_the_node_of_the_primary_stops(stage: Stage, table: Table) -> None:
    postgresql.until_healthy(stage)
    with Ledger(postgresql.url(stage)) as ledger:
        pod = postgresql.primary(stage)
        node = pod["spec"]["nodeName"]
        run(["docker", "stop", "--time", "0", node])
        try:
            postgresql.until_another(stage, pod["metadata"]["name"])
            ledger.wait_for(ROWS, 180)
        finally:
            run(["docker", "start", node])
        postgresql.until_healthy(stage, seconds=300)
    _judged(ledger, table, "the primary's node stops", 90)


def test_the_node_of_the_primary_is_drained(stage: Stage, table: Table) -> None:
    postgresql.until_healthy(stage)
    with Ledger(postgresql.url(stage)) as ledger:
        pod = postgresql.primary(stage)
        node = pod["spec"]["nodeName"]
        words = (
            "--ignore-daemonsets",
            "--delete-emptydir-data",
            "--force",
            "--timeout=10s",
            "--disable-eviction=false",
        )
        try:
            stage.cluster.kubectl("cordon", node)
            until("the node is empty", lambda: bool(stage.cluster.kubectl("drain", node, *words)), 240)
            postgresql.until_another(stage, pod["metadata"]["name"])
            ledger.wait_for(ROWS, 180)
        finally:
            stage.cluster.kubectl("uncordon", node)
        postgresql.until_healthy(stage, seconds=300)
    _judged(ledger, table, "the primary's node is drained", 30)
