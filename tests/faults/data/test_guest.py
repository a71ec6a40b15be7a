"""Backups that were made elsewhere are verified by a login without rights: what their SQL tries comes to nothing."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.conftest import Victim
from tests.faults.data import grammar
from tests.faults.data.db_tools import Site, refused, rewritten

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the attacks run a POSIX shell")

DATABASE = "of elsewhere"
_ATTACK = """
create schema if not exists public;
create function public.run(what text) returns boolean language plpgsql volatile as $$
begin
  execute format('copy (select 1) to program %L', 'touch {marks}/' || what);
  return true;
end $$;
create function public.try(what text) returns boolean language plpgsql immutable as $$
begin
  if current_database() like '%\\_check\\_%' then perform public.run(what); end if;
  return true;
exception when others then return true;
end $$;
create function public.grow() returns boolean language plpgsql volatile security definer as $$
begin
  if current_database() like '%\\_check\\_%' then
    execute format('alter role %I superuser', session_user);
    perform public.run('grown');
  end if;
  return true;
exception when others then return true;
end $$;
create function public.joined(a name, b name) returns text language sql immutable as $$
  select case when public.try('operator') then textcat(a::text, b::text) end $$;
create operator public.|| (function = public.joined, leftarg = name, rightarg = name);
create function public.differs(a name, b name) returns boolean language sql immutable as $$
  select public.try('comparison') and a::text !~ b::text $$;
create operator public.!~ (function = public.differs, leftarg = name, rightarg = name);
create domain public.tested as int check (public.try('domain'));
create table public.plain (
  n public.tested primary key check (public.try('check')) check (public.grow()),
  made boolean generated always as (public.try('generated')) stored
);
insert into public.plain select generate_series(1, 50);
create index on public.plain ((public.try('index' || n)));
create table public.parts (n int, t text) partition by range (n);
create table public.parts_1 partition of public.parts for values from (0) to (10);
insert into public.parts values (1, 'x'), (2, null);
create materialized view public.view as select public.try('view') from public.plain limit 1;
create function public.fired() returns trigger language plpgsql as $$
  begin perform public.try('trigger'); return new; end $$;
create trigger fires before insert or update on public.plain for each row execute function public.fired();
"""


@pytest.fixture
def site(platform: Victim, tmp_path: Path) -> Iterator[Site]:
    made = Site(platform, tmp_path / "backups")
    with made.link() as link:
        link.execute(f'create database "{DATABASE}"'.encode())
    try:
        yield made
    finally:
        with made.link() as link:
            link.execute(f'drop database "{DATABASE}" with (force)'.encode())
            for name in ("elsewhere_owner", "elsewhere boss"):
                link.execute(f'drop role if exists "{name}"'.encode())


@pytest.fixture
def marks(tmp_path: Path) -> Path:
    """A directory to which the server's user may write, as an attack that succeeds would."""
    made = tmp_path / "marks"
    made.mkdir()
    for place in (made, *made.parents):
        if place.owner() == made.owner() and place != Path("/"):
            place.chmod(place.stat().st_mode | 0o111)
    made.chmod(0o777)
    return made


def _foreign(site: Site, *statements: str) -> Path:
    """A backup of a database that was filled so, whose signature is not ours."""
    with site.link(DATABASE) as link:
        for statement in statements:
            link.execute(statement.encode())
    path = site.backup("--database", DATABASE)
    rewritten(path, lambda body: body["facts"].update({"note": "of another machine"}))
    return path


def _roles(site: Site) -> list[str]:
    with site.link() as link:
        return [name for (name,) in link.execute("select rolname from pg_roles where rolname not like 'pg\\_%'")]


def test_what_the_sql_of_a_foreign_backup_tries_while_it_is_loaded_comes_to_nothing(site: Site, marks: Path) -> None:
    path = _foreign(site, _ATTACK.format(marks=marks))
    before = (site.databases(), _roles(site))
    done = site.invoke("db.verify", "--from", str(path), "--json")
    assert done.returncode == 0, done.stderr
    assert os.listdir(marks) == []
    assert "owners and rights were not compared" in done.stderr
    found = json.loads(done.stdout)["data"]
    assert found["guest"] is True
    assert found["databases"][DATABASE]["rows"] == 52
    assert (site.databases(), _roles(site)) == before
    assert (path / "verified.json").exists()
    trusted = site.invoke("db.verify", "--from", str(path), "--trust")
    assert {"check", "domain", "generated", "grown", "index1", "view"} <= set(os.listdir(marks)), trusted.stderr


def test_a_file_of_the_server_is_not_read(site: Site) -> None:
    reads = (
        "create function public.read() returns text language sql stable as $$ select pg_read_file('/etc/passwd') $$; "
        "create table public.t (n int check (public.read() is null or current_database() not like '%\\_check\\_%')); "
        "insert into public.t values (1)"
    )
    path = _foreign(site, reads)
    done = site.invoke("db.verify", "--from", str(path))
    refused(done, 3, "TRUST_NEEDED", "permission denied for function pg_read_file", "--trust")
    assert not (path / "verified.json").exists()


def test_what_only_a_superuser_can_create_is_named_and_the_rest_is_verified(site: Site) -> None:
    statements = (
        "create extension dblink",
        "create extension pg_stat_statements",
        "create function public.c_code() returns trigger language c as '$libdir/refint', 'check_primary_key'",
        "create foreign data wrapper odd",
        "create server far foreign data wrapper odd",
        "create foreign table public.there (n int) server far",
        "create view public.over as select * from public.there",
        "create function public.noted() returns event_trigger language plpgsql as 'begin end'",
        "create event trigger watches on ddl_command_end execute function public.noted()",
        "create publication all_of_it for all tables",
        "create role elsewhere_owner",
        "create table public.plain (n int primary key, t text)",
        "alter table public.plain owner to elsewhere_owner",
        "grant select on public.plain to public",
        "alter default privileges for role elsewhere_owner grant select on tables to public",
        "alter table public.plain enable row level security",
        "alter table public.plain force row level security",
        "create policy only_theirs on public.plain to elsewhere_owner using (n > 5)",
        "insert into public.plain select n, 'row ' || n from generate_series(1, 9) n",
        "create extension hstore",
        "create table public.pairs (h hstore)",
        "insert into public.pairs values ('a=>1')",
        "select lo_from_bytea(0, '\\x000a5c')",
    )
    path = _foreign(site, *statements)
    done = site.invoke("db.verify", "--from", str(path), "--json")
    assert done.returncode == 11, done.stderr
    found = json.loads(done.stdout)["data"]
    assert found["databases"][DATABASE]["rows"] == 10
    left_out = " ".join(found["unchecked"][DATABASE])
    named = ("EXTENSION - dblink", "pg_stat_statements", "c_code()", "WRAPPER - odd", "SERVER - far", "there", "over")
    assert [name for name in (*named, "watches", "all_of_it") if name not in left_out] == []
    assert [name for name in ("hstore", "public plain", "only_theirs", "noted") if name in left_out] == []
    assert "verified except for what only a superuser can create" in done.stderr


def test_rows_that_a_guest_cannot_load_are_no_damage(site: Site) -> None:
    """A table of a type that only a superuser may create, e.g. of an extension that the server does not trust."""
    statements = (
        "create extension earthdistance cascade",
        "create table public.places (at earth)",
        "insert into public.places values (ll_to_earth(1, 2))",
    )
    path = _foreign(site, *statements)
    done = site.invoke("db.verify", "--from", str(path))
    refused(done, 3, "TRUST_NEEDED", "TABLE DATA public places", "earthdistance", "--trust")
    assert "BACKUP_DAMAGED" not in done.stderr
    assert site.invoke("db.verify", "--from", str(path), "--trust").returncode == 0


def test_a_foreign_backup_that_is_not_what_its_manifest_says_is_found(site: Site) -> None:
    path = _foreign(site, "create table public.t (n int); insert into public.t values (1), (2)")

    def lie(body: dict) -> None:  # type: ignore[type-arg]
        tables = body["facts"]["databases"][DATABASE]["tables"]
        next(iter(tables.values()))["rows"] = 3

    assert site.invoke("db.verify", "--from", str(path)).returncode == 0

    rewritten(path, lie)
    refused(site.invoke("db.verify", "--from", str(path)), 10, "RESTORE_DIFFERS", "different content")


def test_partitions_whose_rows_move_are_the_same_for_a_guest(site: Site) -> None:
    at = grammar.Here("public", "hashed", ("admin", "admin"), ("text",), 40)
    path = _foreign(site, *grammar.hashes(at))
    done = site.invoke("db.verify", "--from", str(path))
    assert done.returncode == 0, done.stderr


def test_a_guest_that_a_killed_run_has_left_is_swept_by_the_next(site: Site) -> None:
    path = _foreign(site, "create table public.t (n int)")
    site.killed("infra.data.postgres.load.load after", "db.verify", "--from", str(path))
    assert [name for name in _roles(site) if name.startswith("platform_guest_")]
    assert site.invoke("db.verify", "--from", str(path)).returncode == 0
    assert [name for name in _roles(site) if name.startswith("platform_guest_")] == []


def test_an_operator_of_a_databases_owner_does_not_run_when_it_is_backed_up(site: Site, marks: Path) -> None:
    """Not only in scratch databases: a database of another role is read with the rights of a superuser."""
    attack = _ATTACK.format(marks=marks).replace("current_database() like '%\\_check\\_%'", "true")
    operators = attack[: attack.index("create domain")]
    with site.link(DATABASE) as link:
        link.execute(operators.encode())
        link.execute("set search_path = public")
        link.execute("select 'a'::name || 'b'::name, 'a'::name !~ 'b'::name")
    assert sorted(os.listdir(marks)) == ["comparison", "operator"], "the attacks of this test are none"
    for mark in marks.iterdir():
        mark.unlink()
    path = site.backup("--database", DATABASE, "--verify")
    assert site.invoke("db.restore", "--from", str(path), "--yes").returncode == 0
    site.drop_kept()
    assert os.listdir(marks) == []
