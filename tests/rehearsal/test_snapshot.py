"""From a laptop to the site and back: what was there is what comes home, and nobody else's data goes."""

from __future__ import annotations

from pathlib import Path

import psycopg

from infra.data.objects import records
from infra.data.snapshot import create, verify
from infra.prod import moved
from tests.rehearsal import postgresql
from tests.rehearsal.conftest import Table
from tests.rehearsal.stage import Stage
from tests.smoke import stage as laptops

Tables = dict[str, tuple[int, str]]
Objects = set[tuple[str, str, str]]


def test_a_snapshot_goes_to_the_site_and_comes_home(stage: Stage, table: Table) -> None:
    postgresql.until_healthy(stage)
    site = str(stage.site)
    with laptops.stage("native", **stage.environment()) as laptop:
        laptop.invoke("up", check=True)
        laptop.invoke("train.run", "--epochs", "2", "--experiment", "laptop", check=True)
        laptop.invoke("snapshot.create", "--name", "first", check=True)
        brought = laptop.data("prod.restore", site, "--snapshot", "first", "--yes")
        laptop.data("prod.snapshot", site, "--name", "second")
        laptop.invoke("snapshot.restore", "second", "--yes", check=True)
        laptop.invoke("snapshot.create", "--name", "third", check=True)
        (first, mine), *others = (_content(laptop.home, name) for name in ("first", "second", "third"))
        experiments = {job["experiment"] for job in laptop.data("train.list")}
    differ = sorted({name for tables, _ in others for name in first if tables.get(name) != first[name]})
    lost = sum(len(mine - objects) for _, objects in others)
    seen = f"{len(first)} tables, {len(differ)} differ; {lost} of {len(mine)} objects are lost"
    table.add("laptop, site, laptop", "every table and object the same", seen)
    assert "platform public jobs" in first
    assert mine
    assert differ == []
    assert lost == 0
    assert "laptop" in experiments
    smoke = stage.answer(stage.task("smoke", "--output", "json"))["checks"]
    assert [c for c in smoke if not c["ok"]] == []
    with psycopg.connect(postgresql.url(stage)) as connection:
        there = {row[0] for row in connection.execute("select datname from pg_database")}
    assert set(brought["kept"]) <= there


def _content(home: Path, name: str) -> tuple[Tables, Objects]:
    """The tables and the objects of a snapshot."""
    content = create.find(home / "snapshots", name).path / create.CONTENT
    found: Tables = {}
    for database, entry in verify.databases(content).facts["databases"].items():
        for label, said in entry["tables"].items():
            if database in moved.DATABASES and label.startswith("TABLE DATA "):
                found[f"{database} {label.removeprefix('TABLE DATA ').rpartition(' ')[0]}"] = (
                    said["rows"],
                    said["digest"],
                )
    current = [r for r in records.reading(verify.objects(content)) if records.is_current(r)]
    return found, {(r["bucket"], r["key"], r["sha256"]) for r in current}
