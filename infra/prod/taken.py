"""A site's databases taken out, as they were at one moment, into a backup as every tier makes it.

The client programs of this machine need not have TLS, and no password leaves the cluster: pg_dump runs beside the
primary. What it writes goes into a server of this machine that ends with the task, and is backed up from there.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from infra import pipes, shell
from infra.console import Console
from infra.data.postgres import backup as postgres_backup
from infra.data.postgres import clients, dump
from infra.data.postgres.backup import BackupOrder
from infra.data.postgres.clients import Server
from infra.data.postgres.snapshot import Snapshots
from infra.data.store import Backup
from infra.errors import PlatformError
from infra.prod import moved
from infra.prod.postgres import CONTAINER, NAMESPACE, SiteServer

BEGIN_LIMIT, LONGEST = 60.0, 3600
"""Seconds for a session to begin; seconds for which it holds its snapshot at most."""
_SAID = "snapshot "
_HOLD = f"""
set application_name = '{{mark}}';
begin isolation level repeatable read read only;
select '{_SAID}' || pg_export_snapshot();
select pg_sleep({LONGEST});
"""


@dataclass(frozen=True)
class HeldMoment:
    """The content of a site's databases at one moment: the pod that holds it, the snapshot of each database."""

    pod: str
    snapshots: Mapping[str, str]


@contextlib.contextmanager
def held(server: SiteServer, databases: Sequence[str]) -> Iterator[HeldMoment]:
    """Hold the content of some databases for the block; nobody waits for that.

    Raises:
        PlatformError: SQL_FAILED, NOT_FOUND, NOT_RUNNING.
    """
    pod, mark = server.primary(), f"platform snapshot {datetime.now(UTC):%Y%m%d%H%M%S%f}"
    sessions: dict[str, shell.Child] = {}
    try:
        for name in databases:
            sessions[name] = shell.spawn(server.argv(name, pod), stdin=_HOLD.format(mark=mark))
        yield HeldMoment(pod, {name: _exported(name, session) for name, session in sessions.items()})
    finally:
        for session in sessions.values():
            session.stop()
        with contextlib.suppress(PlatformError):  # a session whose client has gone sleeps on
            server.ask("select pg_terminate_backend(pid) from pg_stat_activity where application_name = :'m'", m=mark)


def _exported(name: str, session: shell.Child) -> str:
    end = time.monotonic() + BEGIN_LIMIT
    while session.result() is None and time.monotonic() < end:
        lines = session.out.read_text(encoding="utf-8").splitlines()
        if found := next((line for line in lines if line.startswith(_SAID)), ""):
            return found.removeprefix(_SAID)
        time.sleep(0.05)
    raise PlatformError("SQL_FAILED", f"{name} cannot be read", why=session.last_line, steps=("try again",))


def copy(server: SiteServer, moment: HeldMoment, target: Server, say: Callable[[str], None]) -> None:
    """Make each database again on a server that has none of them. Raises PlatformError BACKUP_FAILED."""
    from psycopg import sql

    for name, snapshot in moment.snapshots.items():
        say(f"{name}: reading it")
        with clients.connected(target.endpoints) as link:
            link.execute(sql.SQL("create database {} template template0").format(sql.Identifier(name)))
        options = ("--format=custom", "--compress=0", "--no-owner", "--no-privileges", f"--snapshot={snapshot}")
        words = ("exec", "-n", NAMESPACE, moment.pod, "-c", CONTAINER, "--", "pg_dump", *options, f"--dbname={name}")
        loader = [target.clients.program("pg_restore"), "--no-owner", "--no-privileges", "--exit-on-error"]
        loader += ["--no-password", f"--dbname={dump.quoted(name)}"]
        done = pipes.start(server.cluster.argv(*words), loader, env=clients.login(target)).result(moved.LOAD_LIMIT)
        if done.code:
            raise PlatformError("BACKUP_FAILED", f"{name} could not be read from the site", why=done.last_line)


def backup(
    server: SiteServer,
    target: Server,
    directory: Path,
    console: Console,
    noted: Callable[[Snapshots], None],
) -> tuple[Backup, int]:
    """Back up the databases of a site into a directory; the backup, and the rows that were compared with the site.

    Args:
        target: an empty server of this machine.
        noted: is called while the copies do not change.

    Raises:
        PlatformError: NOT_FOUND without any of our databases; BACKUP_FAILED; RESTORE_DIFFERS.
    """
    there = server.databases()
    names = [name for name in moved.DATABASES if name in there]
    if not names:
        raise PlatformError("NOT_FOUND", f"the Cluster {server.name} has none of {', '.join(moved.DATABASES)}")
    with held(server, names) as moment:
        copy(server, moment, target, console.say)
        made = postgres_backup.backup(target, console, BackupOrder(directory, tuple(names), held=noted))
        console.say("comparing every table with the site")
        rows = [
            moved.compare(server, name, made.facts["databases"][name], snapshot)
            for name, snapshot in moment.snapshots.items()
        ]
    return made, sum(rows)
