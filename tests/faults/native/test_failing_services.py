"""Services that cannot start: the culprit is named with its last words, nobody else is blamed, nothing is lost."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from infra.supervision.supervisor import GIVE_UP_AFTER
from infra.tiers.native.services import CORE
from tests.faults.conftest import Victim
from tests.faults.native import tools
from tests.faults.native.tools import Deposit


def _append_only_file(victim: Victim) -> Path:
    found = sorted(tools.data_directories(victim)["redis"].glob("appendonlydir/*.incr.aof"))
    return found[-1]


def _assert_the_others_are_ready(victim: Victim, culprit: str) -> None:
    others = [name for name in CORE if name != culprit]
    tools.until("the others to be ready", lambda: all(tools.is_ready(victim, name) for name in others))


def test_a_damaged_append_only_file_is_reported_with_the_last_words_of_redis(running: Victim, deposit: Deposit) -> None:
    running.invoke("down", check=True)
    file = _append_only_file(running)
    good = file.read_bytes()
    assert deposit.mark.encode() in good
    middle = good.index(deposit.mark.encode()) - 8
    file.write_bytes(good[:middle] + b"\0" * 64 + good[middle + 64 :])
    done = running.invoke("up")
    said = tools.refused(done, 7, "redis failed", "Bad file format", "invoke logs -s redis", "SERVICE_FAILED")
    assert f"gave up after {GIVE_UP_AFTER} tries" in said
    assert "not ready within" not in said
    assert not [name for name in CORE if name != "redis" and f"{name} failed" in said]
    _assert_the_others_are_ready(running, "redis")
    others = tools.pids(running, *(name for name in CORE if name != "redis"))
    code, envelope = tools.answer(running, "status")
    states = {s["name"]: s["state"] for s in envelope["data"]["services"]}
    assert (code, states.pop("redis"), set(states.values())) == (7, "failed", {"ready"})
    assert "redis is failed" in running.invoke("status", "--why").stdout
    assert running.invoke("wait").returncode == 7
    deposit.check(redis_too=False)
    # Once it is fixed, the old failure is not taken for the outcome of the new try.
    file.write_bytes(good)
    running.up()
    deposit.check()
    assert tools.pids(running, *others) == others
    tools.assert_runs_once(running)


def test_a_directory_in_place_of_temporals_database_is_reported(running: Victim, deposit: Deposit) -> None:
    running.invoke("down", check=True)
    database = tools.data_directories(running)["temporal"] / "temporal.db"
    kept = database.with_name("kept")
    kept.mkdir()
    parts = sorted(database.parent.glob("temporal.db*"))
    for part in parts:
        part.rename(kept / part.name)
    database.mkdir()
    done = running.invoke("up", "--json")
    error = json.loads(done.stdout)["error"]
    assert (done.returncode, error["code"], error["details"]["service"]) == (7, "SERVICE_FAILED", "temporal")
    assert error["details"]["log"]
    assert any("temporal" in action["command"] for action in error["actions"])
    _assert_the_others_are_ready(running, "temporal")
    database.rmdir()
    for part in parts:
        (kept / part.name).rename(part)
    kept.rmdir()
    running.up()
    deposit.check()


def test_a_service_that_fails_later_is_given_up_visibly_and_up_takes_it_up_again(
    running: Victim, deposit: Deposit
) -> None:
    """Its data vanishes from under it while it runs; it crashes and cannot come back by itself."""
    directory = tools.data_directories(running)["temporal"]
    aside = directory.with_name("temporal-aside")
    directory.rename(aside)
    directory.write_text("no directory")
    tools.kill_all(running, "temporal")
    tools.until("giving up", lambda: running.state()["services"]["temporal"]["state"] == "failed")
    assert "temporal is failed" in running.invoke("status", "--why").stdout
    directory.unlink()
    shutil.move(aside, directory)
    running.up()
    deposit.check()
    tools.assert_runs_once(running)
