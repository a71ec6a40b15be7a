"""Backups that have been restored: the drill, and PostgreSQL as it was before a mistake."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import psycopg
import pytest

from infra.prod import content
from infra.prod.cluster import Cluster
from infra.prod.postgres import SiteServer
from infra.prod.rules import alerts
from tests.faults.kind.cluster import until
from tests.rehearsal import postgresql, prometheus
from tests.rehearsal.conftest import Table
from tests.rehearsal.ledger import Ledger
from tests.rehearsal.stage import STORE, Stage
from tests.rig.kind import tools

ALERT = "WalArchivingFails"


def test_the_archive_is_restored_and_compared(stage: Stage, table: Table) -> None:
    postgresql.until_healthy(stage)
    backup = stage.task("backup")
    assert backup.returncode == 0, backup.stderr
    found = stage.data("drill")
    assert found["tables"] > 10
    table.add("drill", "every table the same", f"{found['tables']} tables, {found['rows']} rows the same")
    left = stage.cluster.kubectl("get", "clusters.postgresql.cnpg.io", "-n", "platform", "-o", "name")
    assert "drill" not in left


def test_a_dropped_table_comes_back(stage: Stage, table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    postgresql.until_healthy(stage)
    old, url = stage.server, postgresql.url(stage)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("drop table if exists precious")
        connection.execute("create table precious as select n, md5(n::text) as word from generate_series(1, 1000) as n")
    before = _digests(stage, old, monkeypatch)
    time.sleep(1)
    moment = datetime.now(UTC)
    time.sleep(1)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("drop table precious")
    plan = stage.data("restore", "--to", moment.isoformat())
    assert plan["done"] is False
    began = time.monotonic()
    done = stage.answer(stage.task("restore", "--to", moment.isoformat(), "--yes", "--output", "json"))
    seconds = time.monotonic() - began
    assert done["done"]
    stage.say("postgres", done["postgres"])
    assert stage.server == done["new"] != old
    wrong = content.differences(before, _digests(stage, stage.server, monkeypatch))
    seen = f"{len(before)} tables, {len(wrong)} differ; {stage.server} serves after {seconds:.0f} s"
    table.add("DROP TABLE, restored to the time before", "every table the same, in a new Cluster", seen)
    assert "platform.public.precious" in before
    assert wrong == []
    kept = stage.cluster.get("clusters.postgresql.cnpg.io", old, "-n", "platform")["metadata"]
    assert kept["annotations"]["cnpg.io/fencedInstances"] == '["*"]'


def _digests(stage: Stage, server: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, content.Digest]:
    """Every table of ours; Temporal writes into its own all the time."""
    monkeypatch.setenv("KUBECONFIG", str(stage.home / "kubeconfig"))
    kubectl = str(tools.directory() / "kubectl")
    there = Cluster(kubectl, f"kind-{stage.cluster.name}", stage.home / "cache")
    found = content.now(SiteServer(there, server))
    return {name: digest for name, digest in found.items() if not name.startswith("temporal")}


def test_after_a_restore_a_deployment_changes_nothing_and_the_new_one_archives(stage: Stage, table: Table) -> None:
    """The site file has the lines that the restore has printed."""
    if stage.server == "postgresql":
        pytest.skip("nothing was restored on this stage")
    stage.deploy()
    todo = [c for c in stage.data("diff")["changes"] if c["action"] in ("create", "change", "refused")]
    assert todo == []
    backup = stage.task("backup")
    assert backup.returncode == 0, backup.stderr
    found = stage.data("drill")
    table.add(
        "the restored one is backed up and restored", "every table the same", f"{found['tables']} tables the same"
    )
    smoke = stage.answer(stage.task("smoke", "--output", "json"))["checks"]
    assert [c for c in smoke if not c["ok"]] == []


def test_an_archive_that_is_away_costs_no_write_and_is_noticed(stage: Stage, table: Table) -> None:
    postgresql.until_healthy(stage)
    prometheus.start(stage)
    assert ALERT not in prometheus.firing(stage)
    with Ledger(postgresql.url(stage)) as ledger:
        _scale(stage, 0)
        try:
            ledger.wait_for(100, 60)
            _new_file(stage)
            until("prod.status notices", lambda: _archive(stage) == "fail", 240)
            until(f"the alert {ALERT} fires", lambda: ALERT in prometheus.firing(stage), 240)
            ledger.wait_for(1000, 240)
        finally:
            _scale(stage, 1)
        until("the archive goes on", lambda: _archive(stage) == "ok", 240)
        until(f"the alert {ALERT} ends", lambda: ALERT not in prometheus.firing(stage), 120)
    lost, seconds = ledger.lost(), ledger.moments[-1] - ledger.moments[0]
    seen = (
        f"{ALERT} fires, prod.status says so, {len(lost)} of {len(ledger.acknowledged)} writes lost in {seconds:.0f} s"
    )
    table.add("the archive is away, and back", "noticed, no write lost", seen, ledger.longest_gap())
    assert not lost


def test_what_alerts_ask_for_is_what_exporters_give(stage: Stage) -> None:
    """Those of PostgreSQL and of its backup plugin; the others need what the rehearsal does not have."""
    prometheus.start(stage)
    wanted = {name for name in alerts.SERIES if name.startswith(("cnpg_", "barman_"))}
    assert len(wanted) > 10
    until("all series are there", lambda: wanted <= prometheus.series(stage), 60)


def _new_file(stage: Stage) -> None:
    """Write more than a file of WAL, so that there is something to archive."""
    with psycopg.connect(postgresql.url(stage)) as connection:
        connection.execute("create table if not exists filler (t text)")
        connection.execute("insert into filler select repeat(md5(n::text), 30) from generate_series(1, 20000) n")


def _archive(stage: Stage) -> str:
    found = [f for f in stage.data("status")["findings"] if f["about"].endswith(": archive")]
    return str(found[0]["state"])


def _scale(stage: Stage, replicas: int) -> None:
    stage.cluster.kubectl("scale", "deployment/object-store", "-n", STORE, f"--replicas={replicas}")
