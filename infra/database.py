"""The only door to PostgreSQL: connections that no PG* variable of the caller steers, and what their failures mean."""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeGuard
from urllib.parse import unquote, urlsplit

from infra.errors import PlatformError
from infra.sqlstate import NO_DATABASE, SILENT, TOO_MANY_CONNECTIONS, advice, of_text

if TYPE_CHECKING:
    import psycopg

MAINTENANCE = "postgres"
"""The database that is connected to for work on others."""
CONNECT_LIMIT = 10
"""Seconds for a server to answer a connection."""
_guard = threading.Lock()
_SERVERS_WORDS = re.compile(r"(?:^|failed: )\s*\w+:  (.*)", re.MULTILINE)
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
        raise with_holders(failure(error, url, doing), url) from error
    except PlatformError as error:
        if error.details.get("sqlstate") != TOO_MANY_CONNECTIONS or "holders" in error.details:
            raise
        raise with_holders(error, url) from error


def full(url: str, what: str, said: str) -> PlatformError:
    """Make the error for a server that has no connection free; `said` are its words to another client."""
    helps = advice(TOO_MANY_CONNECTIONS)
    error = PlatformError(
        helps.code,
        f"PostgreSQL {helps.what}: {what}",
        why=said,
        steps=helps.steps,
        details={"sqlstate": TOO_MANY_CONNECTIONS},
    )
    return with_holders(error, url)


def with_holders(error: PlatformError, url: str) -> PlatformError:
    """Add to an error of a server that is full who holds its connections, where one is free to ask over."""
    if error.details.get("sqlstate") != TOO_MANY_CONNECTIONS:
        return error
    held = holders(url)
    why = (
        f"{error.why}; they are held by: {', '.join(held)}" if held else f"{error.why}; not even one is left to ask who"
    )
    return PlatformError(error.code, error.what, why=why, steps=error.steps, details={**error.details, "holders": held})


_HOLDERS = """
select count(*), coalesce(nullif(application_name, ''), 'a program without a name'), usename, datname,
       coalesce(host(client_addr), 'the server itself'), current_setting('max_connections')
from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid()
group by 2, 3, 4, 5 order by 1 desc limit 5
"""


def holders(url: str) -> list[str]:
    """Ask who holds the server's connections, most first; nobody where it cannot be asked."""
    import psycopg

    with contextlib.suppress(psycopg.Error), connect(url, name="platform-holders", timeout=3) as link:
        rows = link.execute(_HOLDERS).fetchall()
        return [
            f"{name} {count} of {most} ({user}, database {of}, from {at})" for count, name, user, of, at, most in rows
        ]
    return []


@contextlib.contextmanager
def session_on_any(urls: Sequence[str], doing: str, *, name: str) -> Iterator[psycopg.Connection[Any]]:
    """Open a session on the first of these databases that exists; see `session`.

    Raises:
        PlatformError: NOT_FOUND where none does; what `failure` makes of another reason.
    """
    with contextlib.ExitStack() as stack:
        yield _first(stack, urls, doing, name)


def _first(stack: contextlib.ExitStack, urls: Sequence[str], doing: str, name: str) -> psycopg.Connection[Any]:
    for url in urls[:-1]:
        try:
            return stack.enter_context(session(url, doing, name=name))
        except PlatformError as error:
            if error.details.get("sqlstate") != NO_DATABASE:
                raise
    return stack.enter_context(session(urls[-1], doing, name=name))


def is_failure(error: object) -> TypeGuard[psycopg.Error]:
    """Tell whether it is one of PostgreSQL's client."""
    import psycopg

    return isinstance(error, psycopg.Error)


def sqlstate(error: psycopg.Error) -> str:
    """Return the five characters of the failure; '' where no server has answered, or it said something unknown."""
    if error.sqlstate:
        return error.sqlstate
    return of_text(str(error))


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
    helps = advice(state) if answered(error) else SILENT
    user, where, database = _asked(error, url)
    details = {"sqlstate": state, "server": where, "database": database, "user": user, "asked": doing}
    return PlatformError(
        helps.code,
        f"PostgreSQL {helps.what}: {doing} ({user}@{where}, database {database})",
        why=f"{_said(error)} (SQLSTATE {state})" if state else _said(error),
        steps=helps.steps_for(database, user),
        details={k: v for k, v in details.items() if v},
    )


def _asked(error: psycopg.Error, url: str) -> tuple[str, str, str]:
    """Return user, address and database: of the connection that failed where it is known, else as the URL has them."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or 5432
    user, database = unquote(parts.username or ""), unquote(parts.path.lstrip("/"))
    link = error.pgconn
    if link is not None and link.hostaddr:
        host, port = link.hostaddr.decode(), int(link.port)
    return user, f"{host}:{port}", database


def _said(error: psycopg.Error) -> str:
    """Return the server's own words; without any, the first line: what follows are guesses of libpq."""
    text = str(error).strip()
    words = _SERVERS_WORDS.search(text)
    return words[1].strip() if words else text.splitlines()[0].strip() if text else type(error).__doc__ or ""
