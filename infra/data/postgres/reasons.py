"""Reasons why a database could not be dumped or loaded: what blocks it or keeps it from being restored; the remedy."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from infra import shell
from infra.data.postgres import clients
from infra.data.postgres.clients import Server
from infra.errors import PlatformError

if TYPE_CHECKING:
    pass

_GENERAL = re.compile(
    r"No space left|FATAL:|server closed the connection|terminating connection|connection to server|"
    r"the database system is|could not (connect|fork|extend|write)|out of (shared )?memory",
)
"""Faults that are not of one database: the others fail as well."""
_LOCKED = re.compile(r"due to (lock|statement) timeout")
_HOLDERS = """
select l.pid, a.usename, a.application_name, a.client_addr::text, a.state,
       to_char(coalesce(a.xact_start, a.backend_start) at time zone 'utc', 'YYYY-MM-DD HH24:MI:SS') as since,
       string_agg(distinct l.relation::regclass::text, ', ') as tables
from pg_locks l join pg_stat_activity a on a.pid = l.pid
where l.locktype = 'relation' and l.granted and l.mode = 'AccessExclusiveLock' and l.relation >= 16384
  and l.database = (select oid from pg_database where datname = current_database()) and l.pid <> pg_backend_pid()
group by 1, 2, 3, 4, 5, 6 order by 6
"""
_UNKNOWN = re.compile(r'ERROR: +((?:relation|function|type) "?([^"(]+)[^\n]* does not exist)')
_CHECKED = re.compile(r'COPY failed for table "((?:[^"]|"")*)": ERROR: [^\n]* violates check constraint')
_PLPGSQL = re.compile(r"PL/\w+ function ((?:\"(?:[^\"]|\"\")*\"|[^\s(])+\([^)]*\))")
_SQL = re.compile(r"SQL function \"((?:[^\"]|\"\")*)\"")
_FUNCTIONS = "select oid::regprocedure::text from pg_proc where proname = %s and oid >= 16384 order by 1"
_SCHEMAS = """
select quote_ident(n.nspname) from pg_namespace n where n.nspname !~ '^pg_'
  and (exists (select from pg_class where relnamespace = n.oid and relname = %(name)s)
       or exists (select from pg_proc where pronamespace = n.oid and proname = %(name)s)
       or exists (select from pg_type where typnamespace = n.oid and typname = %(name)s)) order by 1
"""


def of_one(error: PlatformError) -> bool:
    """Return whether a failure concerns one database alone: the work on the others goes on."""
    return "database" in error.details


def in_words(error: PlatformError) -> str:
    """Tell why, and the step that helps most, in one line."""
    return "; ".join(filter(None, [error.why or error.what, *error.steps[:1]]))


def dump_failed(server: Server, database: str, argv: Sequence[str], result: shell.Result) -> PlatformError:
    """Return the error for a pg_dump that failed; of a lock it says who holds it."""
    error = clients.failure("BACKUP_FAILED", argv, result, f"{database} could not be dumped")
    if result.code < 0 or _GENERAL.search(result.out):
        return error
    steps: tuple[str, ...] = (f"leave it out until then: --skip-database {shell.typed(database)}",)
    if _LOCKED.search(result.out):
        why, first = _holders(server, database)
        return _error(error, database, why, (first, *steps))
    return _error(error, database, error.why, (*error.steps, *steps))


def _error(error: PlatformError, database: str, why: str, steps: tuple[str, ...]) -> PlatformError:
    details = {**error.details, "database": database}
    return PlatformError(error.code, error.what, why=why, steps=tuple(filter(None, steps)), details=details)


def _holders(server: Server, database: str) -> tuple[str, str]:
    """Name who holds tables of a database exclusively, and the step that ends the longest."""
    rows: list[tuple[Any, ...]] = []
    with suppress(PlatformError), clients.connected(server.endpoints, database) as link:
        rows = link.execute(_HOLDERS).fetchall()
    if not rows:
        return "a table was locked exclusively for too long, by a session that has ended since", "run it again"
    said = []
    for pid, user, application, address, state, since, tables in rows:
        who = ", ".join(filter(None, (user, application, address, state)))
        said.append(f"{tables} locked by pid {pid} ({who}) since {since} UTC")
    return "; ".join(said), f"wait for it, or end it in invoke db.shell: select pg_terminate_backend({rows[0][0]})"


def load_failed(
    server: Server, database: str, scratch: str, argv: Sequence[str], result: shell.Result
) -> PlatformError:
    """Return the error for a pg_restore that failed; of a function that finds nothing it says which setting helps.

    Args:
        server: where.
        database: its name in the backup.
        scratch: the database that was to be filled.
        argv: the command.
        result: what it ended with.
    """
    error = clients.failure("BACKUP_FAILED", argv, result, f"{database} could not be filled")
    if result.code < 0 or _GENERAL.search(result.out):
        return error
    despite = "to take over what can be loaded: invoke db.restore ... --despite-differences"
    if checked(result):
        drop = "alter table ... drop constraint NAME, add constraint NAME check (...) not valid"
        why = f"{error.why}; a check that reads other tables finds them empty while a dump is restored"
        return _error(error, database, why, (f"{drop} (a dump adds it last then), and back it up again", despite))
    unknown = _UNKNOWN.search(result.out)
    functions, schemas = _named(server, scratch, result.out, unknown[2]) if unknown else ([], "")
    if not unknown or not functions:
        return _error(error, database, error.why, (despite, *error.steps))
    why = f"{unknown[1]}: {', '.join(functions)} names it without its schema, and dumps are restored without a path"
    helps = "; ".join(f"alter function {name} set search_path = {schemas}" for name in functions)
    steps = (f"in invoke db.shell --database {shell.typed(database)}: {helps}", "then back it up again", despite)
    return _error(error, database, why, steps)


def checked(result: shell.Result) -> str:
    """Return the table whose rows a check of it has refused; '' when it was something else."""
    found = _CHECKED.search(result.out)
    return found[1].replace('""', '"') if found else ""


def ignored(result: shell.Result) -> list[str]:
    """List what a pg_restore that goes on after errors could not load; nothing when it did not come to its end."""
    if result.code != 1 or _GENERAL.search(result.out) or "errors ignored on restore" not in result.out:
        return []
    found = re.findall(r"pg_restore: error: (.*(?:\n(?!pg_restore: |Command was: ).*)?)", result.out)
    return [" ".join(text.split()) for text in found]


def _named(server: Server, database: str, said: str, unknown: str) -> tuple[list[str], str]:
    """Return the functions that a message names, and the schemas that have what they did not find.

    PL/pgSQL says functions with their arguments, SQL does not.
    """
    found, names = _PLPGSQL.findall(said), dict.fromkeys(_SQL.findall(said))
    schemas: list[str] = []
    with suppress(PlatformError), clients.connected(server.endpoints, database) as link:
        found += [row[0] for name in names for row in link.execute(_FUNCTIONS, (name,)).fetchall()]
        schemas = [row[0] for row in link.execute(_SCHEMAS, {"name": unknown}).fetchall()]
    return list(dict.fromkeys(found)), ", ".join(schemas or ["public"])
