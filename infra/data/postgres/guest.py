"""A login without rights of the server, as which backups that were made elsewhere are loaded for a verification.

Their SQL is somebody else's. This login owns the scratch database and nothing more: it is no superuser, so it can run
no program, read no file of the server, create no function in C and no extension that the server does not trust, and no
session of a superuser is opened in that database. What needs more is left out and named.
"""

from __future__ import annotations

import contextlib
import re
import secrets
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from infra import shell
from infra.data.postgres import roles
from infra.data.postgres.clients import Server
from infra.data.postgres.dump import ArchiveEntry
from infra.endpoints import Login
from infra.errors import PlatformError

if TYPE_CHECKING:
    import psycopg

OPTIONS = ("--no-owner", "--no-privileges", "--no-tablespaces", "--verbose")
"""Of pg_restore: everything belongs to the guest, and of a failure it is said which entry is meant."""
_PROGRESS = re.compile(r"^pg_restore: (?!error: |warning: |detail: |hint: )[^\n]*\n?", re.MULTILINE)
_OWNERS = ("pg_database_owner",)
_RIGHTS = ("ACL ", "DEFAULT ACL ")
_LEFT_OUT = (*_RIGHTS, "SECURITY LABEL ", "SUBSCRIPTION ", "EVENT TRIGGER ", "FOREIGN DATA WRAPPER ")
"""Kinds of entries that only a superuser can create, or that name rights of roles; known without asking the server."""
_ROWS = ("TABLE DATA ", "SEQUENCE SET ", "BLOB", "LARGE OBJECT")
_ENTRY = re.compile(r"from TOC entry (\d+); \d+ \d+ ")
_DENIED = re.compile(
    r"error: [^\n]*ERROR: +((?:permission denied|must be |only (?:superusers?|roles with)|only the bootstrap"
    r"|password is required)[^\n]*)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Guest:
    """The server as the guest sees it; `skipped` has what was left out of each database: entry -> why."""

    server: Server
    owners: tuple[str, ...] = ()
    skipped: dict[str, dict[str, str]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The role."""
        return self.server.endpoints.postgres.user

    def label(self, found: str, saved: Container[str]) -> str:
        """Return what a backup calls an entry of the copy, where the guest owns everything."""
        plain = found.removesuffix(f" {self.name}")
        named = (plain, *(f"{plain} {owner}" for owner in (*self.owners, *_OWNERS)))
        return next((label for label in named if label in saved), found)

    def compared(self, database: str, labels: Iterable[str]) -> list[str]:
        """Return those entries that the copy must have: without rights, and what was left out."""
        gone = self.skipped.get(database, {})
        return [label for label in labels if label not in gone and not label.startswith(_RIGHTS)]


@contextlib.contextmanager
def logged_in(server: Server, link: psycopg.Connection[Any], saved: Sequence[roles.Role]) -> Iterator[Guest]:
    """Have the role for the block; what a run that died has left is swept with the roles that were lent to it.

    Args:
        server: as the superuser sees it.
        link: a session of the superuser, outside of scratch databases.
        saved: the roles of the backup, any of which may own its objects.
    """
    login = Login(f"platform_guest_{secrets.token_hex(4)}", secrets.token_urlsafe(24))
    _create(link, login)
    ends = replace(server.endpoints, postgres=login)
    try:
        yield Guest(replace(server, endpoints=ends, superuser=False), tuple(str(role["name"]) for role in saved))
    finally:
        roles.drop(link, [login.user])


def _create(link: psycopg.Connection[Any], login: Login) -> None:
    """Create the role; the server speaks English to it, since what it says is read here."""
    from psycopg import sql

    name = sql.Identifier(login.user)
    until = (link.execute("select (now() + interval '7 days')::text").fetchone() or ("",))[0]
    texts = [
        sql.SQL(
            "create role {} login nosuperuser nocreatedb nocreaterole noreplication bypassrls noinherit"
            " connection limit 64 password {} valid until {}"
        ).format(name, sql.Literal(login.password), sql.Literal(until)),
        sql.SQL("comment on role {} is {}").format(name, sql.Literal(roles.MARK)),
        sql.SQL("alter role {} set lc_messages to 'C'").format(name),
    ]
    with link.transaction():
        for text in texts:
            link.execute(text)


def own(link: psycopg.Connection[Any], guest: Guest, database: str) -> None:
    """Give a scratch database to the guest, and let nobody else in."""
    from psycopg import sql

    target, name = sql.Identifier(database), sql.Identifier(guest.name)
    link.execute(sql.SQL("revoke all on database {} from public").format(target))
    link.execute(sql.SQL("alter database {} owner to {}").format(target, name))


def failures(result: shell.Result) -> shell.Result:
    """Return what pg_restore has said without its progress, in which names of the backup could look like errors."""
    return replace(result, out=_PROGRESS.sub("", result.out))


def to_leave_out(entries: Mapping[str, ArchiveEntry]) -> dict[str, str]:
    """Return the numbers of entries that are not for the guest, with why; and of what depends on them."""
    first = {
        number: "only a superuser can create it"
        for number, entry in entries.items()
        if entry.label.startswith(_LEFT_OUT)
    }
    return _with_dependents(entries, first)


def denied(result: shell.Result, entries: Mapping[str, ArchiveEntry]) -> dict[str, str]:
    """Return the entry that pg_restore was not allowed to create, with what depends on it; none for other failures."""
    refusal = _DENIED.search(result.out)
    numbers = _ENTRY.findall(result.out[: refusal.start()]) if refusal else []
    if not refusal or not numbers or numbers[-1] not in entries:
        return {}
    return _with_dependents(entries, {numbers[-1]: refusal[1].strip()})


def _with_dependents(entries: Mapping[str, ArchiveEntry], first: Mapping[str, str]) -> dict[str, str]:
    found = dict(first)
    causes = {number: f"needs {entries[number].label}: {why}" for number, why in first.items()}
    fresh = set(first)
    while fresh:
        fresh = {n for n, entry in entries.items() if n not in found and entry.needs & found.keys()}
        causes |= {n: causes[min(entries[n].needs & causes.keys())] for n in fresh}
        found |= {n: causes[n] for n in fresh}
    return found


def unchecked(guest: Guest, database: str) -> list[str]:
    """Return the entries of a database that were not loaded, apart from rights."""
    return sorted(label for label in guest.skipped.get(database, {}) if not label.startswith(_RIGHTS))


def require_rows(guest: Guest, database: str) -> None:
    """Refuse a copy that lacks rows, as they are what a verification is for.

    Raises:
        PlatformError: TRUST_NEEDED with what was not loaded.
    """
    gone = guest.skipped.get(database, {})
    rows = next((label for label in gone if label.startswith(_ROWS)), "")
    if rows:
        raise PlatformError(
            "TRUST_NEEDED",
            f"{database} cannot be verified without the rights of a superuser",
            why=f"{rows}: {gone[rows]}",
            steps=("if you trust who made it: the same command with --trust", "see docs/backup.md, Trust"),
            details={"database": database, "left_out": unchecked(guest, database)},
        )
