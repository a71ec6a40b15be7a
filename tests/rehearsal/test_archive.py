"""Backups that have been restored: the drill, and PostgreSQL as it was before a mistake."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import psycopg

from tests.rehearsal import postgresql
from tests.rehearsal.conftest import Table
from tests.rehearsal.stage import Stage


def test_the_archive_is_restored_and_compared(stage: Stage, table: Table) -> None:
    postgresql.until_healthy(stage)
    backup = stage.task("backup")
    assert backup.returncode == 0, backup.stderr
    found = stage.data("drill")
    assert found["tables"] > 10
    table.add("drill", "every table the same", f"{found['tables']} tables, {found['rows']} rows the same")
    left = stage.cluster.kubectl("get", "clusters.postgresql.cnpg.io", "-n", "platform", "-o", "name")
    assert "drill" not in left


def test_a_dropped_table_comes_back(stage: Stage, table: Table) -> None:
    url = postgresql.url(stage)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("create table precious as select generate_series(1, 1000) as n")
        time.sleep(1)
        before = datetime.now(UTC)
        time.sleep(1)
        connection.execute("drop table precious")
    plan = stage.data("restore", "--to", before.isoformat())
    assert plan["done"] is False
    began = time.monotonic()
    done = stage.task("restore", "--to", before.isoformat(), "--yes")
    assert done.returncode == 0, done.stderr + done.stdout
    new = next(word for word in done.stdout.split() if word.startswith("postgresql-2"))
    with psycopg.connect(postgresql.url(stage, new, 30544)) as connection:
        assert connection.execute("select count(*), sum(n) from precious").fetchone() == (1000, 500500)
    seen = f"1000 of 1000 rows in {new} after {time.monotonic() - began:.0f} s"
    table.add("DROP TABLE, restored to the time before", "all rows, in a new Cluster", seen)
