"""The plan of a restore of databases, decided before anything is touched."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from infra.console import human_bytes, printable
from infra.data import store
from infra.data.postgres import clients, needs, roles, scratch, server_settings, verify
from infra.data.postgres import facts as postgres_facts
from infra.data.postgres.clients import Server
from infra.data.postgres.facts import DatabaseFacts
from infra.data.postgres.roles import Todo
from infra.data.store import Backup
from infra.errors import PlatformError

if TYPE_CHECKING:
    import psycopg

_LIVE = """
select datname, case when has_database_privilege(oid, 'connect') then pg_database_size(oid) else 0 end, datistemplate
from pg_database
"""


@dataclass(frozen=True)
class PlannedDatabase:
    """One database to restore: its name in the backup, the name it gets, and what lies under that name now.

    `live` is its size in bytes, None when there is no such database; it is kept as `old`. `new` is the name
    under which it is filled. `template`: whether what is kept is a template, which could not be dropped.
    """

    source: str
    target: str
    new: str
    old: str
    live: int | None
    facts: DatabaseFacts
    rows: int
    template: bool = False


@dataclass(frozen=True)
class RestorePlan:
    """The plan of a restore; nothing was touched to make it.

    `left_out`: databases that the server cannot take, with the reason. `notes`: what will not be as it was.
    `despite`: whether differences are only said.
    """

    backup: Backup
    items: tuple[PlannedDatabase, ...]
    roles: Todo
    left_out: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    despite: bool = False

    def lines(self) -> list[str]:
        """Return the plan for people."""
        lines = [f"This restores {self.backup.path} ({self.backup.created}):"]
        for item in self.items:
            kept = (
                f"; the current one ({human_bytes(item.live)}) is kept as {item.old}" if item.live is not None else ""
            )
            lines.append(f"  {item.source} -> {item.target}: {item.rows:,} rows{kept}")
        lines += [f"  {name}: LEFT OUT: {why}" for name, why in self.left_out.items()]
        lines += [*self.roles.lines(), *(f"  {note}" for note in self.notes)]
        lines += ["  differences are reported and accepted (--despite-differences)"] if self.despite else []
        return [printable(line) for line in lines]

    def data(self) -> dict[str, Any]:
        """Return the plan for programs."""
        items = {
            i.source: {"target": i.target, "old": i.old if i.live is not None else None, "rows": i.rows}
            for i in self.items
        }
        about_roles = {"roles": [r["name"] for r in self.roles.made], "differing": dict(self.roles.differing)}
        more = {"leftOut": dict(self.left_out), "notes": list(self.notes), "despite": self.despite}
        return {"path": str(self.backup.path), "databases": items, **about_roles, **more}


@dataclass(frozen=True)
class RestoreOrder:
    """The request for a restore.

    `names`: the databases, with the roles that they need; all databases and all roles when empty, but for the databases
    in `skipped`. `rename`: the name that the one database gets. `despite`: load what can be loaded, and take what
    differs. `replacing`: whether the server is to replace the one of the backup, so that roles which are there become
    as they were, too.
    """

    names: tuple[str, ...] = ()
    rename: str = ""
    despite: bool = False
    replacing: bool = False
    skipped: tuple[str, ...] = ()


def plan(server: Server, backup: Backup, order: RestoreOrder = RestoreOrder()) -> RestorePlan:
    """Decide what a restore does.

    Raises:
        PlatformError: USAGE, NOT_FOUND, BACKUP_DAMAGED; DATA_INCOMPATIBLE when the server can take none of them.
    """
    verify.check_versions(backup, server)
    entries = {name: backup.facts["databases"][name] for name in _chosen(backup, order)}
    lacking = needs.lacking(server, entries)
    stuck = {name: found.missing for name, found in lacking.items() if found.missing and not order.despite}
    if len(stuck) == len(entries):
        raise needs.refusal(stuck, backup.path)
    chosen = {name: entry for name, entry in entries.items() if name not in stuck}
    saved = roles.saved(backup)
    wanted = roles.needed(saved, chosen.values()) if order.names or stuck else saved
    with clients.connected(server.endpoints) as link:
        items = _items(link, chosen, order.rename)
        todo = roles.todo(wanted, roles.read(link, server.superuser), order.replacing)
        notes = (*_notes(lacking, chosen), *server_settings.differing(server, link, backup))
    left_out = {name: f"this server lacks {', '.join(what)}" for name, what in stuck.items()}
    return RestorePlan(backup, items, todo, left_out, notes, order.despite)


def _notes(lacking: Mapping[str, needs.Lacking], chosen: Iterable[str]) -> list[str]:
    missing = [f"{name}: this server lacks {what}" for name in chosen for what in lacking[name].missing]
    return missing + [f"{name}: {what}" for name in chosen for what in lacking[name].other]


def _items(
    link: psycopg.Connection[Any], chosen: Mapping[str, Mapping[str, Any]], rename: str
) -> tuple[PlannedDatabase, ...]:
    live = {name: (size, template) for name, size, template in link.execute(_LIVE).fetchall()}
    if rename in live:
        steps = ("give another name with --to, or omit --to to replace the current one",)
        raise PlatformError("USAGE", f"there is already a database {rename}", steps=steps)
    when = scratch.stamp()
    return tuple(_item(source, entry, rename or source, live, when) for source, entry in chosen.items())


def _item(
    source: str, entry: Mapping[str, Any], target: str, live: Mapping[str, tuple[int, bool]], when: str
) -> PlannedDatabase:
    new, old = (scratch.named(target, kind, when) for kind in ("new", "old"))
    rows = sum(int(t["rows"]) for t in entry["tables"].values())
    size, template = live.get(target, (None, False))
    return PlannedDatabase(source, target, new, old, size, DatabaseFacts.of(entry), rows, template)


def _chosen(backup: Backup, order: RestoreOrder) -> list[str]:
    there, rename = list(backup.facts["databases"]), order.rename
    missing = [n for n in order.names if n not in there]
    if missing:
        why = "; ".join(f"{n}: {backup.facts.get('left_out', {}).get(n, 'not in it')}" for n in missing)
        steps = (f"it contains: {', '.join(there)}", "invoke db.list shows the others")
        raise PlatformError("NOT_FOUND", f"the backup contains no database {', '.join(missing)}", why=why, steps=steps)
    chosen = list(dict.fromkeys(order.names)) or [name for name in there if name not in order.skipped]
    if rename and len(chosen) != 1:
        raise PlatformError("USAGE", "--to applies to one database", steps=("select it: --database NAME --to NEW",))
    if postgres_facts.OURS.search(rename) or len(rename.encode()) > postgres_facts.LONGEST_NAME:
        raise PlatformError("USAGE", f"--to {rename}: not a valid name for a database", steps=("choose another",))
    return chosen


def check_files(made: RestorePlan) -> None:
    """Compare the files that the plan needs with the manifest. Raises PlatformError BACKUP_DAMAGED."""
    directories = {made.backup.facts["databases"][i.source]["directory"] for i in made.items}
    files = tuple(f for f in made.backup.files if f.path.split("/")[0] in {*directories, roles.FILE})
    store.check_files(replace(made.backup, files=files))
