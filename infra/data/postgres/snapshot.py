"""Snapshots of several databases, exported back to back, or under a fence that no writer can pass."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from infra.data.postgres import clients
from infra.endpoints import Endpoints

if TYPE_CHECKING:
    import psycopg

LOCK_LIMIT = 2.0
"""Seconds that the fence waits for a table; writers queue up behind it meanwhile."""
TRIES = 3
_TABLES = """
select format('%I.%I', n.nspname, c.relname) from pg_class c join pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r', 'p') and c.relpersistence <> 't'
  and n.nspname not in ('pg_catalog', 'information_schema') and n.nspname !~ '^pg_toast'
order by 1
"""
_BEGIN = "begin isolation level repeatable read read only"
_POSITION = "(case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_lsn() end)::text"


@dataclass(frozen=True)
class DatabaseSnapshot:
    """An exported snapshot and the log position at which it was taken."""

    id: str
    lsn: str


@dataclass(frozen=True)
class Snapshots:
    """Snapshots by database; how far apart they are and how long writers were held up, in milliseconds."""

    of: Mapping[str, DatabaseSnapshot]
    window_ms: float
    fence_ms: float | None = None
    fence_refused: str = ""

    def facts(self, asked: bool) -> dict[str, Any]:
        """Return its facts for the manifest."""
        held = self.fence_ms is not None
        fence = {"asked": asked, "held": held, "ms": self.fence_ms, "why_not": self.fence_refused}
        return {"window_ms": round(self.window_ms, 3), "skew": 0 if held else None, "fence": fence}


@dataclass
class _Fence:
    """SHARE locks on every table of some databases, each in a transaction of its own."""

    links: Mapping[str, psycopg.Connection[Any]]
    tables: dict[str, list[str]] = field(default_factory=dict)
    began: float = 0.0

    def prepare(self) -> None:
        """Read what is to be locked."""
        self.tables = {name: [row[0] for row in link.execute(_TABLES)] for name, link in self.links.items()}

    def close(self) -> None:
        """Take the locks, in all databases at once. Raises psycopg.Error when one is not granted in time."""
        self.began = time.perf_counter()
        limit = f"set local lock_timeout = '{int(LOCK_LIMIT * 1000)}ms'"
        locks = {n: f"lock table {', '.join(t)} in share mode" if t else "select" for n, t in self.tables.items()}
        clients.together(self.links, {name: f"begin; {limit}; {lock}" for name, lock in locks.items()})

    def open(self) -> float:
        """Release the locks; returns the milliseconds since `close` began."""
        clients.together(self.links, dict.fromkeys(self.links, "rollback"))
        return (time.perf_counter() - self.began) * 1000


@contextlib.contextmanager
def exported(endpoints: Endpoints, databases: Sequence[str], fence: bool, name: str = "") -> Iterator[Snapshots]:
    """Hold a read-only transaction in each database and export its snapshot, one right after the other.

    Raises:
        psycopg.Error: a connection failed.
    """
    with contextlib.ExitStack() as stack:
        links = {d: _open(stack, endpoints, d, name) for d in databases}
        clients.together(links, dict.fromkeys(links, f"select {_POSITION}"))  # what a new connection must look up
        clients.together(links, dict.fromkeys(links, _BEGIN))  # the snapshot is taken by the first statement in it
        yield _fenced(endpoints, links, name) if fence else _export(links)


def _open(stack: contextlib.ExitStack, endpoints: Endpoints, database: str, name: str) -> psycopg.Connection[Any]:
    return stack.enter_context(contextlib.closing(clients.open_connection(endpoints, database, name)))


def _export(links: Mapping[str, psycopg.Connection[Any]]) -> Snapshots:
    """Take and export the snapshots at the same time; the window is from the first question to the last answer."""
    began = time.perf_counter()
    rows = clients.together(links, dict.fromkeys(links, f"select pg_export_snapshot(), {_POSITION}"))
    window = (time.perf_counter() - began) * 1000
    return Snapshots({name: DatabaseSnapshot(*found[0]) for name, found in rows.items()}, window)


def _fenced(endpoints: Endpoints, links: Mapping[str, psycopg.Connection[Any]], name: str) -> Snapshots:
    """Take the snapshots under a fence, or report that the tables could not be locked and do without one."""
    import psycopg

    refused = ""
    with contextlib.ExitStack() as own:
        fence = _Fence({d: _open(own, endpoints, d, name) for d in links})
        for number in range(TRIES):
            try:
                fence.prepare()
                fence.close()
            except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected, psycopg.ProgrammingError) as no:
                refused = str(no).splitlines()[0]
                fence.open()
            else:
                made = _export(links)
                return Snapshots(made.of, made.window_ms, round(fence.open(), 3))
            time.sleep(0.1 * (number + 1))
    made = _export(links)
    return Snapshots(made.of, made.window_ms, None, refused)
