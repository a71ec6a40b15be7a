"""What happens to a platform that runs, and what the next command makes of it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from typing import Any

import psycopg
import pytest

from tests.faults.compose.conftest import project
from tests.faults.conftest import Victim
from tests.smoke import containers
from tests.smoke.platform import Platform
from tests.smoke.stage import UP_LIMIT


def sql(victim: Victim, text: str, database: str = "postgres") -> list[Any]:
    """Run a statement as the superuser."""
    url = victim.contract["DATABASE_URL"].rsplit("/", 1)[0]
    with contextlib.closing(psycopg.connect(f"{url}/{database}", autocommit=True)) as link:
        cursor = link.execute(text)
        return cursor.fetchall() if cursor.description else []


def drop(victim: Victim, database: str) -> None:
    """Delete a database by hand."""
    sql(victim, f"drop database {database} with (force)")


def store(victim: Victim) -> Any:
    """A client of the store with the results."""
    made = Platform("compose")
    made.__dict__["contract"] = victim.contract
    return made.storage("INTERNAL")


def test_second_up_changes_nothing(running: Victim, engine: Any) -> None:
    before = {c["Id"]: c["Created"] for c in containers.of_project(engine, project(running))}
    done = running.invoke("up", "--json", check=True)
    assert '"changed": false' in done.stdout
    assert {c["Id"]: c["Created"] for c in containers.of_project(engine, project(running))} == before


@pytest.mark.parametrize("command", [("up",), ("db.init",)])
def test_a_database_that_was_deleted_is_made_again(running: Victim, command: tuple[str, ...]) -> None:
    drop(running, "labeler")
    running.invoke(*command, check=True)
    assert sql(running, "select 1", database="labeler") == [(1,)]


@pytest.mark.parametrize("command", [("up",), ("minio.init",)])
def test_a_bucket_that_was_deleted_is_made_again(running: Victim, command: tuple[str, ...]) -> None:
    client = store(running)
    client.delete_bucket(Bucket="config-schemas")
    running.invoke(*command, check=True)
    assert "config-schemas" in [b["Name"] for b in client.list_buckets()["Buckets"]]


def test_a_container_that_was_removed_is_reported_and_made_again(running: Victim, engine: Any) -> None:
    engine.remove_container(f"{project(running)}-redis", force=True)
    status = running.invoke("status")
    assert status.returncode == 7
    assert "redis" in status.stdout
    running.up()
    assert running.invoke("status").returncode == 0


def test_a_container_that_was_stopped_by_hand_is_started_again(running: Victim, engine: Any) -> None:
    engine.stop(f"{project(running)}-minio-results", timeout=5)
    assert running.invoke("status").returncode == 7
    running.up()
    assert running.invoke("status").returncode == 0


def test_a_changed_setting_makes_only_what_it_concerns_anew(running: Victim, engine: Any) -> None:
    before = {c["Names"][0]: c["Id"] for c in containers.of_project(engine, project(running))}
    changed = Victim(type(running.stage)("compose", running.stage.home, {**running.env, "REDIS_PASSWORD": "secret123"}))
    changed.up()
    after = {c["Names"][0]: c["Id"] for c in containers.of_project(engine, project(running))}
    assert [n for n in before if before[n] != after[n]] == [f"/{project(running)}-redis"]
    running.up()


def test_up_that_was_killed_is_finished_by_the_next(fresh: Victim, engine: Any) -> None:
    child = subprocess.Popen(
        [sys.executable, "-m", "invoke", "up"],
        cwd=fresh.stage.root,
        env=fresh.env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    end = time.monotonic() + UP_LIMIT
    while len(containers.of_project(engine, project(fresh))) < 3 and time.monotonic() < end:
        time.sleep(0.1)
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    fresh.up()
    assert fresh.invoke("status").returncode == 0
    fresh.invoke("down", check=True)
    assert containers.of_project(engine, project(fresh)) == []


def test_two_platforms_of_one_checkout_do_not_meet(running: Victim, fresh: Victim) -> None:
    assert project(running) != project(fresh)
    fresh.invoke("up", "--service", "redis", check=True)
    assert running.invoke("status").returncode == 0
    fresh.invoke("down", check=True)
    assert running.invoke("status").returncode == 0


def test_reset_puts_a_volume_into_the_trash_and_it_comes_back(fresh: Victim, engine: Any) -> None:
    fresh.invoke("up", "--service", "postgres", check=True)
    sql(fresh, "create table precious (x int)", database="platform")
    asked = fresh.invoke("compose.reset", "--service", "postgres")
    assert asked.returncode == 3
    volume = f"{project(fresh)}_postgres_platform_data"
    assert volume in containers.volumes_of(engine, project(fresh))
    fresh.invoke("compose.reset", "--service", "postgres", "--yes", check=True)
    assert volume not in containers.volumes_of(engine, project(fresh))
    fresh.invoke("trash.restore", "postgres", "--yes", check=True)
    fresh.invoke("up", "--service", "postgres", check=True)
    assert sql(fresh, "select to_regclass('precious')::text", database="platform") == [("precious",)]


def test_down_with_volumes_wants_consent_and_uses_the_trash(fresh: Victim, engine: Any) -> None:
    fresh.invoke("up", "--service", "redis", check=True)
    refused = fresh.invoke("compose.down", "--volumes")
    assert refused.returncode == 3
    assert f"{project(fresh)}_redis_data" in containers.volumes_of(engine, project(fresh))
    fresh.invoke("compose.down", "--volumes", "--yes", check=True)
    assert f"{project(fresh)}_redis_data" not in containers.volumes_of(engine, project(fresh))
    assert "redis" in fresh.invoke("trash.list").stdout


@pytest.mark.parametrize(
    ("words", "exit_code", "said"),
    [
        (("compose.exec", "--service", "postgress"), 9, "did you mean postgres?"),
        (("compose.exec", "--service", "minio-setup"), 9, "it ended with exit code 0"),
        (("compose.exec", "--run", "echo 'a"), 2, "No closing quotation"),
        (("compose.redis", "--run", "get 'a"), 2, "No closing quotation"),
        (("compose.redis", "--run", "no-such-command"), 1, ""),
        (("compose.up", "--light", "--force-recreate", "postgress"), 2, "did you mean postgres?"),
        (("minio.ls", "--bucket", "nothing"), 9, "training-results"),
        (("obs.status",), 9, "invoke obs.up"),
    ],
)
def test_what_was_mistyped_is_said(running: Victim, words: tuple[str, ...], exit_code: int, said: str) -> None:
    done = running.invoke(*words)
    assert done.returncode == exit_code, done.stderr
    assert said in done.stdout + done.stderr


def test_nothing_that_runs_is_said(fresh: Victim) -> None:
    assert "invoke compose.up" in fresh.invoke("compose.ps", check=True).stdout
    assert "invoke compose.up" in fresh.invoke("compose.logs", check=True).stderr
