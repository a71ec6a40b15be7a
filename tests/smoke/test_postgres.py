"""PostgreSQL: three databases that cannot see each other, SCRAM, checksums, durable writes."""

from __future__ import annotations

import os
from urllib.parse import quote, urlsplit, urlunsplit

import psycopg
import pytest

from infra import catalog
from tests.smoke.platform import Platform

DATABASES = [d.name for d in catalog.DATABASES]


def url(platform: Platform, database: str, password: str | None = None) -> str:
    """The contract's URL, for another database or with another password."""
    parts = urlsplit(platform.contract["DATABASE_URL"])
    login, _, address = parts.netloc.rpartition("@")
    if password is not None:
        login = f"{login.split(':')[0]}:{quote(password, safe='')}"
    return urlunsplit(parts._replace(netloc=f"{login}@{address}", path=f"/{database}"))


@pytest.mark.parametrize("database", DATABASES)
def test_database_takes_rows(platform: Platform, database: str) -> None:
    with psycopg.connect(url(platform, database)) as connection:
        connection.execute("create temporary table smoke (n int)")
        connection.execute("insert into smoke select generate_series(1, 10)")
        assert connection.execute("select sum(n), current_database() from smoke").fetchone() == (55, database)


def test_contract_urls_name_platform_and_users(platform: Platform) -> None:
    with psycopg.connect(platform.contract["USER_DATABASE_URL"]) as connection:
        assert connection.execute("select current_database()").fetchone() == ("users",)
    assert urlsplit(platform.contract["DATABASE_URL"]).path == "/platform"


@pytest.mark.parametrize("other", [d for d in DATABASES if d != "platform"])
def test_no_query_crosses_databases(platform: Platform, other: str) -> None:
    with psycopg.connect(platform.contract["DATABASE_URL"]) as connection, pytest.raises(psycopg.Error) as refused:
        connection.execute(f"select * from {other}.pg_catalog.pg_class")
    assert refused.value.sqlstate == "0A000"


@pytest.mark.parametrize("password", ["wrong", ""])
def test_wrong_password_is_refused(platform: Platform, password: str) -> None:
    with pytest.raises(psycopg.OperationalError, match=r"password"):
        psycopg.connect(url(platform, "platform", password))


@pytest.mark.parametrize(
    ("name", "value"),
    [("data_checksums", "on"), ("fsync", "on"), ("full_page_writes", "on"), ("synchronous_commit", "on")],
)
def test_writes_are_durable(platform: Platform, name: str, value: str) -> None:
    with psycopg.connect(platform.contract["DATABASE_URL"]) as connection:
        assert connection.execute("select current_setting(%s)", (name,)).fetchone() == (value,)


def test_login_is_scram(platform: Platform) -> None:
    with psycopg.connect(platform.contract["DATABASE_URL"]) as connection:
        stored = connection.execute(
            "select left(rolpassword, 14) from pg_authid where rolname = current_user"
        ).fetchone()
        rules = connection.execute(
            "select distinct auth_method from pg_hba_file_rules where type like 'host%'"
        ).fetchall()
    assert stored == ("SCRAM-SHA-256$",)
    assert rules == [("scram-sha-256",)]


def test_vectors_are_searched_by_their_distance(platform: Platform) -> None:
    """With pgvector, which every tier has; the extension goes with the transaction."""
    with psycopg.connect(platform.contract["DATABASE_URL"]) as connection:
        connection.execute("create extension if not exists vector")
        connection.execute("create temporary table embeddings (name text, at vector(3))")
        connection.execute("insert into embeddings values ('near', '[1,0,0]'), ('far', '[9,9,9]'), ('here', '[0,0,0]')")
        connection.execute("create index on embeddings using hnsw (at vector_l2_ops)")
        found = connection.execute("select name from embeddings order by at <-> '[0,0,0]'").fetchall()
        connection.rollback()
    assert [name for (name,) in found] == ["here", "near", "far"]


def test_the_server_takes_as_many_connections_as_the_setting_says(platform: Platform) -> None:
    wanted = os.environ.get("POSTGRES_MAX_CONNECTIONS") or catalog.SETTINGS["POSTGRES_MAX_CONNECTIONS"].default
    with psycopg.connect(platform.contract["DATABASE_URL"]) as connection:
        assert connection.execute("show max_connections").fetchone() == (wanted,)


def test_variables_of_libpq_lead_the_tasks_to_no_other_server(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"PGHOSTADDR": "127.0.0.2", "PGPORT": "1", "PGUSER": "x", "PGOPTIONS": "-c x=y"}.items():
        monkeypatch.setenv(name, value)
    assert platform.data("db.init")["made"] == []
    assert platform.data("status")["state"] == "ready"
