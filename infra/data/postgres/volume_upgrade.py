"""PostgreSQL to a new major version where it runs from an image: backup by the old one, new storage, restore, compare.

The old storage is moved to the trash before the new server starts: to undo, `trash.restore postgres`, and the old
image in the setting.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from infra.data import store, trash
from infra.data.postgres import backups as postgres_backups
from infra.data.postgres import clients, verify
from infra.data.postgres import upgrade as postgres_upgrade
from infra.data.postgres.clients import Server
from infra.data.store import Backup
from infra.errors import PlatformError
from infra.tiers.base import Tier

SERVICE, IMAGE = "postgres", "POSTGRES_IMAGE"


@dataclass(frozen=True)
class Upgraded:
    """The outcome of an upgrade: major versions, the backup that it made, where the old storage is kept."""

    old: int
    new: int
    backup: Path
    kept: tuple[trash.Entry, ...]


def plan(tier: Tier, old_image: str) -> list[str]:
    """Describe what an upgrade would do; nothing is touched.

    Raises:
        PlatformError: USAGE without the old image; NOT_FOUND without data.
    """
    removals = tier.removals((SERVICE,))
    if not removals:
        raise PlatformError("NOT_FOUND", f"there are no databases on the {tier.name} tier", steps=("invoke up",))
    if not old_image:
        raise PlatformError(
            "USAGE",
            "the image that can read the current data is not known",
            steps=("specify it: invoke db.upgrade --old-image IMAGE:TAG", f"{IMAGE} in .env sets the new one"),
        )
    new = tier.context.settings.text(IMAGE) or "this version's default"
    return [
        f"This moves the databases in {', '.join(r.place for r in removals)} to a new major version of PostgreSQL:",
        "  the platform is stopped",
        f"  the image {old_image} starts once more with the data, and a backup is made and verified",
        "  the current storage is moved to the trash",
        f"  the image {new} creates new storage, the backup is restored into it and compared",
    ]


def upgrade(tier: Tier, old_image: str) -> Upgraded:
    """Carry it out; the caller holds the stack's lock. PostgreSQL of the new version runs at the end.

    Raises:
        PlatformError: what backup and restore raise; DATA_INCOMPATIBLE when the new image is not newer. The old
            storage is in its place again then.
    """
    former = tier.with_context(tier.context.with_values({IMAGE: old_image}, "--old-image"))
    tier.stop()
    try:
        former.start((SERVICE,), None)
        before, saved = _saved(former)
    finally:
        former.stop()
    kept = trash.put(tier, tier.removals((SERVICE,)), f"db.upgrade from PostgreSQL {before // 10000}")
    try:
        tier.start((SERVICE,), None)
        after = _filled(tier, saved, before)
    except BaseException:
        tier.stop()
        for entry in kept:
            trash.bring_back(tier, entry)
        raise
    return Upgraded(before // 10000, after // 10000, saved.path, tuple(kept))


def _saved(tier: Tier) -> tuple[int, Backup]:
    server = clients.find_server(tier.endpoints(), tier.context.settings)
    target = postgres_backups.default_target(tier.context.stack)
    with store.locked(target, "db.upgrade"):
        return server.number, postgres_upgrade.save(server, tier.context.console, target, tier.context.stack.scratch)


def _filled(tier: Tier, saved: Backup, before: int) -> int:
    needed = verify.client_needed(saved)
    server = clients.find_server(tier.endpoints(), tier.context.settings, needed)
    if server.number // 10000 <= before // 10000:
        old, new = (clients.version_text(n) for n in (before, server.number))
        raise PlatformError(
            "DATA_INCOMPATIBLE",
            f"nothing to upgrade: the data belongs to PostgreSQL {old}, the image in {IMAGE} has {new}",
            why="an upgrade needs a newer major version; the data is back in its place",
            steps=(f"set {IMAGE} to the new image, and --old-image to the current one",),
        )
    done = postgres_upgrade.fill(server, tier.context.console, saved, tier.context.stack.scratch)
    _drop_empty(server, [str(d["old"]) for d in done.databases.values() if d["old"]])
    return server.number


def _drop_empty(server: Server, names: list[str]) -> None:
    """Drop the databases that the image had created in the new storage a moment before."""
    from psycopg import sql

    with clients.connected(server.endpoints) as link:
        for name in names:
            link.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))
