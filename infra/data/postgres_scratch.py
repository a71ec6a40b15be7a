"""A backup loaded into a database beside the live ones, and compared with what its manifest says."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.data import postgres_clients as clients
from infra.data import postgres_digest as digest
from infra.data import postgres_dump, postgres_facts, store
from infra.data.postgres_clients import Children, Server
from infra.data.postgres_dump import Archive
from infra.data.postgres_facts import DatabaseFacts
from infra.data.store import Backup
from infra.errors import PlatformError

if TYPE_CHECKING:
    import psycopg

MARK = "platform-infra: scratch database, may be dropped"
"""The comment of a database that is being filled; only what has it is ever dropped."""
LONGEST_NAME = 63
_LOCK = 7_233_006
_SCRATCH = re.compile(rf"_(new|check)_{postgres_facts.STAMP}$")
_HALF_MADE = 1 << 20
"""Bytes above an empty database up to which one of our names without our comment counts as never filled."""


@dataclass(frozen=True)
class Loaded:
    """A filled scratch database: what was found in it, what differs, seconds to load and to compare."""

    name: str
    archive: Archive
    differences: tuple[str, ...]
    load_seconds: float
    check_seconds: float


def stamp() -> str:
    """The end of the names of databases that are made now: UTC to the millisecond."""
    return datetime.now(UTC).strftime("%Y%m%d%H%M%S%f")[:17]


def named(database: str, kind: str, when: str) -> str:
    """`<database>_<kind>_<when>`, cut to what PostgreSQL keeps of a name (bytes, not characters)."""
    end = f"_{kind}_{when}"
    room = LONGEST_NAME - len(end)
    return database.encode()[:room].decode("utf-8", "ignore") + end


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


def unpacked(backup: Backup, entry: Mapping[str, Any], work: Path, children: Children) -> Path:
    """Unpack a database's files of a backup, as pg_restore wants them.

    Raises:
        PlatformError: BACKUP_DAMAGED naming the file, or BACKUP_FAILED when the disk is full.
    """
    prefix = f"{entry['directory']}/"
    target = work / str(entry["directory"])
    target.mkdir(mode=0o700)
    files = sorted((f for f in backup.files if f.path.startswith(prefix)), key=lambda f: -f.size)
    need = sum(int(t["bytes"]) for t in entry["tables"].values())
    if shutil.disk_usage(work).free < need:
        raise store.no_space_or_access(work, OSError(28, "the unpacked files do not fit"), need)

    def job(file: store.File) -> Callable[[], None]:
        return lambda: _unpack(backup, file, target / file.path[len(prefix) :])

    clients.side_by_side(children, 2, [job(f) for f in files])
    return target


def _unpack(backup: Backup, file: store.File, target: Path) -> None:
    try:
        if file.path.endswith(digest.SUFFIX):
            digest.unpack(store.open_file(backup, file), target.with_name(target.name.removesuffix(digest.SUFFIX)))
            return
        with os.fdopen(store.open_file(backup, file), "rb") as source, open(target, "xb") as copy:
            shutil.copyfileobj(source, copy)
    except ValueError as error:
        raise store.damaged(backup, file.path, f"cannot be unpacked: {error}") from error
    except OSError as error:
        raise store.no_space_or_access(target.parent, error, file.size) from error


def load(server: Server, children: Children, directory: Path, name: str) -> None:
    """Fill an empty database from an unpacked archive, and gather statistics.

    Raises:
        PlatformError: BACKUP_FAILED with what pg_restore said.
    """
    jobs = min(os.cpu_count() or 2, 4)
    argv = [server.clients.program("pg_restore"), "--format=directory", f"--jobs={jobs}", "--exit-on-error"]
    argv += ["--no-password", f"--dbname={postgres_dump.quoted(name)}", str(directory)]
    result = children.run(argv, clients.login(server.endpoints))
    if result.code:
        raise clients.failure("BACKUP_FAILED", argv, result, f"{name} could not be filled")
    with clients.connected(server.endpoints, name) as link:
        link.execute("analyze")


def check(
    server: Server, children: Children, backup: Backup, database: str, directory: Path, name: str, raw: Path
) -> Loaded:
    """Compare a filled database with the manifest: objects, rows and digest of every table.

    The copy is dumped again; where a table's text differs, its rows may have another order, which is looked into.
    """
    saved = postgres_dump.from_summary(backup.facts["databases"][database])
    same_version = backup.facts["client"]["number"] // 10000 == server.clients.number // 10000
    known = {c.digest for c in saved.tables.values()}
    sums: dict[postgres_dump.Content, tuple[int, int]] = {}

    def take(path: Path, growing: Callable[[], bool]) -> postgres_dump.Content:
        content = digest.measure(path, growing)
        if content.digest not in known:
            sums[content] = digest.unordered(path)
        return content

    found = postgres_dump.dump(server, children, name, raw, take)
    shutil.rmtree(raw, ignore_errors=True)
    files = {label: n for n, label in postgres_dump.list_entries(server, children, directory).items()}
    wrong = postgres_dump.other_objects(saved, found, same_version)
    for label in postgres_dump.different(saved, found):
        now, file = found.tables.get(label), directory / f"{files.get(label, '')}.dat"
        if now is None or now not in sums or not file.is_file() or digest.unordered(file) != sums[now]:
            wrong.append(f"other content: {label}")
    return Loaded(name, found, tuple(wrong), 0.0, 0.0)


def filled(
    server: Server,
    link: psycopg.Connection[Any],
    children: Children,
    backup: Backup,
    database: str,
    name: str,
    work: Path,
) -> Loaded:
    """Make, fill and compare one scratch database; what differs is in the answer.

    Raises:
        PlatformError: BACKUP_DAMAGED, BACKUP_FAILED, DATA_INCOMPATIBLE.
    """
    entry = backup.facts["databases"][database]
    began = time.monotonic()
    create(link, server, DatabaseFacts.of(entry), name)
    directory = unpacked(backup, entry, work, children)
    load(server, children, directory, name)
    middle = time.monotonic()
    found = check(server, children, backup, database, directory, name, work / "again")
    shutil.rmtree(directory, ignore_errors=True)
    seconds = (round(middle - began, 3), round(time.monotonic() - middle, 3))
    return Loaded(name, found.archive, found.differences, *seconds)
