"""The meaning of PostgreSQL's failures for a user, by SQLSTATE. Data only."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

TOO_MANY_CONNECTIONS = "53300"
NO_DATABASE = "3D000"


@dataclass(frozen=True)
class Advice:
    """The meaning of a SQLSTATE for a user: the error code, what the server did, and the steps that help.

    In the steps `{database}` and `{user}` stand for those of the connection.
    """

    code: str
    what: str
    steps: tuple[str, ...]

    def steps_for(self, database: str, user: str) -> tuple[str, ...]:
        """Fill in the names of the connection."""
        return tuple(step.format(database=database, user=user) for step in self.steps)


_LOGS = "invoke logs -s postgres"
_AGAIN = "run the same command again"
SILENT = Advice("UNREACHABLE", "does not answer", ("invoke status", "invoke doctor"))
_FULL = "raise POSTGRES_MAX_CONNECTIONS in .env, then: invoke up"
_OTHER = Advice("SQL_FAILED", "refused a statement", (_LOGS, "run it again with --debug for the statement"))
_DAMAGED = Advice(
    "SQL_FAILED",
    "found damaged data",
    (f"{_LOGS}: it names the table", "restore the database from a backup: invoke db.list, invoke db.restore"),
)
_DISK = Advice("SQL_FAILED", "has no space left", ("free space on the disk that holds its data: invoke doctor", _LOGS))

ADVICE: Mapping[str, Advice] = {
    "08": SILENT,
    "28": Advice("LOGIN_REFUSED", "refused", ("check POSTGRES_USER and POSTGRES_PASSWORD in .env", "invoke doctor")),
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
        ("invoke train.run makes ours", "invoke db.shell --database {database}"),
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
"""Refusals of a connection in the server's words: libpq does not give the SQLSTATE of those."""


def of_text(text: str) -> str:
    """Find the SQLSTATE of a refused connection in what a client said; '' where none is known by these words."""
    return next((state for state, words in _REFUSALS if re.search(words, text)), "")


def advice(state: str) -> Advice:
    """Look up what helps on a SQLSTATE: its own row, its class's, or the one for everything else."""
    return ADVICE.get(state) or ADVICE.get(state[:2]) or _OTHER
