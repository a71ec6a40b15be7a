"""Digests of PostgreSQL's tables, with their rows: at a moment that every database shares, or now.

For the moment all tables are held still for as long as it takes to name a restore point, which is milliseconds; the
digests are calculated afterwards, from the snapshots of that moment. Locks that were taken after a savepoint are given
back when it is rolled back to, and a transaction's snapshot stays.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from infra import shell
from infra.errors import PlatformError
from infra.prod.postgres import SiteServer

BUDGET = 1800.0
"""Seconds that the digests may take."""

_TABLES = """
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where c.relkind = 'r' and c.relpersistence = 'p' and n.nspname !~ '^(pg_|information_schema$)'
"""
_DIGESTS = f"""
select format('select %L, count(*), coalesce(sum(hashtextextended(t::text, 0)), 0) from %I.%I t',
              current_database() || '.' || n.nspname || '.' || c.relname, n.nspname, c.relname)
{_TABLES} order by n.nspname, c.relname \\gexec
"""
_WAIT = """
do $$
begin
  for i in 1..{turns} loop
    perform pg_stat_clear_snapshot();
    if (select count(*) from pg_stat_activity where application_name = '{name}') {test} then return; end if;
    perform pg_sleep(0.01);
  end loop;
  raise exception 'another session did not come as far as {name}';
end $$;
"""


@dataclass(frozen=True)
class Digest:
    """A table: its rows, and the sum of the hashes of their text, in which their order does not matter."""

    rows: int
    sum: str


Digests = Mapping[str, Digest]
"""By database, schema and name."""


def now(server: SiteServer) -> Digests:
    """Digest every table as it is; for a server that nobody writes to. Raises PlatformError SQL_FAILED."""
    return _together(server, dict.fromkeys(server.databases(), f"begin isolation level repeatable read;{_DIGESTS}"))


def at_restore_point(server: SiteServer, point: str) -> Digests:
    """Digest every table at one moment, and give that moment a name in the WAL.

    Raises:
        PlatformError: SQL_FAILED; a table that was in use for more than 3 seconds is a reason.
    """
    names = server.databases()
    scripts = {n: _script(point, len(names), leads=n == names[0]) for n in names}
    return _together(server, scripts)


def _script(point: str, count: int, *, leads: bool) -> str:
    """Write the script of one database; the one that leads names the restore point once all hold still."""
    held, others = _mark(point, "held"), count - 1
    act = (
        f"{_wait(held, f'>= {others}')}select pg_create_restore_point('{point}') \\g /dev/null\n"
        f"set application_name = '{_mark(point, 'named')}';\n{_wait(held, '= 0')}"
        if leads
        else f"set application_name = '{held}';\n{_wait(_mark(point, 'named'), '= 1')}"
    )
    return f"""
set lock_timeout = '3s';
set application_name = '{_mark(point, "ready")}';
{_wait(_mark(point, "ready"), f">= {count}", others=(_mark(point, "held"), _mark(point, "named")))}
select coalesce(string_agg(format('%I.%I', n.nspname, c.relname), ', '), '') as tables,
       count(*) > 0 as any {_TABLES} \\gset
begin isolation level repeatable read;
savepoint still;
\\if :any
lock table :tables in share mode;
\\endif
select 1 \\g /dev/null
{act}
rollback to savepoint still;
{_DIGESTS}"""


def _mark(point: str, state: str) -> str:
    return f"{point} {state}"


def _wait(name: str, test: str, others: Sequence[str] = ()) -> str:
    """Write a wait for sessions by their names; those of `others` count as having been there.

    Sessions that begin are waited for half a minute, those that hold tables still 5 seconds.
    """
    text = _WAIT.format(name=name, test=test, turns=3000 if others else 500)
    if others:
        listed = ", ".join(f"'{n}'" for n in (name, *others))
        text = text.replace(f"application_name = '{name}')", f"application_name in ({listed}))")
    return text


def _together(server: SiteServer, scripts: Mapping[str, str]) -> Digests:
    """Run a script in each database at the same time; the tables that they print."""
    pod = server.primary()
    running: dict[str, shell.Child] = {}
    end = time.monotonic() + BUDGET
    try:
        for name, text in scripts.items():
            running[name] = shell.spawn(server.argv(name, pod), stdin=text)
        ended = {name: _ended(child, end) for name, child in running.items()}
    finally:
        for child in running.values():
            child.stop()
    failed = [f"{name}: {result.last_line}" for name, result in ended.items() if result.code]
    if failed:
        raise PlatformError("SQL_FAILED", "the tables could not be read", why=failed[0], steps=("try again",))
    return read(line for result in ended.values() for line in result.out.splitlines())


def _ended(child: shell.Child, end: float) -> shell.Result:
    """Wait for a program, and stop it when its time is over."""
    while (result := child.result()) is None:
        if time.monotonic() > end:
            child.stop()
        time.sleep(0.1)
    return result


def read(lines: Iterable[str]) -> Digests:
    """Read what the scripts print, a line for each table; a `|` in a table's name is part of it."""
    parts = (line.rsplit("|", 2) for line in lines if line.count("|") >= 2)
    return {name: Digest(int(rows), total) for name, rows, total in parts}


def differences(before: Digests, after: Digests) -> list[str]:
    """Say how two contents differ, a line for each table."""
    found = []
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name), after.get(name)
        if old is None or new is None:
            found.append(f"{name}: only in the {'copy' if old is None else 'original'}")
        elif old != new:
            found.append(
                f"{name}: {old.rows} rows, {new.rows} in the copy" if old.rows != new.rows else f"{name}: rows differ"
            )
    return found
