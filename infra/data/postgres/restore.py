"""Restore databases by swap: filled and compared beside the live ones, which then change names in one transaction."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.data.postgres import clients, copies, reasons, scratch
from infra.data.postgres import facts as postgres_facts
from infra.data.postgres import roles as postgres_roles
from infra.data.postgres.backup import Event, silent
from infra.data.postgres.children import Children
from infra.data.postgres.clients import Server
from infra.data.postgres.copies import Loaded
from infra.data.postgres.load import LoadOrder, Room
from infra.data.postgres.restore_plan import PlannedDatabase, RestorePlan, check_files
from infra.data.postgres.swap import apart, idle, swap

if TYPE_CHECKING:
    import psycopg

_DISABLED = """
select d.datname, s.subname from pg_subscription s join pg_database d on d.oid = s.subdbid
where not s.subenabled and d.datname = any (%s) order by 1, 2
"""
DESPITE = "platform-infra: restored despite differences from"
"""Beginning of the comment of a database that differs from its backup."""


@dataclass(frozen=True)
class Restored:
    """The outcome of a restore.

    Seconds to load all databases, seconds to verify them (the files before, the content after), and milliseconds
    during which clients were turned away. `disabled` are subscriptions (database, name) that wait for their owner:
    enabled beside the one that has the data now, they would take changes away from each other. `refused` are
    statements that the server did not take, `left_out` databases that were not restored, each with the reason;
    `differences` are in what databases differ that were to be restored all the same.
    """

    databases: Mapping[str, Mapping[str, Any]]
    load_seconds: float
    check_seconds: float
    swap_ms: float
    disabled: tuple[tuple[str, str], ...] = ()
    refused: Mapping[str, str] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    differences: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def whole(self) -> bool:
        """Return whether all is as it was in the backup."""
        return not (self.refused or self.left_out or self.differences)


def restore(server: Server, made: RestorePlan, work: Path, event: Event = silent) -> Restored:
    """Carry out a plan; live databases are touched only by the last step, which is one transaction for all.

    A database that cannot be loaded, or that is not what was backed up, is left out and the others are restored.

    Raises:
        PlatformError: BACKUP_DAMAGED, BACKUP_FAILED, RESTORE_DIFFERS (when none can be restored), PARTIAL (roles),
            LOCKED, UNREACHABLE; the live ones are as before.
    """
    began = time.monotonic()
    check_files(made)
    read = time.monotonic() - began
    children = Children()
    with (
        scratch.alone(server, "db.restore") as held,
        scratch.workspace(work) as space,
        apart(server, held, made.items) as link,
        postgres_roles.made(server, link, made.roles) as refused,
        _dropped(server, link, made, children),
    ):
        names = {item.source: item.new for item in made.items}
        loaded = copies.loaded(LoadOrder(server, made.backup, names, Room(space), children, made.despite), event)
        items = [_marked(i, made, loaded) for i in made.items if i.source in loaded.archives]
        for item in items:
            refused |= _set(link, item)
        swapped = swap(server, link, items)
        disabled = tuple(link.execute(_DISABLED, ([i.target for i in items],)).fetchall())
    event("swapped", {"ms": swapped})
    return replace(_report(made, items, loaded, read, swapped), disabled=disabled, refused=refused)


@contextmanager
def _dropped(server: Server, link: psycopg.Connection[Any], made: RestorePlan, children: Children) -> Iterator[None]:
    """Drop what is left of the scratch databases at the end; after a swap there are none."""
    import psycopg

    try:
        yield
    finally:
        children.stop()
        try:
            idle(link)
            for item in made.items:
                scratch.dropped(server, link, item.new)
        except psycopg.OperationalError:
            pass  # the server went away: the next run sweeps


def _marked(item: PlannedDatabase, made: RestorePlan, loaded: Loaded) -> PlannedDatabase:
    """Return the item; a database that differs gets that into its comment."""
    found = loaded.differences.get(item.source)
    if not found:
        return item
    said = f"{DESPITE} {made.backup.path.name}: {len(found)}, the first: {found[0]}"
    return replace(item, facts=replace(item.facts, comment="\n".join(filter(None, [said, item.facts.comment]))))


def _set(link: psycopg.Connection[Any], item: PlannedDatabase) -> dict[str, str]:
    """Set what a database sets for its sessions; returns what the server refused, with the reason."""
    texts = postgres_facts.own_settings(item.facts, item.new)
    refused = {text.as_string(link).replace(item.new, item.target): clients.tried(link, text) for text in texts}
    return {text: why for text, why in refused.items() if why}


def _report(
    made: RestorePlan, items: Sequence[PlannedDatabase], loaded: Loaded, read: float, swapped: float
) -> Restored:
    databases = {}
    for item in items:
        old = {"database": item.target, "old": item.old if item.live is not None else None}
        databases[item.source] = {**old, **copies.contents(loaded.archives[item.source])}
    left_out = {**made.left_out, **{name: reasons.in_words(e) for name, e in loaded.failed.items()}}
    load, check = round(loaded.load_seconds, 3), round(read + loaded.check_seconds, 3)
    return Restored(databases, load, check, swapped, left_out=left_out, differences=loaded.differences)
