"""Facts of one database that its dump does not hold: its owner, rights, settings and locale."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from infra import catalog
from infra.errors import PlatformError

if TYPE_CHECKING:
    import psycopg
    from psycopg import sql

SKIPPED = "left out as asked for"
STAMP = r"\d{17}"
"""Digits that end the names of databases that we make: UTC to the millisecond."""
LONGEST_NAME = 63
"""Bytes of a name that PostgreSQL keeps (NAMEDATALEN - 1)."""
OURS = re.compile(rf"_(old|new|check)_{STAMP}$")
_DATABASES = """
select d.datname as name, pg_get_userbyid(d.datdba) as owner, d.datacl::text[] as acl,
       pg_encoding_to_char(d.encoding) as encoding, d.datcollate as collate, d.datctype as ctype,
       coalesce(to_jsonb(d)->>'datlocprovider', 'c') as provider,
       coalesce(to_jsonb(d)->>'datlocale', to_jsonb(d)->>'daticulocale') as locale,
       d.datconnlimit as connections, shobj_description(d.oid, 'pg_database') as comment,
       coalesce((select json_agg(json_build_array(coalesce(r.rolname, ''), s.setconfig) order by 1)
                 from pg_db_role_setting s left join pg_roles r on r.oid = s.setrole
                 where s.setdatabase = d.oid), '[]') as settings,
       case when has_database_privilege(d.oid, 'connect') then pg_database_size(d.oid) else 0 end as size,
       d.datistemplate as template, coalesce(to_jsonb(d)->>'daticurules', '') as icu_rules, t.spcname as tablespace,
       case when d.datconnlimit = -2 then 'a drop of it was cut short: drop database'
            when not d.datallowconn then 'it takes no connections: alter database ... allow_connections true'
            when not has_database_privilege(d.oid, 'connect') then current_user || ' may not connect to it'
            else '' end as closed
from pg_database d join pg_tablespace t on t.oid = d.dattablespace where d.datname <> 'template0' order by d.datname
"""


@dataclass(frozen=True)
class DatabaseFacts:
    """A database as `create database` and `alter database` would have to describe it; `size` in bytes."""

    name: str
    owner: str
    acl: list[str] | None
    encoding: str
    collate: str
    ctype: str
    provider: str
    locale: str | None
    connections: int
    comment: str | None
    settings: list[Any]
    size: int
    template: bool = False
    icu_rules: str = ""
    tablespace: str = "pg_default"

    def data(self) -> dict[str, Any]:
        """Return it for a manifest."""
        return asdict(self)

    @staticmethod
    def of(data: Mapping[str, Any]) -> DatabaseFacts:
        """Read it from a manifest. Raises PlatformError BACKUP_DAMAGED."""
        try:
            return DatabaseFacts(**{n: data[n] for n in DatabaseFacts.__dataclass_fields__ if n in data})
        except TypeError as error:
            raise PlatformError("BACKUP_DAMAGED", "the manifest lacks facts of a database", why=str(error)) from error


def databases(link: psycopg.Connection[Any], kept: bool = False) -> dict[str, tuple[DatabaseFacts, str]]:
    """Read every database but template0 (and those that restores have made, unless `kept`), with why nobody gets in."""
    from psycopg.rows import dict_row

    with link.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(_DATABASES.encode()).fetchall()
    closed = {row["name"]: row.pop("closed") for row in rows}
    found = [DatabaseFacts(**row) for row in rows]
    return {d.name: (d, closed[d.name]) for d in found if kept or not OURS.search(d.name)}


@dataclass(frozen=True)
class DatabaseChoice:
    """Databases to back up, those that are left out with the reason, and those of the platform that are not there."""

    chosen: tuple[DatabaseFacts, ...]
    left_out: Mapping[str, str]
    absent: tuple[str, ...] = ()


def choose(
    there: Mapping[str, tuple[DatabaseFacts, str]], named: Sequence[str], skipped: Sequence[str]
) -> DatabaseChoice:
    """Choose the databases to back up: the named ones, else all.

    Raises:
        PlatformError: NOT_FOUND naming those that were asked for and are missing.
    """
    missing = [name for name in (*named, *skipped) if name not in there]
    if missing:
        steps = (f"there are: {', '.join(there)}", "invoke up makes the missing databases of the platform")
        raise PlatformError("NOT_FOUND", f"there is no database {', '.join(missing)}", steps=steps)
    chosen = [there[name] for name in (dict.fromkeys(named) if named else there) if name not in skipped]
    left_out = {d.name: closed for d, closed in chosen if closed} | dict.fromkeys(skipped, SKIPPED)
    absent = [d.name for d in catalog.DATABASES if d.name not in there and not named]
    return DatabaseChoice(tuple(d for d, closed in chosen if not closed), left_out, tuple(absent))


def create_statement(facts: DatabaseFacts, name: str, server: int) -> sql.Composed:
    """Make `create database` with the encoding and locale of the original, from template0."""
    from psycopg import sql

    options = {"encoding": facts.encoding, "lc_collate": facts.collate, "lc_ctype": facts.ctype}
    providers = {"i": ("icu", "icu_locale"), "b": ("builtin", "builtin_locale")}
    if facts.provider in providers and server >= 150000:
        options["locale_provider"], key = providers[facts.provider]
        options[key] = facts.locale or "C"
        options |= {"icu_rules": facts.icu_rules} if facts.icu_rules and server >= 160000 else {}
    parts = [sql.SQL(f" {key} {{}}").format(sql.Literal(value)) for key, value in options.items()]
    return sql.SQL("create database {} template template0").format(sql.Identifier(name)) + sql.Composed(parts)


def setting_statements(facts: DatabaseFacts, name: str) -> list[sql.Composed]:
    """Make the statements that give database `name` owner, connection limit, comment and rights of the original."""
    from psycopg import sql

    target = sql.Identifier(name)
    statements = [
        sql.SQL("alter database {} owner to {}").format(target, sql.Identifier(facts.owner)),
        sql.SQL("alter database {} connection limit {}").format(target, sql.Literal(facts.connections)),
        sql.SQL("comment on database {} is {}").format(target, sql.Literal(facts.comment)),
    ]
    if facts.template:
        statements.append(sql.SQL("alter database {} is_template true").format(target))
    return statements + (_rights(facts, target) if facts.acl is not None else [])


def own_settings(facts: DatabaseFacts, name: str) -> list[sql.Composed]:
    """Make the statements of the settings that database `name` has for its sessions, all or those of a role."""
    from psycopg import sql

    database = sql.SQL("database {}").format(sql.Identifier(name))
    statements = []
    for role, settings in facts.settings:
        whom = sql.SQL("role {} in {}").format(sql.Identifier(role), database) if role else database
        statements += [setting(whom, text) for text in settings]
    return statements


# Settings whose value is a list of names: quoted as a whole they would be one name.
_LISTS = {"search_path", "session_preload_libraries", "local_preload_libraries", "temp_tablespaces"}


def setting(whom: sql.Composable, text: str) -> sql.Composed:
    """Return the statement for one setting (`name=value`) of a database, a role, or a role in a database."""
    from psycopg import sql

    key, _, value = text.partition("=")
    if key.lower() in _LISTS:
        words = [w.strip().replace('""', '"') for w in re.findall(r'"(?:[^"]|"")*"|[^,]+', value) if w.strip()]
        names = [w[1:-1] if len(w) > 1 and w[0] == w[-1] == '"' else w for w in words]
        literal: sql.Composable = sql.SQL(", ").join(sql.Literal(n) for n in names)
    else:
        literal = sql.Literal(value)
    named = sql.SQL(".").join(map(sql.Identifier, key.split(".")))
    return sql.SQL("alter {} set {} to {}").format(whom, named, literal)


_RIGHTS = {"C": "create", "T": "temporary", "c": "connect"}


def parse_acl(item: str) -> tuple[str, list[tuple[str, bool]]]:
    """Parse role ('' is everybody) and rights (with grant option?) from an entry such as `bob=C*c/admin`.

    Raises:
        ValueError: for text that is no such entry.
    """
    found = re.fullmatch(r'("(?:[^"]|"")*"|[^=]*)=((?:[CTc]\*?)*)/.*', item, re.DOTALL)
    if found is None:
        raise ValueError(item)
    role = found[1][1:-1].replace('""', '"') if found[1].startswith('"') else found[1]
    return role, [(_RIGHTS[m[1]], bool(m[2])) for m in re.finditer(r"([CTc])(\*?)", found[2])]


def _rights(facts: DatabaseFacts, target: sql.Identifier) -> list[sql.Composed]:
    from psycopg import sql

    made = [sql.SQL("revoke all on database {} from public").format(target)]
    made.append(sql.SQL("revoke all on database {} from {}").format(target, sql.Identifier(facts.owner)))
    for role, rights in map(parse_acl, facts.acl or []):
        whom: sql.Composable = sql.Identifier(role) if role else sql.SQL("public")
        for right, option in rights:
            grant = sql.SQL("grant {} on database {} to {}").format(sql.SQL(right), target, whom)
            made.append(grant + sql.SQL(" with grant option") if option else grant)
    return made


def roles_of(facts: DatabaseFacts) -> set[str]:
    """Return the roles that the database's own owner, rights and settings name."""
    named = {facts.owner, *(role for role, _ in facts.settings)}
    return (named | {parse_acl(item)[0] for item in facts.acl or []}) - {""}
