"""What heals, what survives, what `reset` removes, and that nothing else does."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import psycopg
import pytest
from psycopg import sql

from infra import catalog, rows
from infra.tiers.native.services import CORE
from tests.faults.conftest import Victim
from tests.faults.native import tools
from tests.faults.native.tools import Blocked, Deposit
from tests.smoke.stage import HANG


@pytest.mark.parametrize("name", ["platform", "labeler"])
def test_a_missing_database_is_made_again_by_up_and_named(running: Victim, name: str) -> None:
    deposit = Deposit(running)
    with psycopg.connect(deposit.ends.database_url("postgres"), autocommit=True) as link:
        link.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))
    before = tools.pids(running)
    doctor = running.invoke("doctor")
    assert (doctor.returncode, name in doctor.stdout) == (4, True)
    assert f"created the missing database {name}" in running.up().stderr
    assert tools.pids(running) == before
    with psycopg.connect(deposit.ends.database_url(name)) as link:
        assert link.execute("select 1").fetchone() == (1,)


@pytest.mark.parametrize("bucket", [catalog.BUCKETS[0], catalog.BUCKETS[-1]], ids=lambda b: str(b.name))
def test_a_missing_bucket_is_made_again_by_up_and_named(running: Victim, bucket: rows.Bucket) -> None:
    store = Deposit(running).store(bucket)
    _empty(running, bucket)
    assert store.request("DELETE", f"/{bucket.name}").status in (200, 204)
    doctor = running.invoke("doctor")
    assert (doctor.returncode, bucket.name in doctor.stdout) == (4, True)
    said = running.up().stderr
    assert f"created the missing bucket {bucket.name}" in said
    assert said.count("created the missing") == 1
    assert store.request("HEAD", f"/{bucket.name}").status == 200


def _empty(victim: Victim, bucket: rows.Bucket) -> None:
    """Delete what other tests have put there; S3 deletes no bucket with objects in it."""
    import boto3

    ends = Deposit(victim).ends
    s3 = boto3.client(
        "s3",
        endpoint_url=ends.store_url(bucket.store),
        aws_access_key_id=ends.store.user,
        aws_secret_access_key=ends.store.password,
        region_name="us-east-1",
    )
    for found in s3.list_objects_v2(Bucket=bucket.name).get("Contents", []):
        s3.delete_object(Bucket=bucket.name, Key=found["Key"])
    s3.close()


def test_missing_databases_and_buckets_are_made_in_one_up_and_the_rest_is_kept(running: Victim) -> None:
    bucket = catalog.BUCKETS[1]
    _empty(running, bucket)
    deposit = Deposit(running)
    with psycopg.connect(deposit.ends.database_url("users"), autocommit=True) as link:
        link.execute("create table kept as select 42 as n")
    with psycopg.connect(deposit.ends.database_url("postgres"), autocommit=True) as link:
        link.execute("drop database labeler with (force)")
    deposit.store(bucket).request("DELETE", f"/{bucket.name}")
    said = running.up().stderr
    assert "database labeler" in said
    assert f"bucket {bucket.name}" in said
    with psycopg.connect(deposit.ends.database_url("users"), autocommit=True) as link:
        assert link.execute("select n from kept").fetchone() == (42,)
        link.execute("drop table kept")


def test_everything_survives_down_and_up_and_the_workflow_goes_on(running: Victim) -> None:
    deposit = Deposit(running).put()
    asyncio.run(_until_it_waits(deposit))
    running.invoke("down", check=True)
    tools.assert_nothing_runs(running)
    running.up()
    deposit.check()
    tools.kill_all(running, "supervisor", *CORE)
    running.up()
    deposit.check()
    assert asyncio.run(_told(deposit, "survived")) == "survived"


async def _until_it_waits(deposit: Deposit) -> None:
    async with deposit.worker() as handle:
        while not await handle.query(Blocked.waiting):
            await asyncio.sleep(0.02)


async def _told(deposit: Deposit, word: str) -> str:
    async with deposit.worker() as handle:
        await handle.signal(Blocked.tell, word)
        found: str = await asyncio.wait_for(handle.result(), timedelta(seconds=HANG).total_seconds())
        return found


def test_reset_without_consent_deletes_nothing(running: Victim, deposit: Deposit) -> None:
    before = tools.pids(running)
    said = tools.refused(running.invoke("reset"), 3, "moved to the trash for 7 days", "--yes", "CONFIRMATION_NEEDED")
    for name, directory in tools.data_directories(running).items():
        assert name in said
        assert str(directory) in said
    assert tools.pids(running) == before
    deposit.check()


def test_reset_of_one_service_removes_only_its_data(running: Victim, deposit: Deposit) -> None:
    running.invoke("down", check=True)
    directories = tools.data_directories(running)
    before = {n: tools.fingerprint(d) for n, d in directories.items() if n != "redis"}
    done = running.invoke("reset", "-s", "redis", "--yes", check=True)
    assert "removed: redis" in done.stdout
    assert not directories["redis"].exists()
    assert {n: tools.fingerprint(d) for n, d in directories.items() if n != "redis"} == before
    running.up()
    deposit.check(redis_too=False)
    with deposit.redis() as client:
        assert client.dbsize() == 0
    running.invoke("trash.restore", "redis", "--yes", check=True)
    running.up()
    deposit.check()
    assert [e["what"].startswith("in the way of") for e in running.stage.data("trash.list")] == [True]
    running.invoke("trash.empty", "--yes", check=True)


def test_reset_of_everything_removes_all_data_and_up_starts_afresh(fresh_platform: Victim) -> None:
    fresh_platform.up()
    directories = tools.data_directories(fresh_platform)
    fresh_platform.invoke("reset", "--yes", check=True)
    tools.assert_nothing_runs(fresh_platform)
    assert not [d for d in directories.values() if d.exists()]
    assert "no data to remove" in fresh_platform.invoke("reset").stdout
    fresh_platform.up()
    Deposit(fresh_platform).put().check()


def test_what_reset_has_removed_comes_back_whole(fresh_platform: Victim) -> None:
    fresh_platform.up()
    deposit = Deposit(fresh_platform).put()
    fresh_platform.invoke("reset", "--yes", check=True)
    fresh_platform.up()
    names = [e["name"] for e in fresh_platform.stage.data("trash.list")]
    assert len(names) == 5
    for name in names:
        fresh_platform.invoke("trash.restore", name, "--yes", check=True)
    fresh_platform.up()
    deposit.check()


def test_reset_without_a_way_back(fresh_platform: Victim) -> None:
    fresh_platform.up()
    tools.refused(fresh_platform.invoke("reset", "--no-backup"), 3, "permanently deletes", "--no-backup needs --yes")
    fresh_platform.invoke("reset", "--no-backup", "--yes", check=True)
    assert fresh_platform.stage.data("trash.list") == []
    assert not [d for d in tools.data_directories(fresh_platform).values() if d.exists()]


def test_down_and_a_refused_up_remove_no_data(running: Victim, deposit: Deposit) -> None:
    """What `down` removes are only the servers' own notes that they run, and logs they have folded in."""
    directories = tools.data_directories(running)
    while_running = {n: set(tools.fingerprint(d)) for n, d in directories.items()}
    running.invoke("down", check=True)
    before = {n: tools.fingerprint(d) for n, d in directories.items()}
    gone = {f"{n}/{f}" for n in directories for f in while_running[n] - set(before[n])}
    passing = ("postgres/postmaster.", "postgres/pg_stat_tmp", "postgres/pg_logical", "postgres/base/pgsql_tmp")
    folded_in = ("temporal/temporal.db-wal", "temporal/temporal.db-shm", "temporal/temporal.db-journal")
    assert not [f for f in gone if not f.startswith((*passing, *folded_in))]
    running.invoke("down", check=True)
    with tools.listener(int(running.env["POSTGRES_PORT"])):
        assert running.invoke("up").returncode == 4
    running.invoke("status")
    running.invoke("doctor")
    assert {n: tools.fingerprint(d) for n, d in directories.items()} == before
    running.up()
    deposit.check()
