"""The state of PostgreSQL that makes tasks fail though it answers; asked by `status` and `doctor`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from infra import database, health
from infra.console import human_bytes, printable
from infra.data.postgres import scratch
from infra.endpoints import Endpoints
from infra.errors import PlatformError
from infra.provision import ensure
from infra.sqlstate import TOO_MANY_CONNECTIONS
from infra.tiers.base import Check

if TYPE_CHECKING:
    import psycopg

NEARLY_FULL = 0.8
"""Part of the connections from which on it is worth a warning."""
OLD = 1_000_000_000
"""Transactions without a freeze, about half of what PostgreSQL survives (it refuses writes near 2^31)."""
HELD = 1 << 30
"""Bytes of WAL that a slot may hold: the server's own default for what it keeps (max_wal_size)."""
_SHELL = "invoke db.shell, then: "

_FULL = """
select count(*) filter (where backend_type = 'client backend'),
  current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
from pg_stat_activity
"""
_AGES = """
select datname, greatest(age(datfrozenxid), mxid_age(datminmxid)) from pg_database order by 2 desc limit 1
"""
_SLOTS = """
select slot_name, coalesce(database, ''), coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn), 0)::bigint
from pg_replication_slots where not active and not pg_is_in_recovery() order by 3 desc
"""


@dataclass(frozen=True)
class Facts:
    """The state of a server: names of its databases, connections, the oldest database, slots that nobody reads.

    `slots` are name, database and the bytes of WAL that they hold.
    """

    databases: frozenset[str]
    taken: int
    most: int
    oldest: tuple[str, int]
    slots: tuple[tuple[str, str, int], ...] = ()
    left_over: tuple[str, ...] = ()


def checks(endpoints: Endpoints) -> list[Check]:
    """Return what is not as it should be on the server; nothing where it does not answer: that is said elsewhere."""
    if "postgres" not in endpoints.services:
        return []
    names = (*health.needed_databases(), ensure.TEMPLATE)
    urls = [endpoints.database_url(name) for name in names]
    try:
        with database.session_on_any(urls, "look for what makes tasks fail", name="platform-status") as link:
            return findings(_facts(link))
    except PlatformError as error:
        full = error.details.get("sqlstate") == TOO_MANY_CONNECTIONS
        return [Check("connections", "fail", error.what, "; ".join(error.steps))] if full else []


def _facts(link: psycopg.Connection[Any]) -> Facts:
    taken, most = link.execute(_FULL).fetchall()[0]
    return Facts(
        databases=frozenset(name for (name,) in link.execute("select datname from pg_database")),
        taken=taken,
        most=most,
        oldest=link.execute(_AGES).fetchall()[0],
        slots=tuple(link.execute(_SLOTS).fetchall()),
        left_over=tuple(scratch.left_over_on(link)),
    )


def findings(facts: Facts) -> list[Check]:
    """Decide what is worth saying of a server's state."""
    return [*_missing(facts), *_left_over(facts.left_over), *_slots(facts), *_age(facts), *_connections(facts)]


def _missing(facts: Facts) -> list[Check]:
    gone = [name for name in health.needed_databases() if name not in facts.databases]
    if not gone:
        return []
    text = f"databases that tasks need are missing: {', '.join(gone)}"
    return [Check("databases", "fail", text, "invoke db.init makes them, empty; invoke db.restore brings data back")]


def _left_over(names: Sequence[str]) -> list[Check]:
    if not names:
        return []
    text = f"scratch databases are left over: {printable(', '.join(names))}"
    remedy = f"invoke db.verify drops them; by hand: {_SHELL}drop database NAME with (force)"
    return [Check("scratch-databases", "warn", text, remedy)]


def _slots(facts: Facts) -> list[Check]:
    held = [(name, of, size) for name, of, size in facts.slots if size >= HELD]
    if not held:
        return []
    text = "; ".join(f"{printable(name)} holds {human_bytes(size)}" for name, _, size in held)
    remedy = f"connect its reader again, or give it up: {_SHELL}select pg_drop_replication_slot('{held[0][0]}');"
    return [Check("replication-slots", "warn", f"slots that nobody reads fill the disk with WAL: {text}", remedy)]


def _age(facts: Facts) -> list[Check]:
    name, age = facts.oldest
    if age < OLD:
        return []
    text = f"{printable(name)} has not been frozen for {age:,} transactions; at 2,100,000,000 the server refuses writes"
    remedy = f"end old transactions and prepared ones, then: invoke db.shell -d {printable(name)}, vacuum (freeze);"
    return [Check("transaction-age", "warn", text, remedy)]


def _connections(facts: Facts) -> list[Check]:
    if facts.taken < facts.most * NEARLY_FULL:
        return []
    text = f"{facts.taken} of {facts.most} connections are in use"
    remedy = "end sessions that are not needed, or raise POSTGRES_MAX_CONNECTIONS in .env, then: invoke up"
    return [Check("connections", "warn", text, remedy)]
