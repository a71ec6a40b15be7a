"""Settings that change between two runs: what they mean for data, for what runs, and for nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest
import redis

from infra import catalog
from tests.faults.conftest import Victim
from tests.faults.native import tools
from tests.faults.native.tools import Deposit
from tests.smoke.stage import free_ports

WRONG = "wrong-pass-4711"


def test_another_postgresql_password_is_refused_at_once_by_a_running_server(running: Victim, deposit: Deposit) -> None:
    before = tools.pids(running)
    wrong = tools.with_settings(running, POSTGRES_PASSWORD=WRONG)
    said = tools.refused(wrong.invoke("up"), 5, "postgres", "password", "POSTGRES_PASSWORD", "LOGIN_REFUSED")
    assert WRONG not in said
    running.up()
    assert tools.pids(running) == before
    deposit.check()


def test_another_postgresql_password_is_refused_at_once_by_a_server_that_starts(
    running: Victim, deposit: Deposit
) -> None:
    running.invoke("down", check=True)
    wrong = tools.with_settings(running, POSTGRES_PASSWORD=WRONG)
    said = tools.refused(wrong.invoke("up"), 5, "postgres", "refuses the login", "LOGIN_REFUSED")
    assert WRONG not in said
    assert "not ready within" not in said
    assert wrong.invoke("status").returncode == 7
    doctor = wrong.invoke("doctor")
    assert doctor.returncode == 4
    assert WRONG not in doctor.stdout + doctor.stderr
    running.up()  # with the right one: no stale refusal
    deposit.check()
    assert running.invoke("status").returncode == 0


def test_another_postgresql_user_is_refused_at_once(running: Victim, deposit: Deposit) -> None:
    wrong = tools.with_settings(running, POSTGRES_USER="nobody-knows-me")
    tools.refused(wrong.invoke("up"), 5, "nobody-knows-me", "LOGIN_REFUSED")
    running.up()
    deposit.check()


def test_the_object_stores_are_not_opened_with_another_engine(running: Victim, deposit: Deposit) -> None:
    running.invoke("down", check=True)
    engine = running.stack_home / "native" / "store-engine"
    wrote = engine.read_text()
    stores = [tools.data_directories(running)[name] for name in ("minio-datasets", "minio-results")]
    before = [tools.fingerprint(store) for store in stores]
    engine.write_text("minio\n" if wrote.strip() != "minio" else "rclone\n")
    noted = engine.read_text().strip()
    try:
        other = tools.with_settings(running, PLATFORM_S3_SERVER=wrote.strip())
        said = tools.refused(other.invoke("up"), 8, noted, wrote.strip(), "PLATFORM_S3_SERVER", "DATA_INCOMPATIBLE")
        assert "the environment" in said
        assert [tools.fingerprint(store) for store in stores] == before
        tools.assert_nothing_runs(running)
    finally:
        engine.write_text(wrote)
    running.up()
    deposit.check()


def test_a_moved_port_restarts_that_service_only(running: Victim, deposit: Deposit) -> None:
    before = tools.pids(running)
    moved = tools.with_settings(running, REDIS_PORT=free_ports()["REDIS_PORT"])
    moved.up()
    after = tools.pids(running)
    assert {name for name in after if after[name] != before[name]} == {"redis"}
    assert moved.contract["REDIS_URL"].endswith(f":{moved.env['REDIS_PORT']}/0")
    replace(deposit, victim=moved).check()
    with pytest.raises(redis.ConnectionError), deposit.redis() as client:
        client.ping()
    running.up()
    back = tools.pids(running)
    assert {name for name in back if back[name] != before[name]} == {"redis"}
    deposit.check()
    tools.assert_runs_once(running)


def test_a_port_moved_to_one_that_is_taken_stops_nothing(running: Victim) -> None:
    before = tools.pids(running)
    port = int(free_ports()["REDIS_PORT"])
    with tools.listener(port) as stranger:
        moved = tools.with_settings(running, REDIS_PORT=str(port))
        tools.refused(moved.invoke("up"), 4, f"port {port} ", f"pid {stranger}", "REDIS_PORT")
    assert tools.pids(running) == before
    assert running.invoke("status").returncode == 0


def test_a_new_redis_password_restarts_redis_which_then_refuses_others(running: Victim, deposit: Deposit) -> None:
    before = tools.pids(running)
    secret = tools.with_settings(running, REDIS_PASSWORD='new "pass" \\ $1 %41 ü')
    secret.up()
    after = tools.pids(running)
    assert {name for name in after if after[name] != before[name]} == {"redis"}
    replace(deposit, victim=secret).check()
    with deposit.redis(password=None) as client, pytest.raises(redis.AuthenticationError):
        client.get("x")
    with deposit.redis(password="another") as client, pytest.raises(redis.AuthenticationError):
        client.get("x")
    running.up()
    with deposit.redis() as client:
        assert client.ping()
    deposit.check()


def test_new_keys_of_the_object_stores_work_at_once_and_the_old_ones_no_more(running: Victim, deposit: Deposit) -> None:
    before = tools.pids(running)
    moved = tools.with_settings(running, MINIO_ROOT_USER="someone", MINIO_ROOT_PASSWORD="other-secret-9")
    moved.up()
    after = tools.pids(running)
    assert {name for name in after if after[name] != before[name]} == {"minio-datasets", "minio-results"}
    replace(deposit, victim=moved).check()
    bucket = catalog.BUCKETS[0]
    assert deposit.store(bucket).request("GET", f"/{bucket.name}/{deposit.mark}").status == 403
    running.up()
    deposit.check()
