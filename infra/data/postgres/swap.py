"""The last step of a restore: the filled databases take the names of the live ones, in one transaction for all."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from infra.data.postgres import clients, scratch
from infra.data.postgres import facts as postgres_facts
from infra.data.postgres.clients import Server
from infra.data.postgres.restore_plan import PlannedDatabase
from infra.database import MAINTENANCE
from infra.errors import PlatformError

if TYPE_CHECKING:
    import psycopg

TRIES = 5
CLOSE_LIMIT = 5.0
"""Seconds for the clients of a database to be gone once they were ended."""
_EMPTIED = """
do $$
declare until timestamptz := clock_timestamp() + interval '{limit} seconds';
begin
  loop
    perform pg_terminate_backend(pid) from pg_stat_activity where datname = any ({names}) and pid <> pg_backend_pid();
    exit when not found or clock_timestamp() > until;
    perform pg_sleep(0.002);
    perform pg_stat_clear_snapshot();
  end loop;
end $$;
"""


def emptied(names: str, limit: float) -> str:
    """Return the SQL that ends all sessions of databases (the elements of an array), for at most `limit` seconds."""
    return _EMPTIED.format(limit=limit, names=names)


@contextmanager
def apart(
    server: Server, held: psycopg.Connection[Any], items: Sequence[PlannedDatabase]
) -> Iterator[psycopg.Connection[Any]]:
    """Open a connection to a database that is not to be renamed: `held`, or one to a scratch database.

    Every other database may be one that is restored, and template1 is in use while anyone creates a database.
    """
    if MAINTENANCE not in [item.target for item in items]:
        yield held
        return
    name = scratch.named("aside", "check", scratch.stamp())
    scratch.create_empty(held, name)
    try:
        with clients.connected(server.endpoints, name) as link:
            yield link
    finally:
        with suppress(PlatformError), clients.connected(server.endpoints) as link:
            scratch.dropped(server, link, name)


def swap(server: Server, link: psycopg.Connection[Any], items: Sequence[PlannedDatabase]) -> float:
    """Put the new databases in the place of the live ones; returns the milliseconds that took.

    The server gets everything as one text, which it works off to the end even when this process is killed.

    Raises:
        PlatformError: BACKUP_FAILED when clients could not be turned away; all is as before then.
    """
    import psycopg

    said_elsewhere = (psycopg.OperationalError, psycopg.errors.InsufficientPrivilege)
    text = swap_text(link, items)
    for number in range(TRIES):
        began = time.perf_counter()
        try:
            link.execute(text.encode())
            return round((time.perf_counter() - began) * 1000, 3)
        except psycopg.errors.ObjectInUse as error:
            last = error
            _reopened(link, items)
            time.sleep(0.2 * (number + 1))
        except BaseException as error:
            with clients.connected(server.endpoints) as other:
                _reopened(other, items)
            if isinstance(error, psycopg.Error) and not isinstance(error, said_elsewhere):
                raise _not_swapped(error) from error
            raise
    raise _not_swapped(last) from last


def _not_swapped(error: psycopg.Error) -> PlatformError:
    what = "the restored databases could not replace the current ones, which are unchanged"
    return PlatformError("BACKUP_FAILED", what, why=str(error).splitlines()[0], steps=("invoke logs -s postgres",))


def idle(link: psycopg.Connection[Any]) -> None:
    """End the transaction in which a swap has failed: nothing else is listened to before."""
    if link.info.transaction_status.name not in ("IDLE", "UNKNOWN"):
        link.execute("rollback")


def _reopened(link: psycopg.Connection[Any], items: Sequence[PlannedDatabase]) -> None:
    from psycopg import sql

    idle(link)
    closed = {row[0] for row in link.execute("select datname from pg_database where not datallowconn")}
    for item in items:
        if item.target in closed:
            link.execute(sql.SQL("alter database {} allow_connections true").format(sql.Identifier(item.target)))


def swap_text(link: psycopg.Connection[Any], items: Sequence[PlannedDatabase]) -> str:
    """Make the statements of a swap: close, end clients, rename and set all in one transaction, open the old ones."""
    from psycopg import sql

    live = [i for i in items if i.live is not None]
    names = sql.Literal([n for i in items for n in (i.target, i.new)]).as_string(link)
    close = [sql.SQL("alter database {} allow_connections false").format(sql.Identifier(i.target)) for i in live]
    rename = sql.SQL("alter database {} rename to {}")
    changes: list[sql.Composed] = []
    for item in items:
        if item.live is not None:
            changes.append(rename.format(sql.Identifier(item.target), sql.Identifier(item.old)))
        if item.template:  # what is kept can be dropped
            changes.append(sql.SQL("alter database {} is_template false").format(sql.Identifier(item.old)))
        changes.append(rename.format(sql.Identifier(item.new), sql.Identifier(item.target)))
        changes += postgres_facts.setting_statements(item.facts, item.target)
    reopen = [sql.SQL("alter database {} allow_connections true").format(sql.Identifier(i.old)) for i in live]
    parts = [*_transaction(link, close), emptied(names, CLOSE_LIMIT)]
    return "".join([*parts, *_transaction(link, [*changes, *reopen])])


def _transaction(link: psycopg.Connection[Any], statements: Sequence[Any]) -> list[str]:
    return ["begin;\n", *(s.as_string(link) + ";\n" for s in statements), "commit;\n"] if statements else []
