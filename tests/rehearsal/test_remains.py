"""What nobody may lose: a node that is deleted, an application that is removed, and the data is as it was."""

from __future__ import annotations

import psycopg

from tests.faults.kind.cluster import until
from tests.rehearsal import application, postgresql
from tests.rehearsal.conftest import Table
from tests.rehearsal.ledger import TABLE, Ledger
from tests.rehearsal.stage import Stage


def _claims(stage: Stage) -> dict[str, str]:
    """The volume of each claim."""
    found = stage.cluster.get("persistentvolumeclaims", "--all-namespaces")["items"]
    return {f"{c['metadata']['namespace']}/{c['metadata']['name']}": c["spec"]["volumeName"] for c in found}


def _rows(stage: Stage) -> int:
    with psycopg.connect(postgresql.url(stage)) as connection:
        row = connection.execute(f"select count(*) from {TABLE}").fetchone()
    return int(row[0]) if row else 0


def test_a_node_that_is_deleted_takes_nothing_with_it(stage: Stage, table: Table) -> None:
    postgresql.until_healthy(stage)
    before = _claims(stage)
    node = postgresql.primary(stage)["spec"]["nodeName"]
    with Ledger(postgresql.url(stage)) as ledger:
        name = postgresql.primary(stage)["metadata"]["name"]
        stage.cluster.kubectl("delete", "node", node)
        postgresql.until_another(stage, name)
        ledger.wait_for(200, 180)
        stage.cluster.on_node("systemctl restart kubelet", node)  # it registers its node again, as a repaired one does
        until("the node is back", lambda: bool(stage.cluster.get("node", node)), 120)
        postgresql.until_healthy(stage, seconds=300)
    lost = ledger.lost()
    seen = f"{len(lost)} of {len(ledger.acknowledged)} acknowledged writes lost, {len(before)} volumes kept"
    table.add("kubectl delete node, of the primary", "none lost, every volume is kept", seen, ledger.longest_gap())
    assert not lost
    assert _claims(stage) == before


def test_an_application_that_is_removed_finds_its_data_again(stage: Stage, table: Table) -> None:
    postgresql.until_healthy(stage)
    claims, rows = _claims(stage), _rows(stage)
    done = stage.task("render", "--to", str(stage.home / "rendered"))
    assert done.returncode == 0, done.stderr
    for wave in ("40-applications", "30-services"):
        stage.cluster.kubectl("delete", "-k", str(stage.home / "rendered" / wave), "--ignore-not-found", "--wait=true")
    stage.deploy()
    assert application.ask(f"{application.address(stage)}/api/ready").status_code == 200
    table.add("services and applications removed", "data as before", f"{_rows(stage)} of {rows} rows, volumes kept")
    assert _rows(stage) == rows
    assert _claims(stage) == claims
