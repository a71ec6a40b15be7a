"""Odd passwords work everywhere and show up nowhere: not in commands, not in logs, not in files others can read."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
import redis

from infra import catalog
from tests.faults.conftest import Victim
from tests.faults.native import tools
from tests.faults.native.tools import Deposit
from tests.faults.watcher import Watcher, guarded_start

# Each with a core that is found however the rest is quoted.
CORES = {"POSTGRES_PASSWORD": "pg7Kq", "REDIS_PASSWORD": "rd7Kq", "MINIO_ROOT_PASSWORD": "s37Kq"}
ODD = {
    "POSTGRES_PASSWORD": "'\"pg7Kq $HOME `id` %41%s \\n\\ ;&|<>*?~#!,=@:/[]{}() ü한🙂 '",
    "REDIS_PASSWORD": '"\'rd7Kq $HOME `id` %41%s \\x41\\ ;&|<>*?~#!,=@:/[]{}() ü한🙂 "',
    "MINIO_ROOT_PASSWORD": "'\"s37Kq $HOME `id` %41%s \\n\\ ;&|<>*?~#!=@:/[]{}() ü한🙂",
}


@pytest.fixture(scope="module")
def guarded() -> Iterator[tuple[Victim, Watcher, str]]:
    """A platform with odd passwords, all commands that were seen during its start, and what `up` said."""
    with guarded_start("native", ODD) as made:
        yield made


Guarded = tuple[Victim, Watcher, str]


def _leaks(text: str) -> list[str]:
    return [name for name, core in CORES.items() if core in text]


def test_the_platform_works_with_odd_passwords(guarded: Guarded) -> None:
    victim, _, _ = guarded
    Deposit(victim).put().check()
    contract = victim.contract
    with psycopg.connect(contract["DATABASE_URL"].replace("localhost", "127.0.0.1")) as link:
        assert link.execute("select 1").fetchone() == (1,)
    with redis.Redis.from_url(contract["REDIS_URL"].replace("localhost", "127.0.0.1")) as client:
        assert client.ping()
    assert contract["EXTERNAL_STORAGE_SECRET_KEY"] == ODD["MINIO_ROOT_PASSWORD"]


def test_nobody_gets_in_with_another_password(guarded: Guarded) -> None:
    victim, _, _ = guarded
    other = Deposit(tools.with_settings(victim, **dict.fromkeys(ODD, "something else")))
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(other.ends.database_url("platform"))
    with other.redis() as client, pytest.raises(redis.AuthenticationError):
        client.ping()
    for bucket in catalog.BUCKETS:
        assert other.store(bucket).request("GET", f"/{bucket.name}").status == 403


def test_it_comes_up_again_with_odd_passwords(guarded: Guarded) -> None:
    victim, _, _ = guarded
    deposit = Deposit(victim).put()
    before = tools.pids(victim)
    victim.up()
    assert tools.pids(victim) == before
    victim.invoke("down", check=True)
    victim.up()
    deposit.check()


def test_no_command_carries_a_password(guarded: Guarded) -> None:
    victim, watcher, _ = guarded
    victim.invoke("status")
    victim.invoke("doctor")
    watcher.look()
    assert any("initdb" in command for command in watcher.seen)
    assert [command for command in watcher.seen if _leaks(command)] == []


def test_no_answer_shows_a_password(guarded: Guarded) -> None:
    victim, _, said = guarded
    assert _leaks(said) == []
    for words in (("up",), ("status",), ("status", "--json"), ("status", "--why"), ("doctor",), ("version",)):
        done = victim.invoke(*words)
        assert done.returncode == 0, done.stderr
        assert _leaks(done.stdout + done.stderr) == [], words
    assert _leaks(victim.invoke("logs", "--tail", "0").stdout) == []
    assert "****" in victim.invoke("status", "--json").stdout
    shown = json.loads(victim.invoke("status", "--json", "--show-secrets").stdout)
    assert ODD["POSTGRES_PASSWORD"] in json.dumps(shown, ensure_ascii=False).replace("\\\\", "\\").replace('\\"', '"')


def test_no_refusal_shows_a_password(guarded: Guarded) -> None:
    victim, _, _ = guarded
    wrong = tools.with_settings(victim, POSTGRES_PASSWORD="pg7Kq is wrong")
    done = wrong.invoke("up")
    assert done.returncode == 5
    assert _leaks(done.stdout + done.stderr) == []
    short = tools.with_settings(victim, MINIO_ROOT_PASSWORD="s37Kq")
    done = short.invoke("up", "--debug")
    assert done.returncode == 2
    assert _leaks(done.stdout + done.stderr) == []
    victim.up()


def test_no_log_holds_a_password(guarded: Guarded) -> None:
    victim, _, _ = guarded
    logs = sorted(victim.stack_home.rglob("*.log*"))
    assert len(logs) > len(CORES)
    assert [log for log in logs if _leaks(_text(log))] == []


def test_no_file_that_others_can_read_holds_a_password(guarded: Guarded) -> None:
    victim, _, _ = guarded
    private: list[Path] = []
    bad: list[Path] = []
    for path in sorted(victim.stack_home.rglob("*")):
        if not stat.S_ISREG(path.lstat().st_mode) or not _leaks(_text(path)):
            continue
        (bad if path.stat().st_mode & 0o077 else private).append(path)
    assert bad == []
    # They have to be somewhere: this shows that the search finds them.
    assert {p.name for p in private} >= {"desired.json", "redis.conf"}


def _text(path: Path) -> str:
    return path.read_bytes().decode("utf-8", "replace")


@pytest.mark.parametrize("password", ["a,b,c,d,e,f", '"quoted",and more', "12345678,"], ids=["commas", "quotes", "end"])
def test_a_comma_in_the_key_of_the_object_stores_works_or_is_refused_but_never_opens_them(
    unused: Victim, password: str
) -> None:
    victim = tools.with_settings(unused, MINIO_ROOT_PASSWORD=password)
    done = victim.invoke("up")
    if done.returncode == 2:
        tools.refused(done, 2, "MINIO_ROOT_PASSWORD", "comma")
        assert password not in done.stderr
        tools.assert_nothing_runs(victim)
        return
    assert done.returncode == 0, done.stderr
    bucket = catalog.BUCKETS[0]
    stranger = Deposit(tools.with_settings(victim, MINIO_ROOT_PASSWORD="something else"))
    assert stranger.store(bucket).request("GET", f"/{bucket.name}").status == 403
    assert Deposit(victim).store(bucket).request("HEAD", f"/{bucket.name}").status == 200


def test_quoting_hides_nothing_from_this_search() -> None:
    for name, core in CORES.items():
        for form in (ODD[name], quote(ODD[name], safe=""), json.dumps(ODD[name]), repr(ODD[name])):
            assert core in form
