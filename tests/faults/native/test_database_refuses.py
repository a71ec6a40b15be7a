"""A database server that answers, and says no: who asked for what, why not, and the step that helps."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from infra import postgres_checks
from tests.faults.conftest import Victim
from tests.faults.data.db_tools import Site, refused


@pytest.fixture
def site(platform: Victim, tmp_path: Path) -> Site:
    return Site(platform, tmp_path / "backups")


@contextlib.contextmanager
def held(site: Site, leave: int) -> Iterator[None]:
    """Somebody holds all connections of the server but a few."""
    with contextlib.ExitStack() as stack:
        with site.link() as link:
            most = int(link.execute("show max_connections").fetchall()[0][0])
            taken = len(link.execute("select from pg_stat_activity where backend_type = 'client backend'").fetchall())
        url = f"{site.ends.database_url('users')}?application_name=labeling-tool"
        for _ in range(most - taken + 1 - leave):
            stack.enter_context(psycopg.connect(url))
        yield


@contextlib.contextmanager
def setting(site: Site, name: str, value: str) -> Iterator[None]:
    """A setting of the whole server, for a while."""
    try:
        with site.link() as link:
            link.execute(f"alter system set {name} = {value}".encode())
            link.execute("select pg_reload_conf()")
        yield
    finally:
        with psycopg.connect(site.ends.database_url("postgres"), autocommit=True) as link:
            link.execute("set default_transaction_read_only = off")
            link.execute(f"alter system reset {name}".encode())
            link.execute("select pg_reload_conf()")


def test_variables_of_libpq_lead_nobody_to_another_server(site: Site) -> None:
    foreign = {"PGHOSTADDR": "127.0.0.2", "PGDATABASE": "elsewhere", "PGSERVICE": "nobody", "PGTZ": "No/Where"}
    for words in (["db.databases"], ["up"], ["db.backup", "--to"], ["db.verify", "--to"]):
        done = site.invoke(*words, *([str(site.target)] if words[-1] == "--to" else []), **foreign)
        assert done.returncode == 0, done.stderr


def test_a_server_that_is_read_only_is_named_with_the_setting_that_makes_it_so(site: Site) -> None:
    site.backup()
    with setting(site, "default_transaction_read_only", "on"):
        done = site.invoke("db.verify", "--to", str(site.target))
    refused(done, 1, "SQL_FAILED", "25006", "alter system reset default_transaction_read_only")
    assert f"admin@{site.ends.address('postgres')}" in done.stderr


def test_who_holds_the_connections_is_told(site: Site) -> None:
    with held(site, leave=3):
        done = site.invoke("db.backup", "--to", str(site.target))
        refused(done, 10, "labeling-tool", "database users", "POSTGRES_MAX_CONNECTIONS")
        assert site.victim.invoke("up").returncode == 0, "what is there is asked one by one"
    with held(site, leave=0):
        refused(site.invoke("up"), 5, "DATABASE_BUSY", "POSTGRES_MAX_CONNECTIONS")
        refused(site.invoke("db.databases"), 5, "DATABASE_BUSY", "not even one is left")


def test_the_number_of_connections_is_a_setting(fresh_platform: Victim, tmp_path: Path) -> None:
    site = Site(fresh_platform, tmp_path)
    done = site.invoke("up", POSTGRES_MAX_CONNECTIONS="41")
    assert done.returncode == 0, done.stderr
    with site.link() as link:
        assert link.execute("show max_connections").fetchall() == [("41",)]


def test_a_port_where_nobody_listens_is_unreachable(site: Site) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
    refused(site.invoke("db.databases", POSTGRES_PORT=port), 5, "UNREACHABLE", f"127.0.0.1:{port}", "invoke status")


def test_status_and_doctor_tell_what_makes_other_tasks_fail(site: Site) -> None:
    site.backup()
    with site.link("platform") as link:
        link.execute("drop database postgres with (force)")
    with site.link("platform") as link:
        link.execute("create database left_new_20260101000000000")
    try:
        state = site.invoke("status", "--json")
        warnings = {w["id"]: w for w in json.loads(state.stdout)["data"]["warnings"]}
        assert state.returncode == 0, state.stderr
        assert "postgres" in warnings["databases"]["text"]
        assert "invoke db.init" in warnings["databases"]["remedy"]
        assert "left_new_20260101000000000" in warnings["scratch-databases"]["text"]
        found = site.invoke("doctor", PGHOST="elsewhere")
        assert found.returncode == 4
        assert "databases that tasks need are missing: postgres" in found.stdout
        assert "PGHOST" in found.stdout
    finally:
        assert site.invoke("up").returncode == 0, "what tools connect to is made again"
    assert site.invoke("db.verify", "--to", str(site.target)).returncode == 0, "drops what is left over"
    assert json.loads(site.invoke("status", "--json").stdout)["data"]["warnings"] == []


def test_slots_that_hold_wal_and_old_transactions_are_read_from_the_server(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert postgres_checks.checks(site.ends) == []
    monkeypatch.setattr(postgres_checks, "HELD", 1)  # else it takes a gigabyte of WAL, and half a billion transactions
    monkeypatch.setattr(postgres_checks, "OLD", 1)
    with site.link() as link:
        link.execute("select pg_create_physical_replication_slot('reader', true)")
        link.execute("select pg_logical_emit_message(false, 'test', repeat('x', 100000))")
        try:
            found = {check.id: check for check in postgres_checks.checks(site.ends)}
            assert "reader holds" in found["replication-slots"].text
            assert "pg_drop_replication_slot('reader')" in found["replication-slots"].remedy
            assert "has not been frozen" in found["transaction-age"].text
        finally:
            link.execute("select pg_drop_replication_slot('reader')")
