"""Restore databases by swap: filled and compared beside the live ones, which then change names in one transaction."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.console import human_bytes, printable
from infra.data import store
from infra.data.postgres import clients, copies, scratch, verify
from infra.data.postgres import facts as postgres_facts
from infra.data.postgres import roles as postgres_roles
from infra.data.postgres.backup import Event, silent
from infra.data.postgres.children import Children
from infra.data.postgres.clients import Server
from infra.data.postgres.copies import Loaded
from infra.data.postgres.facts import DatabaseFacts
from infra.data.postgres.load import Order, Room
from infra.data.postgres.roles import Todo
from infra.data.store import Backup
from infra.errors import PlatformError

if TYPE_CHECKING:
    import psycopg

SWAP_TRIES = 5
_SIZES = """
select datname, case when has_database_privilege(oid, 'connect') then pg_database_size(oid) else 0 end from pg_database
"""
_DISABLED = """
select d.datname, s.subname from pg_subscription s join pg_database d on d.oid = s.subdbid
where not s.subenabled and d.datname = any (%s) order by 1, 2
"""
CLOSE_LIMIT = 5.0
"""Seconds for the clients of a database to be gone once they were ended."""


@dataclass(frozen=True)
class Item:
    """One database to restore: its name in the backup, the name it gets, and what lies under that name now.

    `live` is its size in bytes, None when there is no such database; it is kept as `old`. `new` is the name
    under which it is filled.
    """

    source: str
    target: str
    new: str
    old: str
    live: int | None
    facts: DatabaseFacts
    rows: int


@dataclass(frozen=True)
class Plan:
    """What a restore will do; nothing was touched to make it."""

    backup: Backup
    items: tuple[Item, ...]
    roles: Todo

    def lines(self) -> list[str]:
        """Return the plan for people."""
        lines = [f"This restores {self.backup.path} ({self.backup.created}):"]
        for item in self.items:
            kept = (
                f"; the current one ({human_bytes(item.live)}) is kept as {item.old}" if item.live is not None else ""
            )
            lines.append(f"  {item.source} -> {item.target}: {item.rows:,} rows{kept}")
        lines += self.roles.lines()
        return [printable(line) for line in lines]

    def data(self) -> dict[str, Any]:
        """Return the plan for programs."""
        items = {
            i.source: {"target": i.target, "old": i.old if i.live is not None else None, "rows": i.rows}
            for i in self.items
        }
        roles = {"roles": [r["name"] for r in self.roles.made], "differing": dict(self.roles.differing)}
        return {"path": str(self.backup.path), "databases": items, **roles}


@dataclass(frozen=True)
class Restored:
    """What a restore did.

    Seconds to load all databases, seconds to verify them (the files before, the content after), and milliseconds
    during which clients were turned away. `disabled` are subscriptions (database, name) that wait for their owner:
    enabled beside the one that has the data now, they would take changes away from each other. `refused` are
    statements for roles that the server did not take, with the reason.
    """

    databases: Mapping[str, Mapping[str, Any]]
    load_seconds: float
    check_seconds: float
    swap_ms: float
    disabled: tuple[tuple[str, str], ...] = ()
    refused: Mapping[str, str] = field(default_factory=dict)


def plan(
    server: Server, backup: Backup, names: Sequence[str] = (), rename: str = "", alter_roles: bool = False
) -> Plan:
    """Decide what a restore does.

    Args:
        server: where to.
        backup: a whole one.
        names: the databases to restore, with the roles that they need; all databases and roles when empty.
        rename: the name that the one database gets.
        alter_roles: whether roles that are there become as they were, too.

    Raises:
        PlatformError: USAGE, NOT_FOUND, DATA_INCOMPATIBLE, BACKUP_DAMAGED.
    """
    verify.check_versions(backup, server)
    chosen = _chosen(backup, names, rename)
    saved = postgres_roles.saved(backup)
    roles = postgres_roles.needed(saved, [backup.facts["databases"][n] for n in chosen]) if names else saved
    with clients.connected(server.endpoints) as link:
        sizes = dict(link.execute(_SIZES).fetchall())
        todo = postgres_roles.todo(roles, postgres_roles.read(link, server.superuser), alter_roles)
    if rename in sizes:
        steps = ("give another name with --to, or omit --to to replace the current one",)
        raise PlatformError("USAGE", f"there is already a database {rename}", steps=steps)
    when = scratch.stamp()
    items = tuple(_item(backup, source, rename or source, sizes, when) for source in chosen)
    return Plan(backup, items, todo)


def _chosen(backup: Backup, names: Sequence[str], rename: str) -> list[str]:
    saved = list(backup.facts["databases"])
    missing = [n for n in names if n not in saved]
    if missing:
        steps = (f"it contains: {', '.join(saved)}", "invoke db.list shows the others")
        raise PlatformError("NOT_FOUND", f"the backup contains no database {', '.join(missing)}", steps=steps)
    chosen = list(dict.fromkeys(names)) or saved
    if rename and len(chosen) != 1:
        raise PlatformError("USAGE", "--to applies to one database", steps=("select it: --database NAME --to NEW",))
    if postgres_facts.OURS.search(rename) or len(rename.encode()) > postgres_facts.LONGEST_NAME:
        raise PlatformError("USAGE", f"--to {rename}: not a valid name for a database", steps=("choose another",))
    return chosen


def _item(backup: Backup, source: str, target: str, sizes: Mapping[str, int], when: str) -> Item:
    entry = backup.facts["databases"][source]
    new, old = (scratch.named(target, kind, when) for kind in ("new", "old"))
    rows = sum(int(t["rows"]) for t in entry["tables"].values())
    return Item(source, target, new, old, sizes.get(target), DatabaseFacts.of(entry), rows)


def check_files(made: Plan) -> None:
    """Compare the files that the plan needs with the manifest. Raises PlatformError BACKUP_DAMAGED."""
    directories = {made.backup.facts["databases"][i.source]["directory"] for i in made.items}
    files = tuple(f for f in made.backup.files if f.path.split("/")[0] in {*directories, postgres_roles.FILE})
    store.check_files(replace(made.backup, files=files))


def restore(server: Server, made: Plan, work: Path, event: Event = silent) -> Restored:
    """Carry out a plan; live databases are touched only by the last step, which is one transaction for all.

    Raises:
        PlatformError: BACKUP_DAMAGED, BACKUP_FAILED, PARTIAL (roles), LOCKED, UNREACHABLE; the live ones are as before.
    """
    began = time.monotonic()
    check_files(made)
    read = time.monotonic() - began
    children = Children()
    with (
        scratch.alone(server, "db.restore", _aside(made)) as link,
        scratch.workspace(work) as space,
        postgres_roles.made(server, link, made.roles) as refused,
        _dropped(server, link, made, children),
    ):
        names = {item.source: item.new for item in made.items}
        loaded = copies.loaded(Order(server, made.backup, names, Room(space), children), event)
        swapped = swap(server, link, made.items)
        disabled = tuple(link.execute(_DISABLED, ([i.target for i in made.items],)).fetchall())
    event("swapped", {"ms": swapped})
    return replace(_report(made, loaded, read, swapped), disabled=disabled, refused=refused)


def _aside(made: Plan) -> str:
    """Return a database to work from: the one we are connected to cannot be renamed."""
    return "template1" if any(i.target == clients.MAINTENANCE for i in made.items) else clients.MAINTENANCE


@contextmanager
def _dropped(server: Server, link: psycopg.Connection[Any], made: Plan, children: Children) -> Iterator[None]:
    """Whatever is left of the scratch databases at the end goes; after a swap there are none."""
    import psycopg

    try:
        yield
    finally:
        children.stop()
        try:
            _idle(link)
            for item in made.items:
                scratch.dropped(server, link, item.new)
        except psycopg.OperationalError:
            pass  # the server went away: the next run sweeps


def swap(server: Server, link: psycopg.Connection[Any], items: Sequence[Item]) -> float:
    """Put the new databases in the place of the live ones; returns the milliseconds that took.

    The server gets everything as one text, which it works off to the end even when this process is killed.

    Raises:
        PlatformError: BACKUP_FAILED when clients could not be turned away; all is as before then.
    """
    import psycopg

    said_elsewhere = (psycopg.OperationalError, psycopg.errors.InsufficientPrivilege)
    text = swap_text(link, items)
    for number in range(SWAP_TRIES):
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


def _idle(link: psycopg.Connection[Any]) -> None:
    """End the transaction in which a swap has failed: nothing else is listened to before."""
    if link.info.transaction_status.name not in ("IDLE", "UNKNOWN"):
        link.execute("rollback")


def _reopened(link: psycopg.Connection[Any], items: Sequence[Item]) -> None:
    from psycopg import sql

    _idle(link)
    closed = {row[0] for row in link.execute("select datname from pg_database where not datallowconn")}
    for item in items:
        if item.target in closed:
            link.execute(sql.SQL("alter database {} allow_connections true").format(sql.Identifier(item.target)))


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


def swap_text(link: psycopg.Connection[Any], items: Sequence[Item]) -> str:
    """Return the statements of a swap: close, end clients, rename and set in one transaction, open the old ones."""
    from psycopg import sql

    live = [i for i in items if i.live is not None]
    names = sql.Literal([n for i in items for n in (i.target, i.new)]).as_string(link)
    close = [sql.SQL("alter database {} allow_connections false").format(sql.Identifier(i.target)) for i in live]
    rename = sql.SQL("alter database {} rename to {}")
    changes: list[sql.Composed] = []
    for item in items:
        if item.live is not None:
            changes.append(rename.format(sql.Identifier(item.target), sql.Identifier(item.old)))
        changes.append(rename.format(sql.Identifier(item.new), sql.Identifier(item.target)))
        changes += postgres_facts.setting_statements(item.facts, item.target)
    reopen = [sql.SQL("alter database {} allow_connections true").format(sql.Identifier(i.old)) for i in live]
    parts = [*_transaction(link, close), _EMPTIED.format(limit=CLOSE_LIMIT, names=names)]
    return "".join([*parts, *_transaction(link, [*changes, *reopen])])


def _transaction(link: psycopg.Connection[Any], statements: Sequence[Any]) -> list[str]:
    return ["begin;\n", *(s.as_string(link) + ";\n" for s in statements), "commit;\n"] if statements else []


def _report(made: Plan, loaded: Loaded, read: float, swapped: float) -> Restored:
    databases = {}
    for item in made.items:
        old = {"database": item.target, "old": item.old if item.live is not None else None}
        databases[item.source] = {**old, **copies.contents(loaded.archives[item.source])}
    return Restored(databases, round(loaded.load_seconds, 3), round(read + loaded.check_seconds, 3), swapped)
