"""Production: a laptop's snapshot brought into a site, and a site's snapshot for a laptop."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.console import Answer
from infra.context import Context
from infra.errors import PlatformError
from infra.tasks.command import command, directory, named
from infra.tasks.prod_site import SITE, cluster

if TYPE_CHECKING:
    from infra.data.objects.client import Client
    from infra.data.snapshot.create import SnapshotOrder
    from infra.data.store import Backup
    from infra.prod.cluster import Cluster
    from infra.prod.moved import Move
    from infra.prod.site import Site


def brought(context: Context, site: str, name: str, identity: str, trust: bool, yes: bool) -> Answer:
    """Bring a snapshot's databases and objects into a site; what is there is kept.

    Raises:
        PlatformError: USAGE, NOT_FOUND, BACKUP_DAMAGED, RESTORE_DIFFERS, DATA_INCOMPATIBLE; nothing was changed then.
    """
    from infra.data import maker
    from infra.data.snapshot import create, restore
    from infra.prod import moved
    from infra.prod.site import load

    here = load(site, context.settings.root)
    if here.engine("postgres") != "cloudnativepg":
        raise PlatformError("USAGE", "PostgreSQL of this site is external: load it with its own tools")
    found = create.find(create.default_target(context.stack), name)
    move = moved.plan(found)
    lines = _lines(found, move, here)
    if not yes:
        data = {"site": here.name, "done": False, "databases": list(move.databases), "leftOut": dict(move.left_out)}
        return Answer(data, lines=(*lines, "nothing was changed; to do it: --yes"))
    maker.require_trust(context.stack.home, found, trust)
    there = cluster(context, here)
    with restore.opened(context, found, identity) as content:
        rows = _databases(context, here, there, content, move)
        objects = _objects(context, here, there, content) if move.objects else {}
    kept = [move.old(database) for database in move.databases]
    said = (
        f"{rows} rows and {objects.get('written', 0) + objects.get('unchanged', 0)} objects are those of the snapshot"
    )
    data = {"site": here.name, "done": True, "databases": list(move.databases), "leftOut": dict(move.left_out)}
    return Answer({**data, "rows": rows, "objects": objects, "kept": kept}, lines=(said, f"kept: {', '.join(kept)}"))


@command(
    iterable=("encrypt",),
    help={
        "site": SITE,
        "name": "name of the snapshot",
        "to": "snapshot directory (default: snapshots in the state directory)",
        "encrypt": "encrypt it for this recipient: age1..., or an SSH public key; repeatable",
        "skip_objects": "leave out the objects, e.g. where roles and not keys give access to them",
    },
)
def snapshot(
    context: Context, site: str, encrypt: list[str], name: str = "", to: str = "", skip_objects: bool = False
) -> Answer:
    """Take a snapshot of a site's databases and objects for another tier; nothing is changed there.

    Example: invoke prod.snapshot example --name from-production
    """
    from infra.data.snapshot import create
    from infra.prod.site import load

    here = load(site, context.settings.root)
    if here.engine("postgres") != "cloudnativepg":
        raise PlatformError("USAGE", "PostgreSQL of this site is external: dump it with its own tools")
    there, target = cluster(context, here), directory(to, create.default_target(context.stack))
    parts = ("databases",) if skip_objects else ("databases", "objects")
    made, rows = _taken(context, here, there, create.SnapshotOrder(target, name, parts, recipients=tuple(encrypt)))
    known = named(made.path, create.default_target(context.stack), name)
    lines = (f"{made.path}", f"{rows} rows are those of {here.name}", f"next: invoke snapshot.restore {known}")
    facts = {"site": here.name, "path": str(made.path), "rows": rows, "parts": made.facts["parts"]}
    return Answer(facts, lines=lines, names=(str(made.path),))


def _taken(context: Context, site: Site, there: Cluster, order: SnapshotOrder) -> tuple[Backup, int]:
    """Make and publish the snapshot of a site; the snapshot, and the rows that were compared with the site."""
    from infra.data import store
    from infra.data.snapshot import age, create
    from infra.prod import moved

    recipients, began = age.recipients(order.recipients), time.monotonic()
    with store.locked(order.target, "prod.snapshot"):
        create.refuse_taken(order)
        with store.publishing(order.target, create.KIND) as (draft, facts):
            content = draft.directory / create.CONTENT
            content.mkdir(mode=0o700)
            parts, rows = _filled(context, site, there, content, order)
            facts |= {"label": order.label, "why": "", "tier": "production", "stack": site.name, "parts": parts}
            facts |= {"leftOut": dict(moved.STAYS), "quiesce": [], "recipients": list(order.recipients)}
            create.seal(draft, content, recipients)
            facts |= {"seconds": round(time.monotonic() - began, 3)}
    return store.load(Path(facts["path"])), rows


def _filled(
    context: Context, site: Site, there: Cluster, content: Path, order: SnapshotOrder
) -> tuple[dict[str, Any], int]:
    """Fill the parts of a site's snapshot: first the databases, then the objects that their rows point at."""
    from infra.data.objects import backup as objects
    from infra.data.postgres import clients, scratch
    from infra.data.snapshot import create
    from infra.prod import taken
    from infra.prod.postgres import SiteServer
    from infra.tiers.native import passing_server

    with scratch.workspace(context.stack.scratch) as work, passing_server.running(context, work) as ends:
        target, source = clients.find_server(ends, context.settings), SiteServer(there, site.postgresql)
        where = content / "databases"
        where.mkdir(mode=0o700)
        noted = functools.partial(create.note_references, ends, content)
        saved, rows = taken.backup(source, target, where, context.console, noted)
    parts = {"databases": create.databases_part(saved)}
    if "objects" in order.parts:
        where = content / "objects"
        where.mkdir(mode=0o700)
        with _stores(site, there) as stores:
            known = create.seeds(context.stack, order)
            parts["objects"] = create.objects_part(stores, where, objects.Tally(), known)
    return parts, rows


def _lines(found: Backup, move: Move, site: Site) -> list[str]:
    lines = [f"This brings the snapshot {found.path.name} into {site.name}:"]
    lines += [f"  {name}: the present one is kept as {move.old(name)}" for name in move.databases]
    lines += (
        ["  objects: those of the snapshot replace others of the same name; all others stay"] if move.objects else []
    )
    return lines + [f"  {name} LEFT OUT: {why}" for name, why in move.left_out.items()]


def _databases(context: Context, site: Site, there: Cluster, content: Path, move: Move) -> int:
    from infra.data.postgres import clients, scratch
    from infra.data.snapshot import verify
    from infra.prod import lease, moved
    from infra.prod.postgres import SiteServer

    saved = verify.databases(content)
    verify.check(content, {"databases": {}})
    tools = clients.find_clients(context.settings, int(saved.facts["client"]["number"]))
    server = SiteServer(there, site.postgresql)
    with lease.held(there), scratch.workspace(context.stack.scratch) as work:
        try:
            rows = moved.load(server, saved, move, work, tools.program("pg_restore"), context.console.say)
            context.console.say("the new databases take over; clients connect again")
            moved.swap(server, move)
        finally:
            moved.drop_new(server, move)
    return rows


def _objects(context: Context, site: Site, there: Cluster, content: Path) -> dict[str, Any]:
    from infra.data.objects import restore as objects
    from infra.data.objects.upload import Uploads
    from infra.data.snapshot import verify

    saved = verify.objects(content)
    with _stores(site, there) as clients:
        plans = objects.plan(clients, saved, ())
        context.console.say(f"objects: {sum(p.missing + p.different for p in plans)} to write")
        said = objects.RestoredObjects()
        uploads = Uploads(context.stack.home / objects.UPLOADS)
        objects.restore(objects.Restore(clients, saved, plans, uploads), said)
    if said.refused:
        what = f"{len(said.refused)} objects were refused; the databases are those of the snapshot"
        raise PlatformError("PARTIAL", what, details={"refused": dict(list(said.refused.items())[:20])})
    return {"written": said.written, "unchanged": said.same, "bytes": said.size}


@contextlib.contextmanager
def _stores(site: Site, there: Cluster) -> Iterator[Mapping[str, Client]]:
    """Open clients of the site's stores for the block, through forwards where they are in the cluster."""
    from infra.data.objects import backup as objects
    from infra.prod import buckets, connect

    values, _ = connect.variables(there)
    wanted = {name: text for name, text in values.items() if "STORAGE" in name or name == "AWS_DEFAULT_REGION"}
    with connect.opened(there, connect.targets(there, list(wanted.values()), ())) as forwards:
        prefix = str(site.part("s3")["bucketPrefix"])
        logins = buckets.logins(connect.here(wanted, forwards, Path()), prefix)
        with objects.connected(logins) as made:
            yield made
