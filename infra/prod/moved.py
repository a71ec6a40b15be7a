"""A laptop's snapshot brought into a site: databases beside the present ones, compared, renamed.

Temporal never moves: the number of its history shards stands in its databases and cannot change. Redis holds nothing
that lasts.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from infra import pipes, private, shell
from infra.data import store
from infra.data.postgres import packing
from infra.data.postgres.digest import Meter
from infra.data.postgres.swap import emptied
from infra.data.store import Backup
from infra.errors import PlatformError
from infra.prod.postgres import SiteServer

DATABASES = ("platform", "users", "labeler", "mlflow")
VERSIONS: Mapping[str, str] = {
    "public.alembic_version": "version_num",
    "public.schema_migrations": "number, name, sha256",
}
"""Table that says which schema a database has -> its columns that do; it may also say since when."""
LOAD_LIMIT = 3600.0
"""Seconds that the load of one database may take."""
_TABLES = """
select format('\\echo %s %s %s', :'mark', n.nspname, c.relname) || chr(10) ||
       format('copy %I.%I to stdout;', n.nspname, c.relname)
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where c.relkind = 'r' and c.relpersistence = 'p' and n.nspname !~ '^(pg_|information_schema$)' order by 1;
"""
"""Prints the rows of each table after a line with a mark and its name."""


@dataclass(frozen=True)
class Move:
    """The parts of a snapshot that are brought: databases, perhaps objects; names of what is kept end with `stamp`."""

    databases: tuple[str, ...]
    objects: bool
    left_out: Mapping[str, str]
    stamp: str

    def new(self, database: str) -> str:
        """Return the name under which a database is filled."""
        return f"{database}_new_{self.stamp}"

    def old(self, database: str) -> str:
        """Return the name under which the present database is kept."""
        return f"{database}_old_{self.stamp}"


def plan(snapshot: Backup, now: datetime | None = None) -> Move:
    """Decide what is brought; nothing is touched. Raises PlatformError NOT_FOUND when there is nothing to bring."""
    parts = snapshot.facts["parts"]
    held = parts.get("databases", {}).get("databases", {})
    empty = {name for name, entry in held.items() if entry.get("tables") == 0}
    names = tuple(name for name in DATABASES if name in held and name not in empty)
    if not names:
        raise PlatformError("NOT_FOUND", f"the snapshot {snapshot.path.name} has none of {', '.join(DATABASES)}")
    left = {name: "it is not moved between environments" for name in held if name not in names}
    left |= dict.fromkeys(sorted(empty & set(DATABASES)), "it is empty there")
    left |= {part: STAYS[part] for part in ("temporal", "redis") if part in parts}
    return Move(names, "objects" in parts, left, f"{now or datetime.now(UTC):%Y%m%d%H%M%S}")


STAYS = {
    "temporal": "its history shards are fixed in its databases",
    "redis": "it holds nothing that lasts",
}
"""Part of a snapshot that never moves into or out of a site -> why."""


def load(server: SiteServer, saved: Backup, move: Move, work: Path, pg_restore: str, say: Callable[[str], None]) -> int:
    """Fill a new database for each, and compare it with the snapshot; the present ones are not touched.

    Returns:
        the rows that were compared.

    Raises:
        PlatformError: BACKUP_FAILED, BACKUP_DAMAGED, RESTORE_DIFFERS, DATA_INCOMPATIBLE, SQL_FAILED.
    """
    rows = 0
    for name in move.databases:
        say(f"{name}: loading it into {move.new(name)}")
        owner = server.ask("select pg_get_userbyid(datdba) from pg_database where datname = :'name';", name=name)
        if not owner:
            raise PlatformError("NOT_FOUND", f"the site has no database {name}", steps=("invoke prod.status SITE",))
        create = 'create database :"new" owner :"owner" template template0;'
        server.ask(create, new=move.new(name), owner=owner)
        with unpacked(saved, name, work) as directory:
            words = ("--format=directory", "--no-owner", "--no-privileges", "--file=-", str(directory))
            _piped(server, move.new(name), owner, [pg_restore, *words])
        rows += compare(server, move.new(name), saved.facts["databases"][name])
        _same_schema(server, name, move.new(name))
    return rows


def _piped(server: SiteServer, database: str, owner: str, source: Sequence[str]) -> None:
    target = server.argv(database, first=f'set role "{owner}"')
    done = pipes.start(source, target).result(LOAD_LIMIT)
    if done.code:
        raise PlatformError("BACKUP_FAILED", f"{database} could not be loaded; nothing was changed", why=done.last_line)


@contextlib.contextmanager
def unpacked(saved: Backup, database: str, work: Path) -> Iterator[Path]:
    """Unpack the archive of a database for the block, as pg_restore reads it. Raises PlatformError BACKUP_DAMAGED."""
    folder = str(saved.facts["databases"][database]["directory"])
    target = work / folder
    private.directory(target)
    for file in saved.files:
        if not file.path.startswith(f"{folder}/"):
            continue
        name = file.path.rpartition("/")[2]
        with os.fdopen(private.new_file(target / packing.plain_name(name)), "wb") as raw:
            try:
                packing.copy(store.open_file(saved, file), raw, packing.is_packed(name))
            except ValueError as error:
                raise store.damaged(saved, file.path, f"cannot be unpacked: {error}") from error
    yield target


def compare(server: SiteServer, database: str, entry: Mapping[str, Any], snapshot: str = "") -> int:
    """Compare rows and digest of every table with a manifest; the rows.

    Args:
        snapshot: an exported snapshot of the database, where it is not the present content that is meant.

    Raises:
        PlatformError: RESTORE_DIFFERS.
    """
    wanted = {
        _table(label): (t["rows"], t["digest"]) for label, t in entry["tables"].items() if label.startswith(_DATA)
    }
    found = contents(server, database, snapshot)
    wrong = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
    if wrong:
        what = f"{database} differs from the snapshot in {len(wrong)} tables; nothing was changed"
        raise PlatformError("RESTORE_DIFFERS", what, details={"tables": wrong})
    return sum(rows for rows, _ in found.values())


_DATA = "TABLE DATA "


def _table(label: str) -> str:
    """Return schema and name of a table from its entry in an archive, which ends with its owner."""
    return label.removeprefix(_DATA).rpartition(" ")[0]


_AS_TEXT = """
set datestyle = 'ISO'; set intervalstyle = 'postgres'; set extra_float_digits = 3;
set timezone = 'UTC'; set bytea_output = 'hex'; set lc_monetary = 'C'; set xmlbinary = 'base64';
"""
"""Values as text are those of pg_dump and of our logins, whatever a site's server or a database has set."""


def contents(server: SiteServer, database: str, snapshot: str = "") -> dict[str, tuple[int, str]]:
    """Return the rows and the digest of the COPY text of every table, by schema and name. Raises PlatformError."""
    as_of = f"begin isolation level repeatable read; set transaction snapshot '{snapshot}';\n" if snapshot else ""
    mark = secrets.token_hex(16)  # rows hold any text: what begins a table is in none of them
    script = _AS_TEXT + as_of + server.ask(_TABLES, database, mark=mark) + "\n"
    done = shell.run(server.argv(database), stdin=script, check=False, limit=LOAD_LIMIT)
    if done.code:
        raise PlatformError("SQL_FAILED", f"the tables of {database} could not be read", why=done.last_line)
    found: dict[str, tuple[int, str]] = {}
    for part in done.out.split(f"{mark} ")[1:]:
        name, _, text = part.partition("\n")
        meter = Meter()
        meter.feed(text.encode())
        content = meter.content()
        found[name] = (content.rows, content.digest)
    return found


def _same_schema(server: SiteServer, present: str, new: str) -> None:
    """Refuse a schema of another version than the site's, whose servers expect their own."""
    script = "select coalesce(string_agg(t::text, ',' order by t::text), '') from (select {} from {}) t;"
    for table, columns in VERSIONS.items():
        there = [server.ask(f"select to_regclass('{table}') is not null;", name) == "t" for name in (present, new)]
        versions = [
            server.ask(script.format(columns, table), name) if has else ""
            for name, has in zip((present, new), there, strict=True)
        ]
        if all(there) and versions[0] != versions[1]:
            what = f"{present} of the snapshot has another schema than the site; nothing was changed"
            why = f"{table} says {versions[1]}, the site {versions[0]}"
            steps = ("bring the laptop to the site's version (invoke up), and make the snapshot again",)
            raise PlatformError("DATA_INCOMPATIBLE", what, why=why, steps=steps)


CLOSE_LIMIT = 10.0
"""Seconds for the clients of a site to be gone once they were ended."""


def swap(server: SiteServer, move: Move) -> None:
    """Give the new databases the names of the present ones, in one transaction; clients connect again.

    Raises:
        PlatformError: SQL_FAILED; all is as before then.
    """
    names = [n for name in move.databases for n in (name, move.new(name))]
    listed = f"array[{', '.join(repr(n) for n in names)}]"
    close = "".join(f'alter database "{name}" allow_connections false;\n' for name in move.databases)
    renamed = [pair for name in move.databases for pair in ((name, move.old(name)), (move.new(name), name))]
    rename = "".join(f'alter database "{before}" rename to "{after}";\n' for before, after in renamed)
    again = "".join(f'alter database "{move.old(name)}" allow_connections true;\n' for name in move.databases)
    try:
        server.ask(f"{close}{emptied(listed, CLOSE_LIMIT)}begin;\n{rename}commit;\n{again}")
    except PlatformError:
        opened = "".join(f'alter database "{name}" allow_connections true;\n' for name in move.databases)
        with contextlib.suppress(PlatformError):
            server.ask(opened)
        raise


def drop_new(server: SiteServer, move: Move) -> None:
    """Remove what was loaded and did not take over; after a swap there is nothing of it."""
    for name in move.databases:
        with contextlib.suppress(PlatformError):
            server.ask('drop database if exists :"new";', new=move.new(name))
