"""What real databases hold besides rows: each comes back, or is refused by name while the others go on."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra import settings
from infra.data import store
from infra.data.postgres import clients, compare, load, scratch
from infra.data.postgres.children import Children
from infra.data.postgres.clients import Server
from infra.errors import PlatformError
from tests.faults.conftest import Victim
from tests.faults.data.db_tools import Site, refused, rewritten

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX modes and owners")


def server(site: Site) -> Server:
    """The server with the programs that fit."""
    return clients.find_server(site.ends, settings.load(environ=site.victim.env))


@pytest.fixture
def site(platform: Victim, tmp_path: Path) -> Iterator[Site]:
    """The databases of the platform with a few rows; what a test makes beside them goes at its end."""
    made = Site(platform, tmp_path / "backups")
    made.fill(20)
    known = set(made.databases())
    yield made
    with made.link() as link:
        for name in set(made.databases()) - known:
            scratch.drop(server(made), link, name)


def make(site: Site, name: str, *statements: str) -> None:
    """A database of the user's own."""
    with site.link() as link:
        link.execute(f"create database {name}".encode())
    with site.link(name) as link:
        for statement in statements:
            link.execute(statement.encode())


SUBSCRIBED = (
    "create table t as select generate_series(1, 5) n",
    "create subscription s connection 'host=127.0.0.1 port=1' publication nope with (connect = false)",
    "alter subscription s enable",
)


def test_a_database_with_a_subscription_is_verified_and_comes_back_disabled(site: Site) -> None:
    make(site, "subscribed", *SUBSCRIBED)
    path = site.backup("--database", "subscribed", "--verify")
    site.backup("--database", "users", "--verify")
    assert not [name for name in site.databases() if "_check_" in name]
    done = site.invoke("db.restore", "--from", str(path), "--yes")
    assert done.returncode == 0, done.stderr
    assert "the subscription s of subscribed is disabled" in done.stderr
    with site.link() as link:
        query = "select datname, subenabled from pg_subscription s join pg_database d on d.oid = subdbid order by 1"
        (new, enabled), (old, old_enabled) = link.execute(query).fetchall()
        assert link.execute("select count(*) from pg_replication_slots").fetchone() == (0,)
    assert (new, enabled, old.startswith("subscribed_old_"), old_enabled) == ("subscribed", False, True, True)


def test_a_left_over_scratch_database_that_cannot_be_dropped_is_named_and_in_nobodys_way(site: Site) -> None:
    name = scratch.named("gone", "check", scratch.stamp())
    make(site, name)
    with site.link() as link:
        link.execute(f"comment on database {name} is '{scratch.MARK}'".encode())
        link.execute(f"alter database {name} is_template true".encode())  # which keeps it from being dropped
    said = site.invoke("db.backup", "--to", str(site.target), "--database", "users", "--verify")
    assert said.returncode == 0, said.stderr
    assert name in said.stderr
    assert name in site.invoke("doctor").stdout
    with site.link() as link:
        link.execute(f"alter database {name} is_template false".encode())
    site.backup("--database", "users", "--verify")
    assert name not in site.databases()


NOTED = """
create table logins (who text);
create function note() returns event_trigger language plpgsql as $$
begin insert into public.logins values (session_user); {then} end $$;
create event trigger noting on login execute function note();
alter event trigger noting enable always;
"""


def test_a_trigger_on_login_does_not_see_our_logins(site: Site) -> None:
    make(site, "noted", NOTED.format(then=""))
    path = site.backup("--database", "noted", "--verify")
    done = site.invoke("db.restore", "--from", str(path), "--yes")
    assert done.returncode == 0, done.stderr
    with site.link("noted") as link:
        assert link.execute("select count(*) from logins").fetchone() == (1,)  # ours of this test


def test_a_trigger_that_refuses_every_login_keeps_no_backup_from_being_made(site: Site) -> None:
    make(site, "closed", NOTED.format(then="raise exception 'closed';"))
    site.backup("--database", "closed", "--verify")


def test_a_role_that_may_not_switch_triggers_off_backs_up_what_is_its_own(site: Site) -> None:
    with site.link() as link:
        link.execute("drop role if exists plain")
        link.execute("create role plain login createdb password 'plain'")
        link.execute("create database owned owner plain")
    done = site.invoke(
        "db.backup", "--to", str(site.target), "--database", "owned", POSTGRES_USER="plain", POSTGRES_PASSWORD="plain"
    )
    assert done.returncode == 0, done.stderr


HASHED = """
create type label as enum ('a', 'b', 'c', 'd', 'e', 'f', 'g', 'h');
create table h (k label, n int, v text, g int generated always as (n * 2) stored) partition by hash (k);
create table h0 partition of h for values with (modulus 4, remainder 0);
create table h1 (v text, n int, g int generated always as (n * 2) stored, k label);
alter table h attach partition h1 for values with (modulus 4, remainder 1);
create table h2 partition of h for values with (modulus 4, remainder 2);
create table h3 partition of h for values with (modulus 4, remainder 3);
insert into h select ('{{a,b,c,d,e,f,g,h}}'::label[])[1 + i % 8], i,
  'row ' || i || chr(9) from generate_series(1, {rows}) i
"""


def test_rows_that_a_restore_puts_into_other_partitions_are_the_same_rows(site: Site) -> None:
    make(site, "hashed", HASHED.format(rows=80))
    path = site.backup("--database", "hashed", "--verify")
    done = site.invoke("db.restore", "--from", str(path), "--yes")
    assert done.returncode == 0, done.stderr
    with site.link("hashed") as link:
        assert link.execute("select count(*), count(distinct n), sum(g) from h").fetchone() == (80, 80, 6480)


@pytest.mark.parametrize("change", ["update h set v = 'row 1' where n = 2", "update h set k = 'a' where n = 2"])
def test_a_row_of_a_partitioned_table_that_differs_is_found(site: Site, change: str) -> None:
    make(site, "hashed", HASHED.format(rows=8))
    there, space = server(site), site.target.parent / "space"
    backup = store.load(site.backup("--database", "hashed"))
    space.mkdir()
    with site.link("hashed") as link:
        link.execute(change.encode())
    order = load.LoadOrder(there, backup, {"hashed": "hashed"}, load.Room(space), Children())
    with pytest.raises(PlatformError, match="not the same"):
        compare.compare(order, "hashed")


def test_templates_and_what_every_server_has_are_in_the_backup_once_something_is_in_them(site: Site) -> None:
    make(site, "tmpl", "create table t as select 1 n")
    with site.link() as link:
        link.execute("alter database tmpl is_template true")
        link.execute("create table kept as select 1 n")
        link.execute("alter system set work_mem = '9MB'")
        link.execute("alter role all set jit = off")
    with site.link("template1") as link:
        link.execute("create extension citext")
    try:
        path = site.backup("--verify")
        with site.link() as link:
            link.execute("update kept set n = 2")
            link.execute("alter system reset work_mem")
            link.execute("alter role all reset jit")
        with site.link("template1") as link:
            link.execute("drop extension citext")
        done = site.invoke("db.restore", "--from", str(path), "--yes")
        assert done.returncode == 0, done.stderr
        assert "alter system set work_mem to '9MB'" in done.stdout + done.stderr
        assert "alter role all set jit to 'off'" in done.stdout + done.stderr
        with site.link() as link:
            assert link.execute("select n from kept").fetchone() == (1,)
            query = "select datname from pg_database where datistemplate order by 1"
            assert [name for (name,) in link.execute(query)] == ["template0", "template1", "tmpl"]
        with site.link("template1") as link:
            assert link.execute("select count(*) from pg_extension where extname = 'citext'").fetchone() == (1,)
            link.execute("drop extension citext")
    finally:
        with site.link() as link:
            link.execute("alter system reset all")
            link.execute("drop table if exists kept")
            link.execute("alter database tmpl is_template false")


def test_a_database_that_lets_nobody_in_is_named_and_the_others_are_backed_up(site: Site) -> None:
    make(site, "archive")
    make(site, "broken")
    with site.link() as link:
        link.execute("alter database archive allow_connections false")
        link.execute("alter database broken set session_preload_libraries = 'nosuch'")
    done = site.invoke("db.backup", "--to", str(site.target), "--verify", "--json")
    assert done.returncode == 11, done.stderr
    data = json.loads(done.stdout)["data"]
    assert set(data["leftOut"]) == {"archive", "broken"}
    assert {"labeler", "platform", "users"} <= set(data["verified"]["databases"])
    assert "alter database ... allow_connections true" in done.stderr
    assert "nosuch" in done.stderr
    words = ("--skip-database", "archive,broken")
    assert site.invoke("db.backup", "--to", str(site.target), *words).returncode == 0
    newest = str(site.target / site.published()[-1])
    missing = site.invoke("db.restore", "--from", newest, "--database", "archive", "--yes")
    refused(missing, 9, "left out as asked for")


CHECKED = """
create table allowed (n int); create table a_checked (n int);
create function ok(i int) returns bool language plpgsql stable as
  $$ begin return exists (select from allowed where n = i); end $$;
alter table a_checked add check (ok(n));
insert into allowed values (1); insert into a_checked values (1)
"""


def test_a_function_that_finds_nothing_is_named_with_what_helps_and_the_others_are_done(site: Site) -> None:
    make(site, "checked", CHECKED)
    done = site.invoke("db.backup", "--to", str(site.target), "--verify", "--json")
    assert done.returncode == 11, done.stderr
    verified = json.loads(done.stdout)["data"]["verified"]
    assert list(verified["failed"]) == ["checked"]
    assert {"labeler", "platform", "users"} <= set(verified["databases"])
    helps = "alter function public.ok(integer) set search_path = public"
    assert helps in verified["failed"]["checked"]
    before = site.state()
    site.change()
    done = site.invoke("db.restore", "--from", str(site.target / site.published()[-1]), "--yes")
    assert done.returncode == 11, done.stderr
    assert "checked was not restored and is unchanged" in done.stderr
    assert site.state() == before
    with site.link("checked") as link:
        link.execute(helps.encode())
    site.backup("--database", "checked", "--verify")  # the table that is read comes after the one that is checked


GENERATED = """
create function plain(text) returns text language sql immutable as $$ select lower($1) $$;
create function im_plain(text) returns text language sql immutable as $$ select plain($1) $$;
create table named (name text, low text generated always as (im_plain(name)) stored);
insert into named values ('Eve')
"""


def test_a_generated_column_whose_function_finds_nothing_is_named_with_what_helps(site: Site) -> None:
    make(site, "made", GENERATED)
    done = site.invoke("db.backup", "--to", str(site.target), "--verify", "--json")
    assert done.returncode == 11, done.stderr
    verified = json.loads(done.stdout)["data"]["verified"]
    assert {"labeler", "platform", "users"} <= set(verified["databases"])
    helps = "alter function im_plain(text) set search_path = public"
    assert helps in verified["failed"]["made"].replace("public.im_plain", "im_plain")
    with site.link("made") as link:
        link.execute(helps.encode())
    site.backup("--database", "made", "--verify")


def test_what_differs_can_be_taken_over_and_the_result_says_so(site: Site) -> None:
    make(site, "checked", CHECKED)
    path = site.backup("--database", "checked")
    refused(site.invoke("db.restore", "--from", str(path), "--yes"), 10, "BACKUP_FAILED", "ok(integer)", "--despite")
    done = site.invoke("db.restore", "--from", str(path), "--despite-differences", "--yes", "--json")
    assert done.returncode == 11, done.stderr
    data = json.loads(done.stdout)["data"]
    assert any("a_checked" in text for text in data["differences"]["checked"])
    assert data["databases"]["checked"]["old"] in site.databases()
    with site.link("checked") as link:
        assert link.execute("select count(*) from allowed").fetchone() == (1,)
        comment = "select shobj_description(oid, 'pg_database') from pg_database where datname = 'checked'"
        assert "despite differences" in str(link.execute(comment).fetchone())


def test_who_holds_a_table_is_named_and_the_others_are_backed_up(site: Site) -> None:
    with site.locked_table("users"):
        done = site.invoke("db.backup", "--to", str(site.target), "--json")
    assert done.returncode == 11, done.stderr
    why = json.loads(done.stdout)["data"]["leftOut"]["users"]
    assert "plain locked by pid" in why
    assert "idle in transaction" in why
    assert "pg_terminate_backend" in why


def test_what_the_server_lacks_is_told_before_and_the_others_are_restored(site: Site) -> None:
    make(site, "asking")
    path = site.backup()
    needs = {"extensions": {"nosuch": "1.0"}, "collations": [[None, "i", "de"]]}
    rewritten(path, lambda body: body["facts"]["databases"]["asking"].update(needs))
    done = site.invoke("db.restore", "--from", str(path), "--dry-run")
    assert "asking: LEFT OUT: this server lacks the extension nosuch, the locale de of icu" in done.stdout
    before = site.state()
    done = site.invoke("db.restore", "--from", str(path), "--yes", "--trust")
    assert done.returncode == 11, done.stderr
    assert site.state() == before
    alone = site.invoke("db.restore", "--from", str(path), "--database", "asking", "--yes", "--trust")
    refused(alone, 8, "DATA_INCOMPATIBLE", "nosuch", "nothing was touched")


def test_the_last_backup_of_what_is_left_out_stays(site: Site) -> None:
    make(site, "archive")
    whole = site.backup("--verify")
    with site.link() as link:
        link.execute("alter database archive allow_connections false")
    for _ in range(2):
        words = ("db.backup", "--to", str(site.target), "--verify", "--keep", "1")
        assert site.invoke(*words).returncode == 11
    assert len(site.published()) == 2
    assert whole.name in site.published()
