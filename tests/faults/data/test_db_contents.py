"""What real databases hold besides rows: each comes back, or is refused by name while the others go on."""

from __future__ import annotations

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
from tests.faults.data.db_tools import Site

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
    order = load.Order(there, backup, {"hashed": "hashed"}, load.Room(space), Children())
    with pytest.raises(PlatformError, match="not the same"):
        compare.compare(order, "hashed")
