"""Needs of a database from the server that it is restored on, and which of them a server lacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from infra.data.postgres import clients, roles
from infra.data.postgres.clients import Server
from infra.errors import PlatformError

if TYPE_CHECKING:
    import psycopg
    from psycopg import sql

# 16384 is the first number of an object that somebody has made (FirstNormalObjectId).
_USED = """
select exists (
  select from pg_class c join pg_namespace n on n.oid = c.relnamespace
  where c.oid >= 16384 and n.nspname !~ '^pg_(toast|temp)'
  union all select from pg_namespace where oid >= 16384 and nspname !~ '^pg_(toast_)?temp'
  union all select from pg_proc where oid >= 16384
  union all select from pg_type t join pg_namespace n on n.oid = t.typnamespace
            where t.oid >= 16384 and n.nspname !~ '^pg_(toast|temp)'
  union all select from pg_extension where oid >= 16384
  union all select from pg_event_trigger
  union all select from pg_publication
  union all select from pg_subscription where subdbid = (select oid from pg_database where datname = current_database())
  union all select from pg_foreign_data_wrapper
  union all select from pg_default_acl
  union all select from pg_largeobject_metadata)
"""
_TABLESPACES = """
select d.datname, t.spcname from pg_tablespace t, pg_tablespace_databases(t.oid) used join pg_database d on d.oid = used
where t.spcname not in ('pg_default', 'pg_global') order by 1, 2
"""
_EXTENSIONS = "select extname, extversion from pg_extension where oid >= 16384 order by 1"
# One that every server of a kind has is known by its name, one that somebody has made by its locale.
_COLLATIONS = """
select case when c.oid < 16384 then c.collname end, c.collprovider::text,
       coalesce(to_jsonb(c)->>'colllocale', to_jsonb(c)->>'colliculocale', c.collcollate)
from pg_collation c
where c.collprovider in ('i', 'c', 'b') and c.collname not in ('C', 'POSIX')
  and (c.oid >= 16384 or c.oid in (select refobjid from pg_depend where refclassid = 'pg_collation'::regclass)
       or c.oid in (select attcollation from pg_attribute where attrelid >= 16384))
order by 1, 2, 3
"""
_XML = """
select format('select from %I.%I where %I is not null', n.nspname, c.relname, a.attname)
from pg_attribute a join pg_class c on c.oid = a.attrelid join pg_namespace n on n.oid = c.relnamespace
where a.atttypid = 'xml'::regtype and c.oid >= 16384 and c.relkind = 'r' and not a.attisdropped
"""


@dataclass(frozen=True)
class Needs:
    """The needs of a database from a server.

    `extensions` are versions by name; `collations` are (name, provider, locale), with a name for those that come with
    a server, and the locale of the database itself first; `xml` says that there are values of that type, for which a
    server must have libxml. `used` is whether the database holds anything.
    """

    roles: tuple[str, ...] = ()
    tablespaces: tuple[str, ...] = ()
    extensions: Mapping[str, str] = field(default_factory=dict)
    collations: tuple[tuple[str | None, str, str], ...] = ()
    xml: bool = False
    used: bool = True

    def data(self) -> dict[str, Any]:
        """Return them for a manifest."""
        return {
            "roles": list(self.roles),
            "tablespaces": list(self.tablespaces),
            "extensions": dict(self.extensions),
            "collations": [list(c) for c in self.collations],
            "xml": self.xml,
        }

    def lines(self) -> list[str]:
        """Describe in words what not every server has."""
        kinds = {"i": "icu", "c": "libc", "b": "builtin"}
        found = [f"extension {name} {version}".rstrip() for name, version in self.extensions.items()]
        special = [c for c in self.collations if c[2] not in ("C", "POSIX", "C.UTF-8", "C.utf8")]
        locales = [f"locale {name or place} ({kinds.get(kind, kind)})" for name, kind, place in special]
        return [*found, *locales, *(["XML"] if self.xml else []), *(f"tablespace {name}" for name in self.tablespaces)]

    @staticmethod
    def of(entry: Mapping[str, Any]) -> Needs:
        """Read them from a manifest; an earlier version's has the names of extensions, and the locale of the whole."""
        named = (o.split()[2] for o in entry.get("objects", ()) if o.startswith("EXTENSION - "))
        own = (None, entry["provider"], entry["locale"] or entry["collate"])
        other = [(name, provider, locale) for name, provider, locale in entry.get("collations", ())]
        return Needs(
            tuple(entry.get("roles", ())),
            tuple(entry.get("tablespaces", ())),
            entry.get("extensions", dict.fromkeys(named, "")),
            tuple([own, *other] if entry["encoding"] == "UTF8" else other),
            bool(entry.get("xml", False)),
        )


_NOT_HERE = {"0A000", "22023", "42704", "42809"}
"""SQLSTATEs of PostgreSQL 18 where it lacks ICU or libxml, or knows no such locale of libc, ICU or its own."""

IN_A_SNAPSHOT = ("encoding", "provider", "locale", "collate", "extensions", "collations", "xml", "tablespaces")
"""The fields of a database that the manifest of a snapshot has, too, so that it says what a server must have."""


def shared(link: psycopg.Connection[Any]) -> dict[str, Needs]:
    """Read what each database needs of what all databases of a server share: roles and tablespaces."""
    found = {name: Needs(roles=tuple(named)) for name, named in roles.by_database(link).items()}
    for name, tablespace in link.execute(_TABLESPACES).fetchall():
        known = found.get(name, Needs())
        found[name] = replace(known, tablespaces=(*known.tablespaces, tablespace))
    return found


def look(server: Server, database: str, known: Needs) -> Needs | str:
    """Look inside a database for what it needs; or return why it accepts no connection.

    Raises:
        PlatformError: the server itself does not answer.
    """
    import psycopg

    try:
        with clients.open_connection(server.endpoints, database) as link:
            return _looked(link, known)
    except psycopg.Error as error:
        with clients.connected(server.endpoints):
            lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1].strip()


def _looked(link: psycopg.Connection[Any], known: Needs) -> Needs:
    tables = link.execute(_XML).fetchall()
    xml = any(link.execute(f"{text} limit 1".encode()).fetchone() is not None for (text,) in tables)
    extensions = dict(link.execute(_EXTENSIONS).fetchall())
    collations = tuple(link.execute(_COLLATIONS).fetchall())
    used = bool((link.execute(_USED.encode()).fetchone() or (True,))[0])
    return replace(known, extensions=extensions, collations=collations, xml=xml, used=used)


@dataclass(frozen=True)
class Lacking:
    """Needs that a server lacks: `missing` keeps a database from being restored, `other` is only worth knowing."""

    missing: tuple[str, ...] = ()
    other: tuple[str, ...] = ()


class Offer:
    """The offer of a server; asked over a connection in whose transactions nothing stays."""

    def __init__(self, link: psycopg.Connection[Any], number: int) -> None:
        self.link, self.number = link, number
        self.extensions: dict[str, str] = dict(
            link.execute("select name, default_version from pg_available_extensions").fetchall()
        )
        self.collations = {name for (name,) in link.execute("select collname from pg_collation where oid < 16384")}
        self.tablespaces = {name for (name,) in link.execute("select spcname from pg_tablespace")}

    def lacking(self, needs: Needs) -> Lacking:
        """Return which of a database's needs are not here."""
        missing = [f"the extension {name}" for name in needs.extensions if name not in self.extensions]
        locales = [(provider, locale) for name, provider, locale in needs.collations if name is None]
        missing += [why for provider, locale in dict.fromkeys(locales) if (why := self._no_locale(provider, locale))]
        missing += [f"the collation {n}" for n, _, _ in needs.collations if n and n not in self.collations]
        if any(provider == "i" for n, provider, _ in needs.collations if n) and (why := self._no_locale("i", "und")):
            missing.append(why)
        missing += (
            ["support for XML (libxml)"] if needs.xml and not self._takes("select xmlparse(content '<a/>')") else []
        )
        return Lacking(tuple(dict.fromkeys(missing)), tuple(self._other(needs)))

    def _other(self, needs: Needs) -> list[str]:
        versions = {n: (v, self.extensions[n]) for n, v in needs.extensions.items() if v and n in self.extensions}
        found = [f"the extension {n} was {old} and becomes {new}" for n, (old, new) in versions.items() if old != new]
        return found + [
            f"the tablespace {name} is not here: what lies in it goes to the default one"
            for name in needs.tablespaces
            if name not in self.tablespaces
        ]

    def _no_locale(self, provider: str, locale: str) -> str:
        from psycopg import sql

        kinds = {"i": "icu", "c": "libc", "b": "builtin"}
        if locale in ("C", "POSIX") or provider not in kinds or (provider == "b" and self.number < 170000):
            return ""
        text = sql.SQL("create collation pg_temp.asked (provider = {}, locale = {})")
        made = self._takes(text.format(sql.SQL(kinds[provider]), sql.Literal(locale)))
        return "" if made else f"the locale {locale} of {kinds[provider]}"

    def _takes(self, text: sql.Composed | str) -> bool:
        """Return whether the server does something; it is undone at once.

        Raises:
            psycopg.Error: it failed for another reason than that the server lacks it, e.g. it is read-only.
        """
        import psycopg

        try:
            with self.link.transaction(force_rollback=True):
                self.link.execute(text if not isinstance(text, str) else text.encode())
        except psycopg.errors.InsufficientPrivilege:
            return True  # not known: the restore itself will say
        except psycopg.DatabaseError as error:
            if error.sqlstate not in _NOT_HERE:
                raise
            return False
        return True


def lacking(server: Server, databases: Mapping[str, Mapping[str, Any]]) -> dict[str, Lacking]:
    """Find what a server lacks for databases of a backup, by their names; nothing is touched.

    Args:
        server: where they are to go.
        databases: their entries in the manifest, of a backup or of a snapshot.
    """
    with clients.connected(server.endpoints) as link:
        offer = Offer(link, server.number)
        return {name: offer.lacking(Needs.of(e)) for name, e in databases.items()}


def refusal(stuck: Mapping[str, Sequence[str]], path: object) -> PlatformError:
    """Return the error where a server can take none of the databases that are wanted."""
    return PlatformError(
        "DATA_INCOMPATIBLE",
        f"this server cannot take {', '.join(stuck)}; nothing was touched",
        why="; ".join(f"{name} needs {', '.join(what)}" for name, what in stuck.items()),
        steps=(
            "restore to a server that has it, e.g. another tier (--tier) or another image (POSTGRES_IMAGE)",
            "or take over what can be loaded: add --despite-differences",
        ),
        details={"path": str(path), "lacking": {name: list(what) for name, what in stuck.items()}},
    )
