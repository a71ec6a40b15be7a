"""What the fault tests of databases have in common: rows to lose, their fingerprint, a kill at a chosen step."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from infra import endpoints, settings
from infra.data import store
from infra.endpoints import Endpoints
from tests.faults.conftest import Victim
from tests.smoke.stage import Completed

LIMIT = 600.0
NAMES = ("labeler", "platform", "users")
_MAKE = """
drop schema if exists public cascade; create schema public;
create table plain (id bigint primary key, t text, at timestamptz default '2026-01-02 03:04:05+02', f double precision);
insert into plain (id, t, f)
  select n, 'row ' || n || chr(10) || '\\.' || chr(9), n / 3.0 from generate_series(1, {rows}) n;
create table "odd name; --" ("A" jsonb, b bytea, c numeric[], d interval, e int generated always as identity);
insert into "odd name; --" ("A", b, c, d) values ('{{"k": [1, null]}}', '\\x00ff0a', '{{1.50,NULL}}', '1 mon -2 days');
create table "leer" ();
create view seen as select id, t from plain;
create index on plain (t);
create table parts (n int, v text) partition by range (n);
create table parts_1 partition of parts for values from (0) to (10);
insert into parts values (1, null), (2, ''), (3, 'x');
select lo_unlink(oid) from pg_largeobject_metadata;
select lo_from_bytea(0, '\\x000a5c2e0a0a0a');
"""
_KILL = """
import importlib, os, signal, sys
module, name, when, *words = sys.argv[1:]
place = importlib.import_module(module)
real = getattr(place, name)
def stop(*given, **named):
    if when == "after":
        real(*given, **named)
    os.kill(os.getpid(), signal.SIGKILL)
setattr(place, name, stop)
sys.argv = ["invoke", *words]
from invoke.main import program
program.run()
"""


@dataclass(frozen=True)
class Site:
    """A running platform and a directory for backups."""

    victim: Victim
    target: Path

    @property
    def ends(self) -> Endpoints:
        """Where the servers are."""
        return endpoints.build(settings.load(environ=self.victim.env), ("postgres",))

    def link(self, database: str = "postgres") -> psycopg.Connection[Any]:
        """A connection in autocommit mode."""
        return psycopg.connect(self.ends.database_url(database), autocommit=True)

    def fill(self, rows: int = 200) -> None:
        """The same small databases every time."""
        for name in NAMES:
            with self.link(name) as link:
                link.execute(_MAKE.format(rows=rows).encode())

    def change(self) -> None:
        """Other content than `fill` makes."""
        for name in NAMES:
            with self.link(name) as link:
                link.execute("update plain set t = 'changed' where id = 7")

    def content(self, database: str) -> list[tuple[Any, ...]]:
        """Rows that tell one state from another."""
        with self.link(database) as link:
            return link.execute("select id, t, f, at::text from plain order by id").fetchall()

    def state(self) -> dict[str, list[tuple[Any, ...]]]:
        """The content of all databases."""
        return {name: self.content(name) for name in NAMES}

    def databases(self) -> list[str]:
        """Names of all databases."""
        with self.link() as link:
            return [row[0] for row in link.execute("select datname from pg_database order by 1")]

    def drop_kept(self) -> None:
        """Drop what restores have kept."""
        with self.link() as link:
            for name in self.databases():
                if "_old_" in name:
                    link.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))

    def invoke(self, *words: str, **env: str) -> Completed:
        """Run a task to its end."""
        return self._run([sys.executable, "-m", "invoke", *words], env)

    def backup(self, *words: str, to: Path | None = None) -> Path:
        """Make a backup; its directory."""
        done = self.invoke("db.backup", "--to", str(to or self.target), *words, "--json")
        assert done.returncode == 0, done.stderr
        return Path(json.loads(done.stdout)["data"]["path"])

    def killed(self, step: str, *words: str) -> Completed:
        """Run a task that is killed (SIGKILL) at a step: `module.function before|after`."""
        where, when = step.split()
        module, name = where.rsplit(".", 1)
        done = self._run([sys.executable, "-c", _KILL, module, name, when, *words], {})
        assert done.returncode == -9, done.stderr + done.stdout
        return done

    def _run(self, argv: list[str], env: dict[str, str]) -> Completed:
        return subprocess.run(
            argv,
            cwd=self.victim.stage.root,
            env=self.victim.env | env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=LIMIT,
            check=False,
        )

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Run a task beside the test, in a process group of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "invoke", *words],
            cwd=self.victim.stage.root,
            env=self.victim.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )

    def published(self) -> list[str]:
        """Names of the backups in the target."""
        if not self.target.is_dir():
            return []
        return sorted(e.name for e in self.target.iterdir() if e.is_dir() and not e.name.startswith("."))

    def parts(self) -> list[str]:
        """What unfinished backups have left."""
        return [e.name for e in self.target.iterdir() if e.name.startswith(".part-")] if self.target.is_dir() else []

    def clients(self) -> list[str]:
        """Connections of our backups and restores that are open on the server."""
        with self.link() as link:
            names = link.execute("select application_name from pg_stat_activity where application_name like any (%s)",
                                 (["platform-db-%", "db.%"],)).fetchall()  # fmt: skip
        return [row[0] for row in names]

    @contextmanager
    def locked_table(self, database: str = "users") -> Iterator[None]:
        """Someone holds a table exclusively: dumps stand still there."""
        link = psycopg.connect(self.ends.database_url(database))
        link.execute("lock table plain in access exclusive mode")
        try:
            yield
        finally:
            link.close()


@contextmanager
def offered(site: Site, **versions: str) -> Iterator[None]:
    """Extensions that this server has and no other one, each in one version, for the block."""
    place = Path(tempfile.mkdtemp(prefix="platform-extensions-"))
    place.chmod(0o755)  # the server may run as another user
    (place / "extension").mkdir()
    for name, version in versions.items():
        (place / "extension" / f"{name}.control").write_text(f"default_version = '{version}'\n")
        script = f"create function {name}() returns text language sql as $$ select '{version}' $$;\n"
        (place / "extension" / f"{name}--{version}.sql").write_text(script)
    try:
        _path_of_extensions(site, sql.SQL("set extension_control_path = {}").format(sql.Literal(f"$system:{place}")))
        yield
    finally:
        _path_of_extensions(site, sql.SQL("reset extension_control_path"))
        shutil.rmtree(place)


def _path_of_extensions(site: Site, change: sql.Composable) -> None:
    with site.link() as link:
        link.execute(sql.SQL("alter system {}").format(change))
        link.execute("select pg_reload_conf()")
        wait_for("the setting", lambda: _in_force(site))


def _in_force(site: Site) -> bool:
    """Whether new sessions have what `alter system` has written last."""
    query = """
    select setting = coalesce((select setting from pg_file_settings where name = s.name), boot_val)
    from pg_settings s where name = 'extension_control_path'
    """
    with site.link() as link:
        return link.execute(query).fetchone() == (True,)


def wait_for(what: str, condition: Any, limit: float = LIMIT) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < end, f"in vain: {what}"
        time.sleep(0.05)


def refused(done: Completed, code: int, *said: str) -> None:
    """A task ended with that code, a message with these words, a next step, and no traceback."""
    text = done.stderr + done.stdout
    assert done.returncode == code, f"{done.returncode} instead of {code}:\n{text}"
    missing = [s for s in said if s not in text]
    assert not missing, f"{missing} not in\n{text}"
    assert "Traceback" not in text, text
    assert "unexpected failure" not in text, text


def rewritten(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the manifest of a backup, whose checksum fits afterwards."""
    body = json.loads((path / store.MANIFEST).read_text())
    change(body)
    (path / store.MANIFEST).write_text(json.dumps({**body, "sha256": store.digest_of(body)}))


def takes_signals(pid: int) -> bool:
    """Whether a task is so far that it handles SIGTERM (before, the kernel ends it, and there is nothing to clear)."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except FileNotFoundError:
        return True
    caught = next((line.split()[1] for line in lines if line.startswith("SigCgt:")), "0")
    return sys.platform != "linux" or bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)


def within(seconds: float) -> float:
    """A limit that holds on an idle machine, longer on one where several programs wait for each core."""
    load, _, _ = os.getloadavg() if hasattr(os, "getloadavg") else (0.0, 0.0, 0.0)
    return seconds * max(1.0, load / (os.cpu_count() or 1))
