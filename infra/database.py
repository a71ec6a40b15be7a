"""The only door to PostgreSQL: connections that no PG* variable of the caller steers, and what their failures mean."""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeGuard
from urllib.parse import unquote, urlsplit

from infra.errors import PlatformError

if TYPE_CHECKING:
    import psycopg

CONNECT_LIMIT = 10
"""Seconds for a server to answer a connection."""
_guard = threading.Lock()
_set_aside: dict[str, str] = {}


def shield() -> None:
    """Take libpq's variables out of this process: it would prefer some (PGHOSTADDR, PGTZ) to what a call says."""
    with _guard:
        _set_aside.update({name: os.environ.pop(name) for name in _steering(os.environ)})


def foreign() -> list[str]:
    """Return the names of the variables by which the caller steers libpq, whether set aside by now or not."""
    return sorted({*_set_aside, *_steering(os.environ)})


def callers_environment() -> dict[str, str]:
    """Return the environment as the caller has it: for programs that are the user's own."""
    return {**os.environ, **_set_aside}


def _steering(environ: Mapping[str, str]) -> list[str]:
    return [name for name in environ if name.upper().startswith("PG")]


def connect(
    url: str, *, name: str, options: str = "", timeout: int = CONNECT_LIMIT, autocommit: bool = True
) -> psycopg.Connection[tuple[Any, ...]]:
    """Open a connection for a caller that closes it and handles its failures; see `session` for the others.

    Args:
        url: libpq's URL, with the login.
        name: what the server's list of sessions shows.
        options: settings for the session, as `-c name=value`.
        timeout: in seconds, for the server to answer.

    Raises:
        psycopg.OperationalError: no answer, or a refusal.
    """
    import psycopg

    shield()
    return psycopg.connect(
        url, autocommit=autocommit, connect_timeout=timeout, application_name=name, options=options or None
    )


@contextlib.contextmanager
def session(
    url: str, doing: str, *, name: str, options: str = "", autocommit: bool = True
) -> Iterator[psycopg.Connection[Any]]:
    """Open a connection and close it; see `connect` for the parameters, and `failure` for `doing`.

    Raises:
        PlatformError: what `failure` makes of what the connection, or a statement over it, has raised.
    """
    with answering(url, doing), connect(url, name=name, options=options, autocommit=autocommit) as link:
        yield link


@contextlib.contextmanager
def answering(url: str, doing: str) -> Iterator[None]:
    """Turn PostgreSQL's failures into errors for users.

    Raises:
        PlatformError: what `failure` makes of them.
    """
    import psycopg

    try:
        yield
    except psycopg.Error as error:
        raise failure(error, url, doing) from error


@dataclass(frozen=True)
class Advice:
    """What a SQLSTATE means for a user: the error code, what the server did, and the steps that help.

    In the steps `{database}` and `{user}` stand for those of the connection.
    """

    code: str
    what: str
    steps: tuple[str, ...]


_LOGS = "invoke logs -s postgres"
_AGAIN = "run the same command again"
_SILENT = Advice("UNREACHABLE", "does not answer", ("invoke status", "invoke doctor"))
_FULL = "raise POSTGRES_MAX_CONNECTIONS in .env, then: invoke up"
_OTHER = Advice("SQL_FAILED", "refused a statement", (_LOGS, "run it again with --debug for the statement"))
_DAMAGED = Advice(
    "SQL_FAILED",
    "found damaged data",
    (f"{_LOGS}: it names the table", "restore the database from a backup: invoke db.list, invoke db.restore"),
)
_DISK = Advice("SQL_FAILED", "has no space left", ("free space on the disk that holds its data: invoke doctor", _LOGS))

ADVICE: Mapping[str, Advice] = {
    "08": _SILENT,
    "28": Advice("LOGIN_REFUSED", "refused", ("see POSTGRES_USER and POSTGRES_PASSWORD in .env", "invoke doctor")),
    "3D000": Advice(
        "NOT_FOUND", "has no such database", ("invoke db.init makes the platform's", "invoke db.databases")
    ),
    "42501": Advice(
        "LOGIN_REFUSED",
        "refused a statement to this user",
        ("use a superuser, or the owner of the database: POSTGRES_USER in .env",),
    ),
    "42P01": Advice(
        "SQL_FAILED",
        "has no such table",
        ("invoke train.run makes ours", "invoke db.shell -d {database}"),
    ),
    "25006": Advice(
        "SQL_FAILED",
        "is read-only",
        (
            "invoke db.shell, then: alter system reset default_transaction_read_only; select pg_reload_conf();",
            "and where it is set for one: alter database {database}, or alter role {user}, "
            "reset default_transaction_read_only;",
            "a standby stays read-only: use its primary",
        ),
    ),
    "40": Advice("DATABASE_BUSY", "was asked for the same by somebody else at the same time", (_AGAIN,)),
    "42P04": Advice("DATABASE_BUSY", "has that database by now: another program has made it", (_AGAIN,)),
    "53000": Advice("DATABASE_BUSY", "lacks resources", ("invoke status", _LOGS)),
    "53100": _DISK,
    "53200": Advice("DATABASE_BUSY", "has no memory left", ("end other programs, or give Docker more memory", _LOGS)),
    "53300": Advice("DATABASE_BUSY", "has no connection free", ("end sessions that are not needed", _FULL)),
    "53400": Advice("SQL_FAILED", "reached a limit of its configuration", (_LOGS, "invoke db.shell, then: show all;")),
    "54": Advice("SQL_FAILED", "reached a limit of PostgreSQL", (_LOGS,)),
    "55006": Advice(
        "DATABASE_BUSY",
        "refused, since somebody uses it",
        ("invoke db.shell, then: select pid, usename, application_name, datname from pg_stat_activity;", _AGAIN),
    ),
    "55000": Advice(
        "SQL_FAILED",
        "takes no connections to it",
        ("invoke db.shell, then: alter database {database} allow_connections true;",),
    ),
    "55P03": Advice(
        "DATABASE_BUSY",
        "could not lock what another session holds",
        ("invoke db.shell, then: select pid, pg_blocking_pids(pid), query from pg_stat_activity;", _AGAIN),
    ),
    "57014": Advice(
        "DATABASE_BUSY",
        "cancelled a statement",
        ("invoke db.shell, then: show statement_timeout; and look for locks in pg_stat_activity", _AGAIN),
    ),
    "57P01": Advice("DATABASE_BUSY", "ended the session", (_AGAIN, _LOGS)),
    "57P02": Advice("DATABASE_BUSY", "ended the session, since another one crashed", (_AGAIN, _LOGS)),
    "57P03": Advice("DATABASE_BUSY", "is starting, stopping or recovering", ("invoke status", _AGAIN)),
    "57P04": Advice("NOT_FOUND", "has dropped the database", ("invoke db.databases", "invoke db.init")),
    "57P05": Advice("DATABASE_BUSY", "ended a session that was idle", (_AGAIN,)),
    "58": Advice("SQL_FAILED", "has trouble with its files", (_LOGS, "invoke doctor")),
    "0A000": Advice("SQL_FAILED", "lacks that feature", ("invoke version", _LOGS)),
    "22023": Advice("SQL_FAILED", "knows no such value of a setting", (_LOGS, "invoke version")),
    "42704": Advice("SQL_FAILED", "has no such object, e.g. an extension or a role", (_LOGS, "invoke version")),
    "XX001": _DAMAGED,
    "XX002": _DAMAGED,
    "XX000": Advice("SQL_FAILED", "has an internal error", (_LOGS, "invoke db.backup, before anything else is tried")),
}
"""SQLSTATE, or its first two characters for the rest of a class (PostgreSQL 18, appendix A) -> what helps."""

_REFUSALS = (
    ("28P01", r"authentication failed|no password supplied"),
    ("28000", r"no pg_hba\.conf entry|role \".*\" does not exist|is not permitted to log in"),
    ("3D000", r"database \".*\" does not exist"),
    ("57P03", r"database system is (?:starting|shutting|in recovery|not yet accepting)"),
    ("53300", r"too many (?:clients|connections)|remaining connection slots"),
    ("55000", r"is not currently accepting connections"),
    ("42501", r"permission denied"),
)
"""What the server says when it refuses a connection: libpq does not give the SQLSTATE of that."""
_SERVERS_WORDS = re.compile(r"(?:^|failed: )\s*\w+:  (.*)", re.MULTILINE)


def is_failure(error: object) -> TypeGuard[psycopg.Error]:
    """Tell whether it is one of PostgreSQL's client."""
    import psycopg

    return isinstance(error, psycopg.Error)


def sqlstate(error: psycopg.Error) -> str:
    """Return the five characters of the failure; '' where no server has answered, or it said something unknown."""
    if error.sqlstate:
        return error.sqlstate
    return next((state for state, words in _REFUSALS if re.search(words, str(error))), "")


def advice(state: str) -> Advice:
    """Look up what helps on a SQLSTATE: its own row, its class's, or the one for everything else."""
    return ADVICE.get(state) or ADVICE.get(state[:2]) or _OTHER


def answered(error: psycopg.Error) -> bool:
    """Tell whether a server has said something: else it is away, or the connection to it broke."""
    import psycopg

    if sqlstate(error) or _SERVERS_WORDS.search(str(error)):
        return True
    return not isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)


def failure(error: psycopg.Error, url: str, doing: str) -> PlatformError:
    """Say what PostgreSQL has refused, with the SQLSTATE, to whom, and the step that helps.

    Args:
        url: of the connection; its password is not shown.
        doing: what was asked for, e.g. "list the databases".
    """
    state = sqlstate(error)
    helps = advice(state) if answered(error) else _SILENT
    user, where, database = _asked(error, url)
    details = {"sqlstate": state, "server": where, "database": database, "user": user, "asked": doing}
    return PlatformError(
        helps.code,
        f"PostgreSQL {helps.what}: {doing} ({user}@{where}, database {database})",
        why=f"{_said(error)} (SQLSTATE {state})" if state else _said(error),
        steps=tuple(step.format(database=database, user=user) for step in helps.steps),
        details={k: v for k, v in details.items() if v},
    )


def _asked(error: psycopg.Error, url: str) -> tuple[str, str, str]:
    """User, address and database: of the connection that failed where it is known, else as the URL has them."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or 5432
    user, database = unquote(parts.username or ""), unquote(parts.path.lstrip("/"))
    link = error.pgconn
    if link is not None and link.hostaddr:
        host, port = link.hostaddr.decode(), int(link.port)
    return user, f"{host}:{port}", database


def _said(error: psycopg.Error) -> str:
    """The server's own words; without any, the first line: what follows are guesses of libpq."""
    text = str(error).strip()
    words = _SERVERS_WORDS.search(text)
    return words[1].strip() if words else text.splitlines()[0].strip() if text else type(error).__doc__ or ""
