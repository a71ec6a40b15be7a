"""A site's databases taken out: with two real servers of this machine, of which one stands for the site's primary."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from infra import settings, stack
from infra.console import Console
from infra.context import Context
from infra.data.postgres import clients
from infra.endpoints import Endpoints
from infra.errors import PlatformError
from infra.prod import moved, taken
from infra.prod.cluster import Cluster
from infra.prod.postgres import SiteServer
from infra.provision import migrate
from infra.tiers.native import passing_server, postgres


@dataclass(frozen=True)
class Pod(Cluster):
    """A cluster with one pod, whose programs are those of this machine."""

    programs: Path = Path()
    ends: Endpoints | None = None

    def argv(self, *words: str) -> list[str]:
        program, *rest = words[words.index("--") + 1 :]
        assert self.ends is not None
        login = f"host=127.0.0.1 port={self.ends.port('postgres')} user={self.ends.postgres.user}"
        rest = [f"--dbname={login} dbname={w.removeprefix('--dbname=')}" if "--dbname=" in w else w for w in rest]
        if "-d" in rest:
            place = rest.index("-d") + 1
            rest[place] = f"{login} dbname={rest[place]}"
        environ = f"PGPASSWORD={self.ends.postgres.password}"
        return ["/usr/bin/env", environ, str(self.programs / program), *rest]


@dataclass(frozen=True)
class Primary(SiteServer):
    """The server in that pod."""

    def primary(self) -> str:
        return "postgresql-1"


@pytest.fixture
def context(tmp_path: Path) -> Context:
    tmp_path.chmod(0o755)
    loaded = settings.load(tmp_path, dict(os.environ), {"PLATFORM_STATE_DIR": str(tmp_path)})
    return Context(loaded, stack.of(loaded), Console())


@pytest.fixture
def site(context: Context, tmp_path: Path) -> Iterator[Primary]:
    """A site with rows."""
    with passing_server.running(context, _space(tmp_path, "site")) as ends:
        programs = clients.find_server(ends, context.settings).clients.directory
        for name in ("platform", "mlflow"):
            with psycopg.connect(ends.database_url("postgres"), autocommit=True) as link:
                link.execute(f"create database {name}".encode())
            with psycopg.connect(ends.database_url(name)) as link:
                link.execute("create table things (n int primary key, at timestamptz, raw bytea, word text)")
                some = "select n, now(), decode('00ff', 'hex'), 'ü' || n from generate_series(1, 500) n"
                link.execute(f"insert into things {some}".encode())
                link.execute("insert into things (n, word) values (501, 'platform-table public other')")
                link.execute('create table "empty one" ()')
        yield Primary(Pod("kubectl", "prod", tmp_path, programs=programs, ends=ends), "postgresql")


def _space(parent: Path, name: str) -> Path:
    made = parent / name
    made.mkdir(mode=0o755)
    return made


def _url(site: Primary, database: str) -> str:
    assert isinstance(site.cluster, Pod)
    assert site.cluster.ends is not None
    return site.cluster.ends.database_url(database)


def test_a_site_is_taken_as_it_was_at_one_moment(context: Context, site: Primary, tmp_path: Path) -> None:
    with psycopg.connect(_url(site, "platform")) as link:
        link.execute("alter database platform set timezone = 'Asia/Seoul'")
        link.execute("alter database platform set bytea_output = 'escape'")
    noted: list[object] = []

    def note(taken_at: object) -> None:
        noted.append(taken_at)
        with psycopg.connect(_url(site, "platform")) as link:  # the site goes on while it is taken
            link.execute("insert into things (n) values (1001)")

    with passing_server.running(context, _space(tmp_path, "copy")) as ends:
        target = clients.find_server(ends, context.settings)
        made, rows = taken.backup(site, target, _space(tmp_path, "backup"), context.console, note)
    assert rows == 1002
    assert set(made.facts["databases"]) == {"platform", "mlflow"}
    assert len(noted) == 1
    with psycopg.connect(_url(site, "platform")) as link:
        left = link.execute("select count(*) from pg_stat_activity where application_name like 'platform snapshot%'")
        assert left.fetchone() == (0,)


def test_a_copy_that_differs_is_refused(
    context: Context, site: Primary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = taken.copy

    def worse(server: SiteServer, moment: taken.HeldMoment, target: clients.Server, say: object) -> None:
        copy(server, moment, target, lambda text: None)
        with psycopg.connect(target.endpoints.database_url("mlflow")) as link:
            link.execute("update things set word = 'other' where n = 7")

    monkeypatch.setattr(taken, "copy", worse)
    with passing_server.running(context, _space(tmp_path, "copy")) as ends:
        target = clients.find_server(ends, context.settings)
        with pytest.raises(PlatformError) as differs:
            taken.backup(site, target, _space(tmp_path, "backup"), context.console, lambda taken_at: None)
    assert differs.value.code == "RESTORE_DIFFERS"
    assert differs.value.details == {"tables": ["public things"]}


def test_a_site_without_our_databases_is_refused(context: Context, tmp_path: Path) -> None:
    with passing_server.running(context, _space(tmp_path, "site")) as ends:
        server = clients.find_server(ends, context.settings)
        there = Primary(Pod("kubectl", "prod", tmp_path, programs=server.clients.directory, ends=ends), "postgresql")
        with pytest.raises(PlatformError, match=", ".join(moved.DATABASES)):
            taken.backup(there, server, tmp_path, context.console, lambda taken_at: None)


def test_nothing_of_a_passing_server_is_left(context: Context, tmp_path: Path) -> None:
    with passing_server.running(context, _space(tmp_path, "one")) as ends:
        url = ends.database_url("postgres")
        psycopg.connect(url).close()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(url)
    assert not list(tmp_path.rglob("PG_VERSION"))


def test_what_a_killed_run_has_left_goes_with_the_next(context: Context, tmp_path: Path) -> None:
    if not postgres.is_root():
        pytest.skip("only root's servers keep their data outside of the space of a run")
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    left = postgres.shared_home() / f"{passing_server.NAME}{ended.pid}-abc"
    (left / "postgres").mkdir(parents=True)
    with passing_server.running(context, _space(tmp_path, "next")):
        assert not left.exists()


def test_the_same_schema_is_the_same_whenever_it_was_made(site: Primary) -> None:
    assert isinstance(site.cluster, Pod)
    assert site.cluster.ends is not None
    ends = site.cluster.ends
    with psycopg.connect(ends.database_url("postgres"), autocommit=True) as link:
        link.execute("create database later")
    for name in ("platform", "later"):
        with psycopg.connect(ends.database_url(name), autocommit=True) as link:
            migrate.migrate(link)
    moved._same_schema(site, "platform", "later")
    with psycopg.connect(ends.database_url("later")) as link:
        link.execute("update schema_migrations set sha256 = 'other' where number = 1")
    with pytest.raises(PlatformError) as refused:
        moved._same_schema(site, "platform", "later")
    assert refused.value.code == "DATA_INCOMPATIBLE"
