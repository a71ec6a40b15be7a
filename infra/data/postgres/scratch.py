"""Scratch databases and directories: private to one run at a time, and swept by the next when that run died."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra import private
from infra.data import store
from infra.data.postgres import clients
from infra.data.postgres import facts as postgres_facts
from infra.data.postgres.clients import Server
from infra.data.postgres.facts import DatabaseFacts
from infra.endpoints import Endpoints
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
    """Return the end of the names of databases that are made now: UTC to the millisecond."""
    return datetime.now(UTC).strftime("%Y%m%d%H%M%S%f")[:17]


def named(database: str, kind: str, when: str) -> str:
    """Make `<database>_<kind>_<when>`; a long name is cut and gets a checksum, within PostgreSQL's 63 bytes."""
    end, whole = f"_{kind}_{when}", database.encode()
    room = postgres_facts.LONGEST_NAME - len(end)
    if len(whole) <= room:
        return database + end
    mark = f"_{hashlib.sha256(whole).hexdigest()[:8]}"
    return whole[: room - len(mark)].decode("utf-8", "ignore") + mark + end


@contextlib.contextmanager
def alone(server: Server, command: str) -> Iterator[psycopg.Connection[Any]]:
    """Hold the server's lock for restores; scratch databases of runs that died are dropped first.

    Yields the connection that holds it; the server frees it when that ends, however it happens.

    Raises:
        PlatformError: LOCKED with the holder.
    """
    name = f"{command} pid {os.getpid()}"
    with clients.connected(server.endpoints, name=name) as link:
        row = link.execute("select pg_try_advisory_lock(%s)", (_LOCK,)).fetchone()
        if not (row and row[0]):
            raise _held(server, link)
        sweep(server, link)
        yield link


def _held(server: Server, link: psycopg.Connection[Any]) -> PlatformError:
    row = link.execute(
        "select a.application_name, to_char(a.backend_start, 'HH24:MI:SS') from pg_locks l "
        "join pg_stat_activity a on a.pid = l.pid where l.locktype = 'advisory' and l.objid = %s and l.granted",
        (_LOCK,),
    ).fetchone()
    why = f"{row[0]}, since {row[1]} (the server's clock)" if row else ""
    steps = ("wait until it finishes, or stop that process",)
    return PlatformError(
        "LOCKED", f"another restore or verification is in progress on {server.who}", why=why, steps=steps
    )


_OTHERS = """
select datname, shobj_description(oid, 'pg_database'),
  case when has_database_privilege(oid, 'connect') then pg_database_size(oid) else 1 << 30 end, datallowconn,
  (select pg_database_size(oid) from pg_database where datname = 'template1') from pg_database
"""


def sweep(server: Server, link: psycopg.Connection[Any]) -> dict[str, str]:
    """Drop the scratch databases of runs that died, and open live ones that such a run had closed.

    Returns those that could not be dropped, with the reason: they are in nobody's way.
    """
    from psycopg import sql

    rows = link.execute(_OTHERS).fetchall()
    closed = {name for name, _, _, allowed, _ in rows if not allowed}
    kept: dict[str, str] = {}
    for name in _doomed(rows):
        live = _SCRATCH.sub("", name)
        if live in closed and live != "template0":
            link.execute(sql.SQL("alter database {} allow_connections true").format(sql.Identifier(live)))
        why = dropped(server, link, name)
        kept |= {name: why} if why else {}
    return kept


def _doomed(rows: Sequence[tuple[Any, ...]]) -> list[str]:
    return [name for name, said, size, _, empty in rows if _SCRATCH.search(name) and _is_ours(said, size - empty)]


def _is_ours(said: str | None, extra: int) -> bool:
    return said == MARK or (said is None and extra < _HALF_MADE)


def left_over(endpoints: Endpoints) -> list[str]:
    """List scratch databases that no run uses: what the next run drops, or what it could not drop."""
    with clients.connected(endpoints) as link:
        return left_over_on(link)


def left_over_on(link: psycopg.Connection[Any]) -> list[str]:
    """List the same over a connection that is there."""
    held = "select exists (select from pg_locks where locktype = 'advisory' and objid = %s and granted)"
    if (link.execute(held, (_LOCK,)).fetchone() or (False,))[0]:
        return []
    return _doomed(link.execute(_OTHERS).fetchall())


def warnings(endpoints: Endpoints) -> list[str]:
    """List warnings about the scratch databases that a run could not drop."""
    return [
        f"the scratch database {name} could not be dropped; invoke doctor says more" for name in left_over(endpoints)
    ]


def dropped(server: Server, link: psycopg.Connection[Any], name: str) -> str:
    """Drop a scratch database; returns why that was not possible, '' when it is gone.

    Raises:
        psycopg.OperationalError: the server went away.
    """
    import psycopg

    try:
        drop(server, link, name)
    except psycopg.Error as error:
        if link.closed:
            raise
        return str(error).splitlines()[0]
    except PlatformError as error:
        return error.why or error.what
    return ""


def drop(server: Server, link: psycopg.Connection[Any], name: str) -> None:
    """Drop a scratch database, the connections that it still has, and the subscriptions that would keep it."""
    import psycopg
    from psycopg import sql

    statement = sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name))
    try:
        link.execute(statement)
    except psycopg.errors.ObjectInUse:
        _unsubscribe(server, name)
        link.execute(statement)


def _unsubscribe(server: Server, name: str) -> None:
    """Remove the subscriptions of a scratch database; their publishers, and slots there, are not touched."""
    from psycopg import sql

    here = "select subname from pg_subscription where subdbid = (select oid from pg_database where datname = %s)"
    with clients.connected(server.endpoints, name) as link:
        for row in link.execute(here, (name,)).fetchall():
            subscription = sql.Identifier(row[0])
            for text in ("alter subscription {} disable", "alter subscription {} set (slot_name = none)"):
                link.execute(sql.SQL(text).format(subscription))
            link.execute(sql.SQL("drop subscription {}").format(subscription))


def create_empty(link: psycopg.Connection[Any], name: str) -> None:
    """Make a scratch database of the server's own kind."""
    from psycopg import sql

    link.execute(sql.SQL("create database {} template template0").format(sql.Identifier(name)))
    _mark(link, name)


def _mark(link: psycopg.Connection[Any], name: str) -> None:
    from psycopg import sql

    link.execute(sql.SQL("comment on database {} is {}").format(sql.Identifier(name), sql.Literal(MARK)))


def create(
    link: psycopg.Connection[Any], server: Server, facts: DatabaseFacts, name: str, despite: bool = False
) -> list[str]:
    """Make an empty scratch database like the original, or (`despite`) as like as it can be.

    Returns what is not like it.

    Raises:
        PlatformError: DATA_INCOMPATIBLE when the server has not its locale.
    """
    import psycopg

    try:
        link.execute(postgres_facts.create_statement(facts, name, server.number))
    except (
        psycopg.errors.InvalidParameterValue,
        psycopg.errors.WrongObjectType,
        psycopg.errors.FeatureNotSupported,
        psycopg.errors.UndefinedObject,
    ) as e:
        what = f"{facts.name} was created with the locale {facts.locale or facts.collate}, which this server lacks"
        why, steps = str(e).splitlines()[0], ("restore it to a server that has it, or add --despite-differences",)
        if not despite:
            details = {"database": facts.name}
            raise PlatformError("DATA_INCOMPATIBLE", what, why=why, steps=steps, details=details) from e
        create_empty(link, name)
        return [f"{what}: {why}"]
    _mark(link, name)
    return []


@contextlib.contextmanager
def workspace(parent: Path) -> Iterator[Path]:
    """Create a private directory for unpacked files for the block; those of runs that died are removed first."""
    try:
        private.directory(parent)
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
