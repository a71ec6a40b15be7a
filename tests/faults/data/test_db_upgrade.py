"""The way from PostgreSQL 15 to the bundled version and back, with Debian's programs; and versions that do not fit."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from infra import settings
from infra.data.postgres import clients as postgres_clients
from infra.errors import PlatformError
from tests.faults.conftest import TIER, Victim
from tests.faults.data.db_tools import NAMES, Site, refused
from tests.smoke.stage import stage

OLD = Path("/usr/lib/postgresql/15/bin")

pytestmark = pytest.mark.skipif(not (OLD / "postgres").is_file(), reason="needs PostgreSQL 15 of Debian")


OF_THE_SERVER = """
create role app login password 'secret' connection limit 7; create role ro; grant ro to app with admin option;
alter role app set statement_timeout = '5s'; comment on role app is 'the application';
create table kept as select 1 n
"""
_OF_A_ROLE = """
select r.rolconnlimit, shobj_description(r.oid, 'pg_authid'), m.admin_option,
       (select setconfig from pg_db_role_setting where setrole = r.oid), (select n from kept),
       (select datistemplate from pg_database where datname = 'tmpl')
from pg_roles r join pg_auth_members m on m.member = r.oid where r.rolname = 'app'
"""


@pytest.fixture
def old(tmp_path: Path) -> Iterator[Site]:
    with stage(TIER, PLATFORM_POSTGRES_BIN=str(OLD)) as made:
        victim = Victim(made)
        victim.up()
        yield Site(victim, tmp_path / "backups")


def _with_new_programs(site: Site) -> Site:
    made = site.victim.stage
    env = {k: v for k, v in made.env.items() if k != "PLATFORM_POSTGRES_BIN"}
    return Site(Victim(replace(made, env=env)), site.target)


def test_up_refuses_upgrade_moves_back_returns(old: Site) -> None:
    old.fill()
    before = old.state()
    with old.link() as link:
        link.execute("create role owner_of_users; alter database users owner to owner_of_users")
        link.execute(OF_THE_SERVER)
        link.execute("create database tmpl is_template true")
        link.execute("alter system set work_mem = '9MB'")
    new = _with_new_programs(old)
    old.victim.invoke("down", check=True)
    refused(new.invoke("up"), 8, "DATA_INCOMPATIBLE", "15", "18")
    refused(new.invoke("db.upgrade"), 3, "PostgreSQL 15 to 18")
    killed = new.killed("infra.data.postgres.upgrade._swap before", "db.upgrade", "--yes")
    assert killed.returncode == -9
    done = new.invoke("db.upgrade", "--yes", "--json")
    assert done.returncode == 0, done.stderr
    data = json.loads(done.stdout)["data"]
    assert (data["from"], data["to"]) == ("15", "18")
    assert not list(Path(data["kept"]).parent.glob(".postgres-*"))
    new.victim.up()
    assert new.state() == before
    with new.link() as link:
        assert link.info.server_version // 10000 == 18
        row = link.execute("select pg_get_userbyid(datdba) from pg_database where datname = 'users'").fetchone()
        assert row == ("owner_of_users",)
        found = link.execute(_OF_A_ROLE).fetchone()
        assert found == (7, "the application", True, ["statement_timeout=5s"], 1, True)
    assert "alter system set work_mem to '9MB'" in done.stderr
    again = new.invoke("db.upgrade", "--yes")
    assert again.returncode == 0
    assert "nothing to do" in again.stdout
    newer = new.backup()
    assert new.invoke("down").returncode == 0

    back = new.invoke("db.upgrade", "--back", "--yes", "--json")
    assert back.returncode == 0, back.stderr
    assert json.loads(back.stdout)["data"]["major"] == "15"
    old.victim.up()
    assert old.state() == before
    refused(old.invoke("db.restore", "--from", str(newer), "--yes"), 8, "DATA_INCOMPATIBLE", "18.", "15.")
    assert old.state() == before
    path = old.backup("--verify")  # the server is older than the clients: that is in order
    assert sorted(json.loads((path / "manifest.json").read_text())["facts"]["databases"]) == sorted(
        (*NAMES, "postgres", "tmpl")
    )


@pytest.mark.fault(11)
def test_11_clients_older_than_the_server_are_refused_with_both_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_clients, "directories", lambda settings: [OLD])
    with pytest.raises(PlatformError) as caught:
        postgres_clients.find_clients(settings.load(environ={}), 180006)
    assert caught.value.exit == 8
    assert "18.6" in caught.value.what
    assert "15." in caught.value.what
