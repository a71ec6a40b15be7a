"""Back up databases: one consistent set, dumped side by side, published as a directory with its manifest last."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from infra.console import Console, human_bytes
from infra.data import store
from infra.data.postgres import backups, clients, dump, packing, reasons, server_settings
from infra.data.postgres import roles as postgres_roles
from infra.data.postgres import snapshot as postgres_snapshot
from infra.data.postgres.children import Children, side_by_side
from infra.data.postgres.clients import Server
from infra.data.postgres.digest import Content
from infra.data.postgres.dump import Archive
from infra.data.postgres.facts import DatabaseFacts
from infra.data.postgres.survey import Survey, survey
from infra.data.store import Backup, Draft
from infra.errors import PlatformError

ROLES_SQL = "roles.sql"
HEARTBEAT = 5.0
"""Seconds between two progress lines of a long operation."""

Event = Callable[[str, dict[str, Any]], None]
"""Receives (type, facts) of each event; for programs that follow along."""


@dataclass(frozen=True)
class BackupOrder:
    """One backup to make: from where, and where to.

    `databases`: all when empty; `skipped`: those to leave out; `kept`: those too that restores have kept. `held` is
    called while the snapshots are held, right after they were taken.
    """

    target: Path
    databases: tuple[str, ...] = ()
    fence: bool = False
    skipped: tuple[str, ...] = ()
    kept: bool = False
    held: Callable[[postgres_snapshot.Snapshots], None] = lambda taken: None


@dataclass
class ByteProgress:
    """Says how many bytes have passed, at most every HEARTBEAT seconds."""

    console: Console
    event: Event
    what: str
    total: int = 0
    done: int = 0
    began: float = field(default_factory=time.monotonic)
    spoke: float = field(default_factory=time.monotonic)
    guard: threading.Lock = field(default_factory=threading.Lock)

    def add(self, size: int) -> None:
        """Note bytes."""
        with self.guard:
            self.done += size
            now = time.monotonic()
            if now - self.spoke < HEARTBEAT:
                return
            self.spoke = now
        self.say()

    @property
    def rate(self) -> float:
        """Bytes per second so far."""
        return self.done / max(time.monotonic() - self.began, 1e-3)

    def say(self) -> None:
        """Print one line now."""
        self.console.say(f"  {self.what}: {human_bytes(self.done)}, {human_bytes(self.rate)}/s")
        self.event("progress", {"what": self.what, "bytes": self.done, "rate": round(self.rate)})


def silent(kind: str, facts: dict[str, Any]) -> None:
    """Ignore an event, for callers who need none."""


def application(target: Path) -> str:
    """Return the name of a run's connections: the same for every run on one target, whose lock only one can hold."""
    return clients.application("-" + hashlib.sha256(os.fsencode(target.resolve())).hexdigest()[:12])


def backup(server: Server, console: Console, order: BackupOrder, event: Event = silent) -> Backup:
    """Make a backup; the caller holds the lock of the target.

    Raises:
        PlatformError: BACKUP_FAILED, UNREACHABLE, NOT_FOUND; nothing is published then.
    """
    name = application(order.target)
    began = time.monotonic()
    end_orphans(server, name)
    there = survey(server, order.databases, order.skipped, order.kept)
    chosen, need = there.chosen, sum(d.size for d in there.chosen)
    answering = clients.answering(server.endpoints)
    with answering, store.publishing(order.target, backups.KIND) as (draft, facts), _room(order.target, need):
        with postgres_snapshot.exported(server.endpoints, [d.name for d in chosen], order.fence, name) as taken:
            order.held(taken)
            event("snapshots", taken.facts(order.fence))
            made, failed = _dump_all(server, console, event, draft, chosen, taken, name)
        there = replace(there, left_out={**there.left_out, **failed})
        _write_json(draft, postgres_roles.FILE, there.roles)
        _write_json(draft, server_settings.FILE, there.settings)
        facts |= _facts(server, there, made, taken.facts(order.fence))
        facts |= {"seconds": round(time.monotonic() - began, 3), "role_passwords": server.superuser}
    return store.load(Path(facts["path"]))


@contextlib.contextmanager
def _room(target: Path, need: int) -> Iterator[None]:
    """Report a full disk as such, with the space that is needed, in whatever program it occurred."""
    try:
        yield
    except OSError as error:
        raise store.no_space_or_access(target, error, need) from error
    except PlatformError as error:
        said = f"{error.why} {error.details.get('log', '')}"
        if "No space left" in said:
            raise store.no_space_or_access(target, OSError(28, error.why), need) from error
        raise


def end_orphans(server: Server, name: str) -> None:
    """End the connections of a run that was killed: its pg_dump would go on writing into the void."""
    with clients.connected(server.endpoints) as link:
        link.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where application_name = %s", (name,)
        ).fetchall()


@dataclass(frozen=True)
class _Dumped:
    directory: str
    archive: Archive
    seconds: float


def _dump_all(
    server: Server,
    console: Console,
    event: Event,
    draft: Draft,
    chosen: Sequence[DatabaseFacts],
    taken: postgres_snapshot.Snapshots,
    name: str,
) -> tuple[dict[str, _Dumped], dict[str, str]]:
    """Dump side by side, the largest first; also the roles, as pg_dumpall writes them.

    Returns the dumps, and why others could not be made; when none could, the first failure is raised.
    """
    children = Children()
    progress = ByteProgress(console, event, "dumped")
    cores = max(2, os.cpu_count() or 2)
    largest = sorted(chosen, key=lambda d: -d.size)
    names = directories([d.name for d in chosen])

    def job(database: str) -> Callable[[], _Dumped | PlatformError | None]:
        def run() -> _Dumped | PlatformError:
            try:
                return _dump(server, children, draft, database, names[database], taken.of[database].id, progress, name)
            except PlatformError as error:
                if children.stopped or not reasons.of_one(error):
                    raise
                return error

        return run

    jobs = [*(job(d.name) for d in largest), lambda: _roles_sql(server, children, draft)]
    results = dict(zip([d.name for d in largest], side_by_side(children, cores + 1, jobs), strict=False))
    progress.say()
    failed = {n: found for n, found in results.items() if isinstance(found, PlatformError)}
    if len(failed) == len(largest):
        raise next(iter(failed.values()))
    made = {n: found for n, found in results.items() if isinstance(found, _Dumped)}
    return made, {n: reasons.in_words(error) for n, error in failed.items()}


def directories(names: Sequence[str]) -> dict[str, str]:
    """Return a directory for each database, whatever characters its name has."""
    return {name: f"{i:02d}-{re.sub('[^A-Za-z0-9_-]', '_', name)[:40]}" for i, name in enumerate(sorted(names))}


def _dump(
    server: Server,
    children: Children,
    draft: Draft,
    database: str,
    directory: str,
    snapshot: str,
    progress: ByteProgress,
    name: str,
) -> _Dumped:
    began = time.monotonic()
    raw = draft.directory / f"{directory}.raw"

    files: list[store.File] = []

    def take(path: Path, growing: Callable[[], bool]) -> Content:
        packed = packing.packed_name(f"{directory}/{path.name}")
        file, content = packing.pack(path, draft.path(packed), packed, growing)
        files.append(file)
        progress.add(content.size)
        return content

    try:
        archive = dump.dump(server, children, database, raw, take, snapshot, name)
    except PlatformError:
        for path in (raw, draft.directory / directory):
            shutil.rmtree(path, ignore_errors=True)
        raise
    draft.files += files
    for rest in sorted(raw.iterdir()):
        os.rename(rest, draft.path(f"{directory}/{rest.name}"))
        draft.add(f"{directory}/{rest.name}")
    raw.rmdir()
    return _Dumped(directory, archive, time.monotonic() - began)


def _roles_sql(server: Server, children: Children, draft: Draft) -> None:
    path = draft.path(ROLES_SQL)
    argv = [server.clients.program("pg_dumpall"), "--roles-only", "--no-sync", "--no-password", f"--file={path}"]
    argv += [] if server.superuser else ["--no-role-passwords"]
    result = children.run(argv, clients.login(server))
    if result.code:
        raise clients.failure("BACKUP_FAILED", argv, result, "the roles could not be dumped")
    draft.add(ROLES_SQL)


def _write_json(draft: Draft, name: str, content: Any) -> None:
    store.write_private(draft.path(name), json.dumps(content, indent=1) + "\n")
    draft.add(name)


def _facts(server: Server, there: Survey, made: Mapping[str, _Dumped], taken: Mapping[str, Any]) -> dict[str, Any]:
    entries = {}
    for facts in (d for d in there.chosen if d.name in made):
        dumped = made[facts.name]
        more = {"directory": dumped.directory, "seconds": round(dumped.seconds, 3)}
        entries[facts.name] = facts.data() | there.needs[facts.name].data() | dump.summary(dumped.archive) | more
    return {
        "server": {"number": server.number, "version": clients.version_text(server.number)},
        "client": {"number": server.clients.number, "version": clients.version_text(server.clients.number)},
        "compression": packing.KIND,
        "digest": "xxh3-128 of the COPY text",
        "snapshots": dict(taken),
        "databases": entries,
        "left_out": dict(there.left_out),
        "absent": list(there.absent),
    }
