"""Roles come back as they were, where they are needed, and none is left behind where nothing was restored."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from infra.data.postgres import roles
from tests.faults.conftest import Victim
from tests.faults.data.db_tools import Site, refused, rewritten

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX modes and owners")

MADE = ("app", "boss", "ro", "stranger", "y")
ROLES = """
create role app login password 'secret' connection limit 7 valid until '2030-01-02 03:04:05+00';
create role boss superuser;
create role ro; create role stranger; create role y;
grant ro to app with admin option;
grant ro to y with inherit false, set false granted by app;
grant app to y;
grant pg_read_all_data to app;
alter role app set statement_timeout = '5s';
alter role app set search_path = "a b", public;
alter role app in database owned set work_mem = '5MB';
comment on role app is 'it''s the application';
"""
OWNED = """
create table t (n int); alter table t owner to app; insert into t values (1);
grant select on t to ro; alter table t enable row level security; create policy p on t to y using (true);
alter default privileges for role app grant select on tables to y;
create function f() returns event_trigger language plpgsql as 'begin end';
create event trigger e on ddl_command_end execute function f(); alter event trigger e owner to boss;
"""


@pytest.fixture
def site(platform: Victim, tmp_path: Path) -> Iterator[Site]:
    """Roles of every kind, and a database that needs all but one of them."""
    made = Site(platform, tmp_path / "backups")
    _without(made)
    with made.link() as link:
        link.execute("create database owned")
        link.execute(ROLES.encode())
        link.execute("grant connect on database owned to y")
    with made.link("owned") as link:
        link.execute(OWNED.encode())
    yield made
    _without(made)


def _without(site: Site) -> None:
    """Without the database, and what restores have kept of it, the roles can be dropped."""
    with site.link() as link:
        for name in site.databases():
            if name.startswith("owned"):
                link.execute(f"drop database {name} with (force)".encode())
        link.execute(f"drop role if exists {', '.join(MADE)}".encode())


def present(site: Site) -> dict[str, dict[str, Any]]:
    with site.link() as link:
        return {r["name"]: r for r in roles.read(link, True) if r["name"] in MADE}


def test_roles_come_back_with_settings_comments_and_the_kind_of_each_membership(site: Site) -> None:
    before, path = present(site), site.backup()
    _without(site)
    done = site.invoke("db.restore", "--from", str(path), "--yes")
    assert done.returncode == 0, done.stderr
    assert present(site) == before
    with psycopg.connect(site.ends.database_url("owned").replace("admin:devpass", "app:secret")) as link:
        shown = link.execute("select current_setting('statement_timeout'), current_setting('work_mem')").fetchone()
    assert shown == ("5s", "5MB")
    site.drop_kept()


def test_one_database_brings_the_roles_that_it_needs(site: Site) -> None:
    path = site.backup("--database", "owned")
    _without(site)
    done = site.invoke("db.restore", "--from", str(path), "--database", "owned", "--yes")
    assert done.returncode == 0, done.stderr
    assert sorted(present(site)) == [name for name in MADE if name != "stranger"]


def test_a_restore_that_is_refused_leaves_no_role(site: Site) -> None:
    path = site.backup("--database", "owned")
    foreign = {"provider": "i", "locale": "de"}  # of a server with ICU, which the bundled one has not
    rewritten(path, lambda body: body["facts"]["databases"]["owned"].update(foreign))
    _without(site)
    refused(site.invoke("db.restore", "--from", str(path), "--yes", "--trust"), 8, "DATA_INCOMPATIBLE")
    assert not present(site)
    assert not [name for name in site.databases() if name.startswith("owned")]


def test_a_backup_is_verified_where_its_roles_are_missing_and_none_stays(site: Site) -> None:
    path = site.backup("--database", "owned")
    _without(site)
    done = site.invoke("db.verify", "--from", str(path))
    assert done.returncode == 0, done.stderr
    assert not present(site)


def test_a_role_that_is_there_and_differs_is_told(site: Site) -> None:
    path = site.backup("--database", "owned")
    with site.link() as link:
        link.execute("alter role app reset statement_timeout")
    done = site.invoke("db.restore", "--from", str(path), "--dry-run")
    assert "the role app stays as it is; the backup has other settings" in done.stdout


def test_a_snapshot_brings_roles_and_templates_back_to_a_server_that_has_none(site: Site) -> None:
    before = present(site)
    with site.link() as link:
        link.execute("create database tmpl is_template true")
        link.execute("create table kept as select 1 n")
        link.execute("alter system set work_mem = '9MB'")
    with site.link("tmpl") as link:
        link.execute("create table t as select 2 n")
    with site.link("template1") as link:
        link.execute("create extension citext")
    made = site.victim.invoke("snapshot.create", "roles", "--skip", "objects,redis,temporal")
    assert made.returncode == 0, made.stderr
    site.victim.invoke("reset", "--service", "postgres", "--yes", check=True)
    site.victim.up()
    assert not present(site)
    done = site.victim.invoke("snapshot.restore", "roles", "--yes")
    assert done.returncode == 0, done.stderr
    assert present(site) == before
    assert "alter system set work_mem to '9MB'" in done.stderr
    with psycopg.connect(site.ends.database_url("owned").replace("admin:devpass", "app:secret")) as link:
        assert link.execute("select current_setting('statement_timeout')").fetchone() == ("5s",)
    for database, query in (("postgres", "select n from kept"), ("tmpl", "select n - 1 from t")):
        with site.link(database) as link:
            assert link.execute(query.encode()).fetchone() == (1,)
    with site.link("template1") as link:
        assert link.execute("select count(*) from pg_extension where extname = 'citext'").fetchone() == (1,)
        assert link.execute("select datistemplate from pg_database where datname = 'tmpl'").fetchone() == (True,)
