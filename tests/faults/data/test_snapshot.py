"""Snapshots of a real platform: all of it comes back, damage is found, nothing is lost on the way."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from infra.data import maker
from infra.data import store as data
from infra.data.objects import login as objects_login
from infra.data.objects.client import Client
from infra.data.snapshot import create as snapshots
from infra.data.snapshot import verify as snapshot_verify
from infra.errors import PlatformError
from infra.settings import ROOT
from tests.faults.conftest import Victim
from tests.faults.data.db_tools import Site, offered, refused, rewritten, takes_signals, wait_for
from tests.smoke.stage import Completed, stage

KEYS = {b"text": b"value", b"bin\xff\x00": b"\x00\xff", b"large": b"x" * 300_000}


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """A running platform with something in every part."""
    with stage("native") as made:
        victim = Victim(made)
        victim.up()
        site = Site(victim, victim.stack_home / "snapshots")
        site.fill()
        put(site)
        yield site


def put(site: Site) -> None:
    """Keys of every type, and objects."""
    with cache(site) as client:
        client.flushall()
        client.mset(KEYS)
        client.hset("hash", mapping={"a": "1", "b": "2"})
        client.rpush("list", *range(300))
        client.zadd("zset", {"a": 1, "b": 2.5})
        client.sadd("set", "m", "n")
        client.xadd("stream", {"f": "v"}, id="1-1")
        client.set("passing", "v", ex=3600)
    with cache(site, 3) as client:
        client.set("other", "database 3")
    client = store(site)
    for number in range(20):
        write(client, f"s/{number}", b"content %d" % number)
    client.close()


def cache(site: Site, db: int = 0) -> redis.Redis:
    return redis.Redis(port=site.ends.port("redis"), db=db, password=site.ends.password("redis") or None)


def store(site: Site) -> Client:
    return Client(objects_login.login_of(site.ends, "minio-datasets"))


def write(client: Client, key: str, body: bytes) -> None:
    digest = hashlib.sha256(body).hexdigest()
    client.put("training-datasets", key, body, {"content-type": "text/x-odd"}, digest, len(body))


def everything(site: Site) -> dict[str, Any]:
    """What tells one state of the platform from another."""
    client = store(site)
    objects = {e.key: (e.size, e.etag) for e in client.listing("training-datasets")}
    client.close()
    with cache(site) as first, cache(site, 3) as third:
        keys = {name: first.dump(name) for name in sorted(first.scan_iter())}
        limited = {name for name in keys if first.ttl(name) > 0}
        return {"rows": site.state(), "objects": objects, "keys": keys, "limited": limited, "3": third.get("other")}


def change(site: Site) -> None:
    """Another state in every part."""
    site.change()
    with cache(site) as client:
        client.delete("text", "list")
        client.set("newer", "1")
        client.persist("passing")
    client = store(site)
    write(client, "s/3", b"changed")
    client.delete("training-datasets", "s/4")
    client.close()


def created(site: Site, *words: str) -> Path:
    """A new snapshot; its directory."""
    done = site.invoke("snapshot.create", *words, "--json")
    assert done.returncode == 0, done.stderr
    return Path(json.loads(done.stdout)["data"]["path"])


def _way_back(done: Completed) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(done.stdout)["data"]["wayBack"]
    return found


def test_everything_comes_back_and_what_was_there_is_kept(site: Site) -> None:
    before = everything(site)
    path = created(site, "all-of-it")
    change(site)
    changed = everything(site)
    done = site.invoke("snapshot.restore", "all-of-it", "--yes", "--json")
    assert done.returncode == 0, done.stderr
    assert everything(site) == before
    way = _way_back(done)
    assert set(way) == {"databases", "objects", "redis", "temporal"}
    with site.link(way["databases"]["platform"]) as link:
        assert link.execute("select t from plain where id = 7").fetchone() == ("changed",)
    for words in (way["redis"], way["objects"]):
        back = site.invoke(*words.removeprefix("invoke ").split())
        assert back.returncode == 0, back.stderr
    assert everything(site)["keys"] == changed["keys"]
    assert everything(site)["objects"]["s/3"] == changed["objects"]["s/3"]
    site.drop_kept()
    put(site)
    assert path.stat().st_mode & 0o777 == 0o700
    loose = [p for p in path.rglob("*") if p.stat().st_mode & 0o077]
    assert not loose


def test_the_second_snapshot_reads_no_object_again_and_shares_the_contents(site: Site) -> None:
    created(site)
    path = created(site)
    facts = json.loads((path / "manifest.json").read_text())["facts"]["parts"]["objects"]
    assert facts["objects"] >= 20
    assert facts["read"] == 0
    pool = [p for p in (path / "content" / "objects" / "objects").rglob("*") if p.is_file()]
    assert {p.stat().st_nlink > 1 for p in pool} == {True}


def test_show_says_as_of_when_and_the_databases_come_first(site: Site) -> None:
    created(site, "fenced", "--fence")
    marks = site.victim.stage.data("snapshot.show", "fenced")["quiesce"]
    assert [m["part"] for m in marks] == ["databases", "redis", "temporal", "objects"]
    assert [m["at"] for m in marks] == sorted(m["at"] for m in marks)
    assert marks[0]["skew"] == 0
    assert set(marks[0]["lsn"]) >= {"platform", "users", "labeler"}


def test_without_consent_nothing_is_touched(site: Site) -> None:
    created(site, "unasked")
    before = everything(site)
    refused(site.invoke("snapshot.restore", "unasked"), 3, "databases", "--yes")
    assert everything(site) == before
    refused(site.invoke("snapshot.delete", "unasked"), 3, "permanently")
    assert site.invoke("snapshot.delete", "unasked", "--yes").returncode == 0
    refused(site.invoke("snapshot.show", "unasked"), 9, "no snapshot")


def test_a_database_that_is_skipped_is_recorded_shown_and_stays_as_it_is(site: Site) -> None:
    before = site.state()
    made = site.invoke("snapshot.create", "two-of-them", "--skip-database", "labeler")
    assert made.returncode == 0, made.stderr
    assert "without labeler" in made.stdout
    shown = site.victim.stage.data("snapshot.show", "two-of-them")["parts"]["databases"]
    assert shown["left_out"] == {"labeler": "left out as asked for"}
    site.change()
    changed = site.state()
    restored = site.invoke("snapshot.restore", "two-of-them", "--yes")
    assert restored.returncode == 0, restored.stderr
    assert site.state() == {**before, "labeler": changed["labeler"]}
    site.drop_kept()


@pytest.fixture
def extended(site: Site) -> Iterator[Path]:
    """A snapshot of databases with extensions: one that the server has lost since, one of another version now."""
    with offered(site, lost="1.0", newer="1.0"):
        for database, name in (("labeler", "lost"), ("users", "newer")):
            with site.link(database) as link:
                link.execute(f"create extension {name}".encode())
        path = created(site)
    try:
        with offered(site, newer="1.1"):
            yield path
    finally:
        site.drop_kept()
        for database, name in (("labeler", "lost"), ("users", "newer")):
            with site.link(database) as link:
                link.execute(f"drop extension if exists {name}".encode())


def test_what_the_server_lacks_is_told_before_and_the_rest_is_restored(site: Site, extended: Path) -> None:
    before = site.state()
    plan = site.invoke("snapshot.restore", extended.name, "--dry-run", "--json")
    assert plan.returncode == 0, plan.stderr
    lacking = {"leftOut": {"labeler": ["the extension lost"]}}
    notes = ["users: the extension newer was 1.0 and becomes 1.1"]
    assert json.loads(plan.stdout)["data"]["databases"] == {**lacking, "notes": notes}
    asked = site.invoke("snapshot.restore", extended.name)
    refused(asked, 3, "labeler is LEFT OUT: native lacks the extension lost", *notes)
    site.change()
    changed = site.state()
    done = site.invoke("snapshot.restore", extended.name, "--yes")
    assert done.returncode == 11, done.stderr
    assert site.state() == {**before, "labeler": changed["labeler"]}
    with site.link("users") as link:
        assert link.execute("select newer()").fetchone() == ("1.1",)


def test_what_the_server_lacks_can_be_left_out_of_its_database(site: Site, extended: Path) -> None:
    before = site.state()
    site.change()
    done = site.invoke("snapshot.restore", extended.name, "--despite-differences", "--yes", "--json")
    assert done.returncode == 11, done.stderr
    differences = json.loads(done.stdout)["data"]["differences"]
    assert any('extension "lost" is not available' in text for text in differences["labeler"]), differences
    assert "labeler differs: " in done.stderr
    assert site.state() == before


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"provider": "i", "locale": "de"}, "the locale de of icu"),
        ({"provider": "c", "locale": None, "collate": "xx_YY.UTF-8", "encoding": "UTF8"}, "the locale xx_YY.UTF-8"),
        ({"collations": [["de-x-icu", "i", "de"]]}, "the collation de-x-icu"),
    ],
)
def test_a_locale_that_the_server_lacks_is_told_before(site: Site, change: dict[str, Any], said: str) -> None:
    path = created(site, "--no-verify", "--skip", "objects,redis,temporal")
    rewritten(path, lambda body: body["facts"]["parts"]["databases"]["databases"]["users"].update(change))
    plan = site.invoke("snapshot.restore", path.name, "--dry-run")
    assert f"the database users is LEFT OUT: native lacks {said}" in plan.stdout


def test_a_server_of_an_older_version_is_told_before(site: Site) -> None:
    path = created(site, "--no-verify", "--skip", "objects,redis,temporal")
    rewritten(path, lambda body: body["facts"]["parts"]["databases"]["server"].update(number=190001))
    before = site.state()
    for words in (["--dry-run"], ["--yes", "--trust"]):
        done = site.invoke("snapshot.restore", path.name, *words)
        refused(done, 8, "DATA_INCOMPATIBLE", "PostgreSQL 19", "nothing was changed")
    assert site.state() == before


def test_a_name_is_taken_once(site: Site) -> None:
    created(site, "mine")
    refused(site.invoke("snapshot.create", "mine"), 2, "mine")
    refused(site.invoke("snapshot.create", "--name", "latest"), 2, "latest")


def test_encrypted_only_its_key_opens_it(site: Site, tmp_path: Path) -> None:
    made = site.victim.stage.data("snapshot.key", "--to", str(tmp_path / "key"))
    site.victim.stage.data("snapshot.key", "--to", str(tmp_path / "other"))
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    before = everything(site)
    path = created(site, "sealed", "--encrypt", made["recipient"])
    files = ["content.tar.age", "manifest.json", "signature", "verified.json"]
    assert sorted(p.name for p in path.iterdir()) == files, "nothing is beside what is sealed"
    assert b"row 199" not in (path / "content.tar.age").read_bytes()
    change(site)
    refused(site.invoke("snapshot.restore", "sealed", "--yes"), 2, made["recipient"], "--identity")
    refused(site.invoke("snapshot.verify", "sealed", "--identity", str(tmp_path / "other")), 5, "does not decrypt")
    assert site.invoke("snapshot.verify", "sealed", "--identity", str(tmp_path / "key")).returncode == 0
    done = site.invoke("snapshot.restore", "sealed", "--yes", "--identity", str(tmp_path / "key"))
    assert done.returncode == 0, done.stderr
    assert everything(site) == before
    assert not list((site.victim.stack_home / "scratch").iterdir())
    site.drop_kept()


def flip(path: Path, bit: int) -> Path:
    """Flip a bit of a file; returns where the whole one is. Contents are shared with other snapshots by links."""
    kept = path.with_name("whole")
    os.rename(path, kept)
    flipped = bytearray(kept.read_bytes())
    flipped[bit // 8] ^= 1 << bit % 8
    path.write_bytes(flipped)
    return kept


def _checked(site: Site, name: str) -> None:
    found = snapshots.find(site.target, name)
    data.check_files(found)
    snapshot_verify.check(found.path / snapshots.CONTENT, found.facts["parts"])


def _noticed(site: Site, name: str) -> bool:
    """Whether damage is found; of the signature alone that means: nobody's backup any more, asked for --trust."""
    try:
        _checked(site, name)
    except PlatformError as error:
        return error.code in ("BACKUP_DAMAGED", "NOT_FOUND")
    return maker.of(site.victim.stack_home, snapshots.find(site.target, name)) == maker.ELSEWHERE


@pytest.mark.fault(4)
def test_4_one_flipped_bit_in_any_file_is_found(site: Site) -> None:
    path = created(site, "--no-verify")
    choice = random.Random(4)
    files = [p for p in path.rglob("*") if p.is_file() and p.stat().st_size]
    for victim in [choice.choice(files) for _ in range(60)]:
        kept = flip(victim, choice.randrange(victim.stat().st_size * 8))
        assert _noticed(site, path.name), victim
        os.replace(kept, victim)


@pytest.mark.fault(4)
def test_4_damage_ends_with_10_before_anything_is_touched(site: Site) -> None:
    path = created(site, "--no-verify")
    before = everything(site)
    pool = path / snapshots.CONTENT / "objects" / "objects"
    for victim in (next(path.rglob("*.dat.zst")), next(p for p in pool.rglob("*") if p.is_file())):
        kept = flip(victim, 3)
        refused(site.invoke("snapshot.restore", path.name, "--yes"), 10, victim.name)
        os.replace(kept, victim)
    assert everything(site) == before


def test_rows_that_point_at_no_object_are_named(site: Site) -> None:
    with site.link("platform") as link:
        link.execute("create table jobs (weights text, report text)")
        link.execute("insert into jobs values ('training-datasets/s/1', 'training-results/gone/report.json')")
    try:
        done = site.invoke("snapshot.create", "--json")
        assert done.returncode == 11, done.stderr
        assert "training-results/gone/report.json" in done.stderr
        assert json.loads(done.stdout)["data"]["verified"]
    finally:
        with site.link("platform") as link:
            link.execute("drop table jobs")


@pytest.mark.parametrize(
    "step",
    [
        "infra.data.postgres.backup._dump_all before",
        "infra.data.redis_dump.save after",
        "infra.data.objects.backup.backup before",
        "infra.data.snapshot.verify.verify before",
        "infra.data.snapshot.create.seal after",
    ],
)
@pytest.mark.fault(1)
def test_1_kill_9_of_a_snapshot_leaves_none_and_the_next_run_sweeps(site: Site, step: str) -> None:
    names = [p.name for p in sorted(site.target.glob("0*"))]
    site.killed(step, "snapshot.create")
    assert [p.name for p in sorted(site.target.glob("0*"))] == names
    assert list(site.target.glob(".part-*"))
    created(site)
    assert not list(site.target.glob(".part-*"))


_SEALING = """
import os, sys, time
from infra.data.snapshot import age as snapshot_age
real = snapshot_age._pack
def slow(content, pipe):
    os.kill(os.getpid(), int(sys.argv.pop(1)))
    for _ in range(600):
        pipe.write(bytes(1 << 16))
        time.sleep(0.02)
    real(content, pipe)
snapshot_age._pack = slow
from invoke.main import program
program.run(["invoke", *sys.argv[2:]])
"""
"""A snapshot whose sealing takes twelve seconds, and which gets a signal as it begins."""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.fault(23)
def test_23_a_signal_while_a_snapshot_is_sealed_ends_it_at_once(
    site: Site, number: signal.Signals, tmp_path: Path
) -> None:
    key = json.loads(site.invoke("snapshot.key", "--to", str(tmp_path / "key"), "--json").stdout)["data"]["recipient"]
    names = sorted(p.name for p in site.target.glob("0*"))
    argv = [sys.executable, "-c", _SEALING, str(int(number)), "snapshot.create", "--encrypt", key]
    done = subprocess.run(argv, cwd=ROOT, env=site.victim.env, capture_output=True, text=True, check=False)
    assert done.returncode == 128 + number, done.stderr
    assert "unexpected failure" not in done.stderr
    assert sorted(p.name for p in site.target.glob("0*")) == names
    assert not list(site.target.glob(".part-*"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.fault(23)
def test_23_ctrl_c_and_sigterm_end_a_snapshot_within_two_seconds(site: Site, number: signal.Signals) -> None:
    names = sorted(p.name for p in site.target.glob("0*"))
    for delay in (0.0, 1.1):
        argv = [sys.executable, "-m", "invoke", "snapshot.create"]
        child = subprocess.Popen(argv, cwd=ROOT, env=site.victim.env, stderr=subprocess.PIPE, text=True)
        wait_for("its start", lambda: takes_signals(child.pid))  # noqa: B023
        time.sleep(delay)
        child.send_signal(number)
        _, said = child.communicate(timeout=2.0 + 8.0)  # eight seconds for a loaded machine
        if child.returncode != 0:
            assert child.returncode in (128 + number, -signal.SIGINT), said  # Python's own way, amid an import
            assert sorted(p.name for p in site.target.glob("0*")) == names
        names = sorted(p.name for p in site.target.glob("0*"))
        assert not list(site.target.glob(".part-*"))
    created(site)
