"""Scratch databases and directories: private to one run at a time, and swept by the next when that run died."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.data import store
from infra.data.postgres import clients
from infra.data.postgres import facts as postgres_facts
from infra.data.postgres.clients import Server
from infra.data.postgres.facts import DatabaseFacts
from infra.errors import PlatformError

if TYPE_CHECKING:
    import psycopg

MARK = "platform-infra: scratch database, may be dropped"
"""The comment of a database that is being filled; only what has it is ever dropped."""
_LOCK = 7_233_006
_SCRATCH = re.compile(rf"_(new|check)_{postgres_facts.STAMP}$")
_HALF_MADE = 1 << 20
"""Bytes above an empty database up to which one of our names without our comment counts as never filled."""


def stamp() -> str:
    """The end of the names of databases that are made now: UTC to the millisecond."""
    return datetime.now(UTC).strftime("%Y%m%d%H%M%S%f")[:17]


def named(database: str, kind: str, when: str) -> str:
    """`<database>_<kind>_<when>`; of a long name the beginning and a checksum, in what PostgreSQL keeps (63 bytes)."""
    end, whole = f"_{kind}_{when}", database.encode()
    room = postgres_facts.LONGEST_NAME - len(end)
    if len(whole) <= room:
        return database + end
    mark = f"_{hashlib.sha256(whole).hexdigest()[:8]}"
    return whole[: room - len(mark)].decode("utf-8", "ignore") + mark + end


@contextlib.contextmanager
def alone(server: Server, command: str, database: str = clients.MAINTENANCE) -> Iterator[psycopg.Connection[Any]]:
    """Hold the server's lock for restores; scratch databases of runs that died are dropped first.

    Yields the connection (to `database`) that holds it; the server frees it when that ends, however it happens.

    Raises:
        PlatformError: LOCKED with the holder.
    """
    name = f"{command} pid {os.getpid()}"
    with clients.connected(server.endpoints, database, name) as link:
        row = link.execute("select pg_try_advisory_lock(%s)", (_LOCK,)).fetchone()
        if not (row and row[0]):
            raise _held(server, link)
        sweep(link)
        yield link


def _held(server: Server, link: psycopg.Connection[Any]) -> PlatformError:
    row = link.execute(
        "select a.application_name, to_char(a.backend_start, 'HH24:MI:SS') from pg_locks l "
        "join pg_stat_activity a on a.pid = l.pid where l.locktype = 'advisory' and l.objid = %s and l.granted",
        (_LOCK,),
    ).fetchone()
    why = f"{row[0]}, since {row[1]} (the server's clock)" if row else ""
    steps = ("wait until it is done, or stop that process",)
    return PlatformError("LOCKED", f"another restore or verification is at work on {server.who}", why=why, steps=steps)


def sweep(link: psycopg.Connection[Any]) -> list[str]:
    """Drop the scratch databases of runs that died, and open live ones that such a run had closed."""
    from psycopg import sql

    rows = link.execute(
        "select datname, shobj_description(oid, 'pg_database'), "
        "case when has_database_privilege(oid, 'connect') then pg_database_size(oid) else 1 << 30 end, datallowconn, "
        "(select pg_database_size(oid) from pg_database where datname = 'template1') from pg_database"
    ).fetchall()
    closed = {name for name, _, _, allowed, _ in rows if not allowed}
    doomed = [n for n, said, size, _, empty in rows if _SCRATCH.search(n) and _is_ours(said, size - empty)]
    for name in doomed:
        live = _SCRATCH.sub("", name)
        if live in closed and live != "template0":
            link.execute(sql.SQL("alter database {} allow_connections true").format(sql.Identifier(live)))
        drop(link, name)
    return doomed


def _is_ours(said: str | None, extra: int) -> bool:
    return said == MARK or (said is None and extra < _HALF_MADE)


def drop(link: psycopg.Connection[Any], name: str) -> None:
    """Drop a scratch database with whoever is still connected to it."""
    from psycopg import sql

    link.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))


def create(link: psycopg.Connection[Any], server: Server, facts: DatabaseFacts, name: str) -> None:
    """Make an empty scratch database like the original.

    Raises:
        PlatformError: DATA_INCOMPATIBLE when the server has not its locale.
    """
    import psycopg
    from psycopg import sql

    try:
        link.execute(postgres_facts.create_statement(facts, name, server.number))
    except (
        psycopg.errors.InvalidParameterValue,
        psycopg.errors.WrongObjectType,
        psycopg.errors.FeatureNotSupported,
        psycopg.errors.UndefinedObject,
    ) as e:
        what = f"{facts.name} was made with the locale {facts.locale or facts.collate}, which this server lacks"
        raise PlatformError("DATA_INCOMPATIBLE", what, why=str(e).splitlines()[0]) from e
    link.execute(sql.SQL("comment on database {} is {}").format(sql.Identifier(name), sql.Literal(MARK)))


@contextlib.contextmanager
def workspace(parent: Path) -> Iterator[Path]:
    """A private directory for unpacked files; those of runs that died go first."""
    try:
        parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _sweep_workspaces(parent)
        made = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=parent))
    except OSError as error:
        raise store.no_space_or_access(parent, error) from error
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _sweep_workspaces(parent: Path) -> None:
    import psutil

    for entry in parent.iterdir():
        pid = entry.name.split("-")[0]
        if pid.isdigit() and not psutil.pid_exists(int(pid)) and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
