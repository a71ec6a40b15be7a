"""Roles, which no dump of a database holds: read as they are, made as they were, taken away again after a failure."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from infra.data import store
from infra.data.postgres import clients
from infra.data.postgres import facts as postgres_facts
from infra.data.postgres.clients import Server
from infra.data.postgres.facts import DatabaseFacts
from infra.data.store import Backup
from infra.errors import PlatformError

if TYPE_CHECKING:
    import psycopg
    from psycopg import sql

Role = Mapping[str, Any]
Membership = Mapping[str, Any]
FILE = "roles.json"
"""The file of a backup that has them."""
MARK = "platform-infra: scratch role, may be dropped"
"""The comment of a role that is there for a verification only."""
_FLAGS = ("superuser", "inherit", "createrole", "createdb", "login", "replication", "bypassrls")
_ROLES = """
select r.rolname as name, r.rolsuper as superuser, r.rolinherit as inherit, r.rolcreaterole as createrole,
       r.rolcreatedb as createdb, r.rolcanlogin as login, r.rolreplication as replication,
       r.rolbypassrls as bypassrls, r.rolconnlimit as connections, r.rolvaliduntil::text as until, {password},
       r.oid = 10 as bootstrap, shobj_description(r.oid, 'pg_authid') as comment,
       coalesce((select s.setconfig from pg_db_role_setting s where s.setrole = r.oid and s.setdatabase = 0), '{{}}')
         as settings,
       coalesce((select json_agg(g.rolname order by 1) from pg_auth_members m join pg_roles g on g.oid = m.roleid
                 where m.member = r.oid), '[]') as member_of,
       coalesce((select json_agg(json_build_object(
                   'role', g.rolname, 'admin', m.admin_option, 'grantor', b.rolname,
                   'inherit', (to_jsonb(m)->>'inherit_option')::bool, 'set', (to_jsonb(m)->>'set_option')::bool)
                   order by g.rolname, b.rolname)
                 from pg_auth_members m join pg_roles g on g.oid = m.roleid left join pg_roles b on b.oid = m.grantor
                 where m.member = r.oid), '[]') as memberships
from pg_roles r where r.rolname !~ '^pg_' order by 1
"""
_NAMED = """
select distinct d.datname, r.rolname from pg_shdepend s
join pg_database d on d.oid = s.dbid join pg_roles r on r.oid = s.refobjid
where s.refclassid = 'pg_authid'::regclass and r.rolname !~ '^pg_' order by 1, 2
"""


def read(link: psycopg.Connection[Any], superuser: bool) -> list[dict[str, Any]]:
    """Return every role that is not predefined; its password (as the server keeps it) only where we may read that."""
    from psycopg.rows import dict_row

    password = (
        "(select rolpassword from pg_authid a where a.oid = r.oid) as password" if superuser else "null as password"
    )
    with link.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(_ROLES.format(password=password).encode()).fetchall()


def by_database(link: psycopg.Connection[Any]) -> dict[str, list[str]]:
    """Return the roles that the objects of each database name: owners, those with rights, those of policies."""
    found: dict[str, list[str]] = {}
    for database, role in link.execute(_NAMED).fetchall():
        found.setdefault(database, []).append(role)
    return found


def saved(backup: Backup) -> list[Role]:
    """Return the roles of a backup. Raises PlatformError BACKUP_DAMAGED."""
    file = next((f for f in backup.files if f.path == FILE), None)
    if file is None:
        raise store.damaged(backup, FILE, "is missing")
    store.check_files(replace(backup, files=(file,)))
    try:
        with os.fdopen(store.open_file(backup, file), encoding="utf-8") as stream:
            roles: list[Role] = list(json.load(stream))
        for role in roles:
            check(role)
    except (ValueError, TypeError, KeyError) as error:
        raise store.damaged(backup, FILE, "contains no roles") from error
    return roles


def memberships(role: Role) -> list[Membership]:
    """Return what a role is a member of, and how; of older backups only the names are known."""
    plain = {"admin": False, "inherit": None, "set": None, "grantor": None}
    found = role.get("memberships")
    return list(found) if found is not None else [{"role": name, **plain} for name in role["member_of"]]


def needed(roles: Sequence[Role], databases: Iterable[Mapping[str, Any]]) -> list[Role]:
    """Return the saved roles that databases of a backup need, with the roles they are members of and the grantors.

    A backup that does not say which roles its databases name needs all of them.
    """
    there = {role["name"]: role for role in roles}
    named = {role["name"] for role in roles if role.get("bootstrap")}  # what it owns is noted nowhere
    for entry in databases:
        named |= postgres_facts.roles_of(DatabaseFacts.of(entry)) | set(entry.get("roles", there))
    found: set[str] = set()
    while fresh := (named & there.keys()) - found:
        found |= fresh
        named = {n for role in fresh for m in memberships(there[role]) for n in (m["role"], m["grantor"]) if n}
    return [role for role in roles if role["name"] in found]


@dataclass(frozen=True)
class Todo:
    """The changes to roles: those that are created, and who becomes a member of what.

    `differing` says of roles that are there already in what they differ from the saved ones; they stay as they are,
    unless they are in `altered`.
    """

    made: tuple[Role, ...] = ()
    altered: tuple[Role, ...] = ()
    grants: tuple[tuple[str, Membership], ...] = ()
    differing: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """Return the plan for people."""
        lines = []
        if self.made:
            named = (f"{r['name']}{' (superuser)' if r['superuser'] else ''}" for r in self.made)
            lines.append(f"  missing roles are created: {', '.join(named)}")
        kept = {name: what for name, what in self.differing.items() if name not in {r["name"] for r in self.altered}}
        return lines + [
            f"  the role {name} stays as it is; the backup has other {', '.join(w)}" for name, w in kept.items()
        ]


def todo(wanted: Sequence[Role], present: Sequence[Role], alter: bool = False) -> Todo:
    """Compare saved roles with those of a server.

    Args:
        wanted: those of a backup that are needed.
        present: all roles of the server.
        alter: whether roles that are there become as the saved ones, e.g. on a server that is to replace another.
    """
    there = {role["name"]: role for role in present}
    made = tuple(role for role in wanted if role["name"] not in there)
    fresh = {role["name"] for role in made}
    other = {
        r["name"]: what for r in wanted if r["name"] in there and (what := _differences(r, there[r["name"]], fresh))
    }
    altered = tuple(role for role in wanted if alter and role["name"] in other)
    changed = fresh | {role["name"] for role in altered}
    grants = [(r["name"], m) for r in wanted for m in memberships(r) if r["name"] in changed or m["role"] in fresh]
    return Todo(made, altered, tuple(grants), other)


def _differences(saved: Role, present: Role, fresh: set[str]) -> list[str]:
    """List how a role that is there differs; memberships of roles that are created now are granted anyway."""
    found = [flag for flag in _FLAGS if saved[flag] != present[flag]]
    plain = {"connections": "connection limit", "until": "end of validity", "comment": "comment"}
    found += [word for key, word in plain.items() if saved.get(key, present[key]) != present[key]]
    if sorted(saved.get("settings", present["settings"])) != sorted(present["settings"]):
        found.append("settings")
    kept = [m for m in memberships(saved) if m["role"] not in fresh]
    if {_words(m) for m in kept} - {_words(m) for m in memberships(present)}:
        found.append("memberships")
    return found


def _words(membership: Membership) -> tuple[Any, ...]:
    return membership["role"], membership["admin"], membership["inherit"] is not False, membership["set"] is not False


def statement(role: Role, verb: str = "create") -> sql.Composed:
    """Make the statement that creates a role as it was, or alters one that is there (its password then stays)."""
    from psycopg import sql

    words = " ".join(flag if role[flag] else f"no{flag}" for flag in _FLAGS)
    text = sql.SQL(verb + " role {} with " + words + " connection limit {}").format(
        sql.Identifier(role["name"]), sql.Literal(role["connections"])
    )
    if role["password"] and verb == "create":
        text += sql.SQL(" password {}").format(sql.Literal(role["password"]))
    return text + sql.SQL(" valid until {}").format(sql.Literal(role["until"])) if role["until"] else text


def settings(role: Role) -> list[sql.Composed]:
    """Return the statements for a role's own settings and its comment."""
    from psycopg import sql

    name = sql.Identifier(role["name"])
    made = [postgres_facts.setting(sql.SQL("role {}").format(name), text) for text in role.get("settings", ())]
    if role.get("comment") is not None:
        made.append(sql.SQL("comment on role {} is {}").format(name, sql.Literal(role["comment"])))
    return made


def check(role: Role) -> None:
    """Refuse what is no role. Raises KeyError, TypeError."""
    statement(role)
    settings(role)
    for membership in memberships(role):
        grant(role["name"], membership, 180000)


def grant(member: str, membership: Membership, number: int, by: bool = True) -> sql.Composed:
    """Return the statement that makes a role a member of another, for a server of that version.

    Before 16 there is no choice but the admin option, and the grantor means nothing.
    """
    from psycopg import sql

    text = sql.SQL("grant {} to {}").format(sql.Identifier(membership["role"]), sql.Identifier(member))
    if number < 160000:
        return text + sql.SQL(" with admin option") if membership["admin"] else text
    options = {key: membership[key] for key in ("admin", "inherit", "set") if membership[key] is not None}
    text += sql.SQL(" with " + ", ".join(f"{key} {'true' if value else 'false'}" for key, value in options.items()))
    return text + sql.SQL(" granted by {}").format(sql.Identifier(membership["grantor"])) if by else text


@contextmanager
def made(server: Server, link: psycopg.Connection[Any], work: Todo) -> Iterator[dict[str, str]]:
    """Make roles for the block, for good when it succeeds: all, or none.

    Yields what the server refused of them (a setting, a membership) with the reason.

    Raises:
        PlatformError: PARTIAL naming them, when we may not.
    """
    refused = _make(server, link, work)
    try:
        yield refused
    except BaseException:
        drop(link, [role["name"] for role in work.made])
        raise


def _make(server: Server, link: psycopg.Connection[Any], work: Todo) -> dict[str, str]:
    import psycopg

    refused: dict[str, str] = {}
    try:
        with link.transaction():
            for role in work.made:
                link.execute(statement(role))
            for role in work.altered:
                link.execute(statement(role, "alter"))
            for role in (*work.made, *work.altered):
                for text in settings(role):
                    why = clients.tried(link, text)
                    refused |= {f"{text.as_string(link)}": why} if why else {}
            refused |= _granted(server, link, work.grants)
    except psycopg.errors.InsufficientPrivilege as error:
        raise _not_allowed(server, work, error) from error
    return refused


def _granted(server: Server, link: psycopg.Connection[Any], grants: Sequence[tuple[str, Membership]]) -> dict[str, str]:
    """Make members, those first whose grantors may grant already; where none may, the grantor is left out."""
    import psycopg

    left = [(member, m, bool(m["grantor"])) for member, m in grants]
    refused: dict[str, str] = {}
    while left:
        later = []
        for member, m, by in left:
            text = grant(member, m, server.number, by)
            try:
                with link.transaction():
                    link.execute(text)
            except psycopg.errors.Error as error:
                if link.closed:
                    raise
                later.append((member, m, by))
                refused[text.as_string(link)] = str(error).splitlines()[0]
            else:
                refused.pop(text.as_string(link), None)
        if len(later) == len(left):
            if not any(by for _, _, by in later):
                return refused
            refused, later = {}, [(member, m, False) for member, m, _ in later]
        left = later
    return refused


@contextmanager
def lent(link: psycopg.Connection[Any], roles: Sequence[Role], trusted: bool = True) -> Iterator[None]:
    """Have the roles that a backup names for the block, so that it can be verified on a server that lacks some.

    They cannot log in, and are superusers as in the backup only where it is trusted; those that a run which died has
    left are swept.
    """
    from psycopg import sql

    _sweep(link)
    there = {name for (name,) in link.execute("select rolname from pg_roles")}
    missing = [role for role in roles if role["name"] not in there]
    for role in missing if _may_make(link) else ():
        name, kind = (
            sql.Identifier(role["name"]),
            sql.SQL("superuser" if role["superuser"] and trusted else "nosuperuser"),
        )
        with link.transaction():  # some objects can be owned by superusers only
            link.execute(sql.SQL("create role {} nologin {}").format(name, kind))
            link.execute(sql.SQL("comment on role {} is {}").format(name, sql.Literal(MARK)))
    try:
        yield
    finally:
        if not link.closed:
            _sweep(link)


def _may_make(link: psycopg.Connection[Any]) -> bool:
    return bool((link.execute("select rolsuper from pg_roles where rolname = current_user").fetchone() or (False,))[0])


def _sweep(link: psycopg.Connection[Any]) -> None:
    mine = "select rolname from pg_roles where shobj_description(oid, 'pg_authid') = %s"
    for (name,) in link.execute(mine, (MARK,)).fetchall():
        drop(link, [name])


def _not_allowed(server: Server, work: Todo, error: Exception) -> PlatformError:
    names = [role["name"] for role in work.made]
    return PlatformError(
        "PARTIAL",
        f"{server.who} is not allowed to create the missing roles: {', '.join(names)}",
        why=str(error).splitlines()[0],
        steps=("have them made (they are in roles.sql of the backup), then restore again",),
        details={"roles": names},
    )


def drop(link: psycopg.Connection[Any], names: Sequence[str]) -> None:
    """Drop roles that nothing depends on; others stay."""
    import psycopg
    from psycopg import sql

    if not names or link.closed:
        return
    with suppress(psycopg.Error):
        if link.info.transaction_status.name not in ("IDLE", "UNKNOWN"):
            link.execute("rollback")
        link.execute(sql.SQL("drop role if exists {}").format(sql.SQL(", ").join(map(sql.Identifier, names))))
