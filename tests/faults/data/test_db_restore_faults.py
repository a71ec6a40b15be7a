"""Faults while databases are verified and restored: the live ones stay as they are or become the new ones, whole."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest
import zstandard

from infra.data import store
from infra.errors import PlatformError
from tests.faults.conftest import Victim
from tests.faults.data.db_tools import NAMES, Site, refused, wait_for, within
from tests.smoke.stage import HANG

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals and modes")


@pytest.fixture(scope="module")
def saved(platform: Victim, tmp_path_factory: pytest.TempPathFactory) -> tuple[Site, Path]:
    site = Site(platform, tmp_path_factory.mktemp("saved") / "backups")
    site.fill()
    return site, site.backup("--verify")


@pytest.fixture
def site(saved: tuple[Site, Path], tmp_path: Path) -> Site:
    made = Site(saved[0].victim, tmp_path / "backups")
    made.drop_kept()
    made.fill()
    return made


@pytest.fixture
def path(saved: tuple[Site, Path], site: Site) -> Path:
    """A copy of the backup that a test may damage."""
    site.target.mkdir(mode=0o700)
    copy = site.target / saved[1].name
    shutil.copytree(saved[1], copy)
    return copy


def test_a_restore_brings_everything_back_and_keeps_the_present_one(site: Site, path: Path) -> None:
    before = site.state()
    site.change()
    changed = site.state()
    done = site.invoke("db.restore", "--from", str(path), "--yes", "--json")
    assert done.returncode == 0, done.stderr
    assert site.state() == before
    found = json.loads(done.stdout)["data"]["databases"]
    assert {name: site.content(found[name]["old"]) for name in NAMES} == changed
    with site.link("users") as link:
        assert link.execute("select count(*) from parts").fetchone() == (3,)
        row = link.execute("select loid, data from pg_largeobject").fetchone()
        assert row is not None
        assert row[1] == b"\x00\n\\.\n\n\n"
    site.drop_kept()


def test_one_database_under_another_name(site: Site, path: Path) -> None:
    before = site.content("users")
    done = site.invoke("db.restore", "--from", str(path), "--database", "users", "--to", 'new "one"', "--yes")
    assert done.returncode == 0, done.stderr
    assert site.content('new "one"') == before
    again = site.invoke("db.restore", "--from", str(path), "--database", "users", "--to", 'new "one"', "--yes")
    refused(again, 2, "there is already a database")
    with site.link() as link:
        link.execute('drop database "new ""one"""')


def test_without_consent_nothing_is_touched(site: Site, path: Path) -> None:
    before = (site.state(), site.databases())
    refused(site.invoke("db.restore", "--from", str(path)), 3, "CONFIRMATION_NEEDED", "This restores")
    assert site.invoke("db.restore", "--from", str(path), "--dry-run").returncode == 0
    assert (site.state(), site.databases()) == before


def test_a_table_of_many_megabytes_is_taken_in_whole_while_it_is_written(site: Site) -> None:
    with site.link("users") as link:
        link.execute(
            "create table a_big as select n, md5(n::text) || repeat('x', n % 900) t from generate_series(1, 150000) n"
        )
        link.execute("create table b_small as select n from generate_series(1, 3) n")
    path = site.backup("--database", "users", "--verify")
    tables = store.load(path).facts["databases"]["users"]["tables"]
    assert next(t["rows"] for label, t in tables.items() if "a_big" in label) == 150_000
    assert next(t["rows"] for label, t in tables.items() if "b_small" in label) == 3


def test_what_a_backup_does_not_hold_stays(site: Site, path: Path) -> None:
    refused(site.invoke("db.restore", "--from", str(path), "--database", "nosuch", "--yes"), 9, "nosuch")
    with site.link() as link:
        link.execute("drop database if exists later")
        link.execute("create database later")
        link.execute("drop database labeler with (force)")  # restored although it is not there now
    done = site.invoke("db.restore", "--from", str(path), "--yes")
    assert done.returncode == 0, done.stderr
    assert "later" in site.databases()
    assert len(site.content("labeler")) == 200
    with site.link() as link:
        link.execute("drop database later")


@pytest.mark.fault(4)
def test_4_one_flipped_bit_at_200_places_in_each_kind_of_file_is_found(path: Path) -> None:
    found = store.load(path)
    rng = random.Random(4)
    files = [*(f.path for f in found.files), store.MANIFEST]
    for name in files:
        original = (path / name).read_bytes()
        missed = []
        for _ in range(200):
            place, bit = rng.randrange(len(original)), 1 << rng.randrange(8)
            damaged = bytearray(original)
            damaged[place] ^= bit
            (path / name).write_bytes(damaged)
            try:
                store.check_files(store.load(path))
            except PlatformError as error:
                assert name in error.what  # noqa: PT017
                continue
            if name != store.MANIFEST or json.loads(damaged) != json.loads(original):
                missed.append((place, bit))
        (path / name).write_bytes(original)
        assert not missed, name


@pytest.mark.fault(4)
def test_4_damage_ends_with_10_before_anything_is_touched(site: Site, path: Path) -> None:
    before = (site.state(), site.databases())
    file = max((f for f in store.load(path).files), key=lambda f: f.size)
    content = bytearray((path / file.path).read_bytes())
    content[len(content) // 2] ^= 4
    (path / file.path).write_bytes(content)
    for words in (["db.verify"], ["db.restore", "--yes"]):
        refused(site.invoke(*words, "--from", str(path)), 10, "BACKUP_DAMAGED", file.path)
    assert (site.state(), site.databases()) == before


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not a complete backup"),
        ("{}", "not a complete backup"),
        ("half", "not a complete backup"),
        (None, "manifest"),
        ("newer", "reads format 99"),
    ],
)
@pytest.mark.fault(5)
def test_5_a_manifest_that_is_broken_or_too_new(site: Site, path: Path, text: str | None, said: str) -> None:
    manifest = path / store.MANIFEST
    whole = manifest.read_text()
    newer = json.dumps({**json.loads(whole), "format": 99})
    if text is None:
        manifest.unlink()
    else:
        manifest.write_text({"half": whole[: len(whole) // 2], "newer": newer}.get(text, text))
    refused(site.invoke("db.verify", "--from", str(path)), 10, said)
    refused(site.invoke("db.restore", "--from", str(path), "--yes"), 10, said)
    listed = json.loads(site.invoke("db.list", "--to", str(site.target), "--json").stdout)["data"]
    assert said in listed[-1]["problem"]
    assert not listed[-1]["verified"]
    refused(site.invoke("db.verify", "--from", "latest", "--to", str(site.target)), 9, "there is no backup")


@pytest.mark.fault(8)
def test_8_twenty_clients_see_old_or_new_and_never_miss_the_database_for_long(site: Site, path: Path) -> None:
    site.change()
    stop = threading.Event()
    seen: set[str] = set()
    gaps: list[float] = []

    def reconnect() -> None:
        last = time.monotonic()
        while not stop.is_set():
            try:
                with site.link("platform") as link:
                    row = link.execute("select count(*), max(t) filter (where id = 7) from plain").fetchone()
                assert row is not None
                assert row[0] == 200
                seen.add("new" if row[1].startswith("row") else row[1])
                now = time.monotonic()
                gaps.append(now - last)
                last = now
            except psycopg.OperationalError:
                time.sleep(0.005)

    threads = [threading.Thread(target=reconnect) for _ in range(20)]
    for thread in threads:
        thread.start()
    try:
        time.sleep(0.5)
        words = ("db.restore", "--from", str(path), "--database", "platform", "--yes", "--json")
        done = site.invoke(*words)
        time.sleep(0.5)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert done.returncode == 0, done.stderr
    assert seen == {"changed", "new"}
    assert max(gaps) < 5  # the bar is 1 s on a machine with nothing else to do
    print(f"swap {json.loads(done.stdout)['data']['swap_ms']} ms, longest gap of a client {max(gaps):.3f} s")
    kept = [n for n in site.databases() if n.startswith("platform_old_")]
    assert len(kept) == 1
    assert site.content(kept[0])[6][1] == "changed"
    site.drop_kept()


@pytest.mark.parametrize(
    ("step", "new"),
    [
        ("infra.data.postgres.scratch.create after", False),
        ("infra.data.postgres.load.load before", False),
        ("infra.data.postgres.load.load after", False),
        ("infra.data.postgres.compare.compare after", False),
        ("infra.data.postgres.restore.swap before", False),
        ("infra.data.postgres.restore.swap after", True),
    ],
)
@pytest.mark.fault(9)
def test_9_kill_9_at_a_step_leaves_the_old_or_the_new_and_a_rerun_cleans(
    site: Site, path: Path, step: str, new: bool
) -> None:
    before = site.state()
    site.change()
    changed = site.state()
    site.killed(step, "db.restore", "--from", str(path), "--yes")
    assert site.state() == (before if new else changed)
    done = site.invoke("db.restore", "--from", str(path), "--yes")
    assert done.returncode == 0, done.stderr
    assert site.state() == before
    assert not [n for n in site.databases() if "_new_" in n]
    assert not list((site.victim.stack_home / "scratch").iterdir())
    site.drop_kept()


_SLOW = """
create function slow(what text, n int) returns boolean immutable language plpgsql as $$
  begin
    if current_query() ~* ('^' || what) then perform pg_sleep(0.5); end if;
    return true;
  end $$;
"""
_SLOW_TO_LOAD = _SLOW + "create table crawl (n int check (public.slow('copy', n)));"
_SLOW_TO_ANALYSE = _SLOW + "create table crawl (n int); create index on crawl ((public.slow('analyze', n)));"
_CRAWL = "insert into crawl select generate_series(1, 120)"


def _untouched(site: Site, before: tuple[Any, Any]) -> None:
    assert (site.state(), site.databases()) == before
    wait_for("the last client of the restore to be gone", lambda: not site.clients())
    assert not list((site.victim.stack_home / "scratch").iterdir())


@pytest.mark.fault(9)
def test_9_a_failure_of_one_database_leaves_it_as_it_was_and_the_others_are_restored(site: Site) -> None:
    path = site.backup()
    _with_other_rows(path, "users", b"7\t", b"x\t")
    before = site.state()
    site.change()
    changed = site.state()
    done = site.invoke("db.restore", "--from", str(path), "--yes", "--trust", "--json-stream")
    refused(done, 11, "users was not restored and is unchanged", "invalid input syntax")
    assert site.state() == {**before, "users": changed["users"]}
    assert not [name for name in site.databases() if "_new_" in name]


def _with_other_rows(path: Path, database: str, old: bytes, new: bytes) -> None:
    """Other text at the beginning of a row of `plain`, under a manifest that fits."""
    body = json.loads((path / store.MANIFEST).read_text())
    prefix = body["facts"]["databases"][database]["directory"] + "/"
    for file in body["files"]:
        if file["path"].startswith(prefix) and file["path"].endswith(".zst"):
            place = path / file["path"]
            raw = zstandard.ZstdDecompressor().decompressobj().decompress(place.read_bytes())
            place.write_bytes(zstandard.compress(raw.replace(b"\n" + old, b"\n" + new)))
            file |= {"size": place.stat().st_size, "sha256": hashlib.sha256(place.read_bytes()).hexdigest()}
    (path / store.MANIFEST).write_text(json.dumps({**body, "sha256": store.digest_of(body)}))


def test_rows_that_differ_are_found_and_their_order_is_left_out_of_account(site: Site) -> None:
    path = site.backup("--database", "users")
    before = (site.state(), site.databases())
    body = json.loads((path / store.MANIFEST).read_text())
    table = next(t for label, t in body["facts"]["databases"]["users"]["tables"].items() if " plain " in label)
    right = dict(table)
    table |= {"digest": "0" * 32}  # as if the rows had come in another order when the backup was made
    (path / store.MANIFEST).write_text(json.dumps({**body, "sha256": store.digest_of(body)}))
    assert site.invoke("db.verify", "--from", str(path), "--trust").returncode == 0
    table |= {**right, "rows": 7}
    (path / store.MANIFEST).write_text(json.dumps({**body, "sha256": store.digest_of(body)}))
    refused(
        site.invoke("db.restore", "--from", str(path), "--yes", "--trust"),
        10,
        "is not the same",
        "different content",
        "plain",
    )
    _untouched(site, before)


@pytest.mark.parametrize("slow", [_SLOW_TO_LOAD, _SLOW_TO_ANALYSE], ids=["load", "analyse"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.fault(23)
def test_23_ctrl_c_and_sigterm_end_the_filling_within_two_seconds(
    site: Site, slow: str, number: int, code: int
) -> None:
    for name in ("labeler", "users"):
        with site.link(name) as link:
            link.execute(slow + _CRAWL)
    path = site.backup()
    before = (site.state(), site.databases())
    process = site.start("db.restore", "--from", str(path), "--yes")
    wait_for("both to sleep", lambda: _asleep(site) == 2 or process.poll() is not None)
    began = time.monotonic()
    os.kill(process.pid, number)
    _, said = process.communicate(timeout=HANG)
    assert time.monotonic() - began < within(2)
    assert process.returncode == code, said
    _untouched(site, before)


def _asleep(site: Site) -> int:
    with site.link() as link:
        text = "select count(*) from pg_stat_activity where wait_event = 'PgSleep' and datname like '%\\_new\\_%'"
        row = link.execute(text).fetchone()
    return int(row[0]) if row else 0


_BETWEEN = """
import os, signal, sys, threading
from infra.data.postgres import swap as place
real = place.swap_text
def slow(*given):
    parts = real(*given).split(";\\n")
    at = next(i for i, p in enumerate(parts) if " rename to " in p) + 1
    threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGKILL)).start()
    return ";\\n".join([*parts[:at], "select pg_sleep(1.5)", *parts[at:]])
place.swap_text = slow
sys.argv = ["invoke", "db.restore", "--from", sys.argv[1], "--yes"]
from invoke.main import program
program.run()
"""


@pytest.mark.fault(9)
def test_9_kill_9_between_the_renames_ends_in_the_new_state(site: Site, path: Path) -> None:
    before = site.state()
    site.change()
    argv = [sys.executable, "-c", _BETWEEN, str(path)]
    done = subprocess.run(
        argv, cwd=site.victim.stage.root, env=site.victim.env, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == -9, done.stderr
    wait_for("the server to finish the swap", lambda: not site.clients())
    assert site.state() == before
    with site.link() as link:
        closed = link.execute("select datname from pg_database where not datallowconn").fetchall()
    assert closed == [("template0",)]
    site.drop_kept()


@pytest.mark.fault(10)
def test_10_roles_owner_rights_and_settings_come_back(site: Site) -> None:
    with site.link() as link:
        link.execute("create role \"Müller x\" login password 'first'")
        link.execute('create role reader; grant reader to "Müller x"')
        link.execute('alter database users owner to "Müller x"')
        link.execute("revoke connect on database users from public; grant connect on database users to reader")
        link.execute("alter database users set search_path to \"$user\", public, 'odd one'")
        link.execute("alter database users set work_mem to '5MB'; alter role reader in database users set jit to off")
        link.execute(
            "alter database users set timezone to 'Asia/Seoul'; alter database users set bytea_output to escape"
        )
        link.execute("comment on database users is 'it''s ours'")
    with site.link("users") as link:
        link.execute('alter table plain owner to "Müller x"; grant select on plain to reader')
    path = site.backup("--database", "users")
    wanted = _facts(site)
    with site.link() as link:
        link.execute("drop database users with (force)")
        link.execute('drop role "Müller x"; drop role reader')
    done = site.invoke("db.restore", "--from", str(path), "--yes")
    assert done.returncode == 0, done.stderr
    assert "Müller x, reader" in done.stderr
    assert _facts(site) == wanted
    with site.link() as link:  # a role that is there keeps its password
        link.execute("alter role \"Müller x\" password 'second'")
        password = link.execute("select rolpassword from pg_authid where rolname like 'M%'").fetchone()
    assert site.invoke("db.restore", "--from", str(path), "--yes").returncode == 0
    with site.link() as link:
        assert link.execute("select rolpassword from pg_authid where rolname like 'M%'").fetchone() == password
        site.drop_kept()
        link.execute("drop database users with (force)")
        link.execute("create database users")
        link.execute('drop role "Müller x"; drop role reader')


def _facts(site: Site) -> list[Any]:
    with site.link() as link:
        rows = link.execute(
            "select pg_get_userbyid(datdba), datacl::text, shobj_description(d.oid, 'pg_database'), "
            "(select json_agg(json_build_array(setrole::regrole::text, setconfig) order by setrole::regrole::text) "
            "from pg_db_role_setting where setdatabase = d.oid)::text from pg_database d where datname = 'users'"
        ).fetchall()
    with site.link("users") as link:
        owner = link.execute("select relowner::regrole::text, relacl::text from pg_class where relname = 'plain'")
        return rows + owner.fetchall()


@pytest.mark.fault(10)
def test_10_a_user_who_may_not_make_the_roles_gets_their_names_and_11(site: Site) -> None:
    with site.link() as link:
        link.execute("drop role if exists missing; create role missing")
    path = site.backup("--database", "users")
    with site.link() as link:
        link.execute("drop role missing; drop role if exists weak; create role weak login createdb password 'weak'")
    before = (site.state(), site.databases())
    env = {"POSTGRES_USER": "weak", "POSTGRES_PASSWORD": "weak"}
    done = site.invoke("db.restore", "--from", str(path), "--yes", **env)
    refused(done, 11, "PARTIAL", "missing")
    assert (site.state(), site.databases()) == before
    with site.link() as link:
        link.execute("drop role weak")


@pytest.mark.fault(11)
def test_11_data_of_a_newer_major_version_is_refused_with_both(site: Site, path: Path) -> None:
    manifest = path / store.MANIFEST
    body = json.loads(manifest.read_text())
    body["facts"]["server"] = {"number": 190002, "version": "19.2"}
    manifest.write_text(json.dumps({**body, "sha256": store.digest_of(body)}))
    done = site.invoke("db.restore", "--from", str(path), "--yes")
    refused(done, 8, "DATA_INCOMPATIBLE", "19.2", "18.")


@pytest.mark.fault(13)
def test_13_the_second_restore_ends_with_12(site: Site, path: Path) -> None:
    with site.link() as link:
        link.execute("set application_name = 'db.restore pid 1'")
        link.execute("select pg_advisory_lock(7233006)")
        done = site.invoke("db.restore", "--from", str(path), "--yes")
        refused(done, 12, "LOCKED", "db.restore pid 1", "since ")
    assert site.invoke("db.verify", "--from", str(path)).returncode == 0


@pytest.mark.fault(25)
def test_25_links_are_refused_and_never_followed(site: Site, path: Path) -> None:
    outside = site.target.parent / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x")
    link = site.target / "999999-20990101T000000Z"
    link.symlink_to(path)
    listed = json.loads(site.invoke("db.list", "--to", str(site.target), "--json").stdout)["data"]
    assert [Path(b["path"]).name for b in listed] == [path.name]
    refused(site.invoke("db.verify", "--from", str(link)), 10, "is a link")
    link.unlink()
    part = site.target / ".part-000009-20990101T000000Z"
    part.symlink_to(outside)
    site.backup("--database", "users")
    assert (outside / "precious").exists()
    file = next(f for f in store.load(path).files if f.path.endswith(".zst"))
    content = (path / file.path).read_bytes()
    (outside / "copy").write_bytes(content)
    (path / file.path).unlink()
    (path / file.path).symlink_to(outside / "copy")
    refused(site.invoke("db.restore", "--from", str(path), "--yes"), 10, "is a link")
    directory = (path / file.path).parent
    shutil.rmtree(directory)
    directory.symlink_to(outside)
    refused(site.invoke("db.verify", "--from", str(path)), 10, "is a link")


@pytest.mark.fault(28)
def test_28_retention_counts_verified_backups_only(site: Site) -> None:
    good = [site.backup("--database", "users", "--verify").name for _ in range(2)]
    bad = [site.backup("--database", "users").name for _ in range(3)]
    for name in bad:
        (site.target / name / store.MANIFEST).write_text("{}")
    done = site.invoke("db.prune", "--keep", "3", "--to", str(site.target), "--yes")
    assert done.returncode == 0
    assert "only 2 of 5 are verified" in done.stdout
    assert site.published() == [*good, *bad]
    refused(site.invoke("db.prune", "--keep", "1", "--to", str(site.target)), 3, good[0])
    assert site.invoke("db.prune", "--keep", "1", "--to", str(site.target), "--yes").returncode == 0
    assert site.published() == [good[1], *bad]


@pytest.mark.fault(30)
def test_30_a_dump_with_other_statements_in_it_is_refused_by_its_hash(site: Site, path: Path) -> None:
    trap = site.target.parent / "pwned"
    for file in store.load(path).files:
        if file.path.endswith("toc.dat"):
            whole = (path / file.path).read_bytes()
            (path / file.path).write_bytes(whole + f"\n\\! touch {trap}\n".encode())
    refused(site.invoke("db.restore", "--from", str(path), "--yes"), 10, "toc.dat")
    assert not trap.exists()
    assert os.listdir(site.target)


def test_paths_that_are_no_backup_are_said_and_touch_nothing(site: Site, path: Path, tmp_path: Path) -> None:
    before = site.state()
    restore = ("db.restore", "--yes", "--from")
    refused(site.invoke(*restore, str(tmp_path / "nowhere")), 9, "there is no backup")
    refused(site.invoke(*restore, str(path / "manifest.json")), 9, "a backup is a directory")
    refused(site.invoke(*restore, str(tmp_path)), 10, "not a complete backup", "manifest.json")
    refused(site.invoke(*restore, str(path.parent)), 10, f"choose one of them: {path}")
    refused(site.invoke("minio.restore", "--yes", "--from", str(path)), 10, "not of objects")
    refused(site.invoke("snapshot.restore", str(path), "--yes"), 10, "not a snapshot")
    refused(site.invoke("db.prune", "--keep", "0", "--to", str(site.target), "--yes"), 2, "--keep 0")
    assert site.state() == before
    assert site.published() == [path.name]
