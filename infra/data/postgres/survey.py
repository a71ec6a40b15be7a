"""The survey of a server before it is backed up: its databases and what each of them needs, its roles and settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from infra.data.postgres import clients, needs, roles, server_settings
from infra.data.postgres import facts as postgres_facts
from infra.data.postgres.clients import Server
from infra.data.postgres.facts import DatabaseFacts
from infra.data.postgres.needs import Needs
from infra.errors import PlatformError

EMPTY_AT_FIRST = ("postgres", "template1")
"""Every server has them; they are backed up where somebody has put something into them."""


@dataclass(frozen=True)
class Survey:
    """The part of a server that is backed up, and the part that is not, with the reason.

    `absent`: databases of the platform that are not there. `needs`: what each database asks of a server. `roles`: all
    of them. `settings`: see `server_settings`.
    """

    chosen: tuple[DatabaseFacts, ...]
    left_out: Mapping[str, str] = field(default_factory=dict)
    absent: tuple[str, ...] = ()
    needs: Mapping[str, Needs] = field(default_factory=dict)
    roles: Sequence[Mapping[str, Any]] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)


def survey(server: Server, named: Sequence[str] = (), skipped: Sequence[str] = (), kept: bool = False) -> Survey:
    """Look at a server; nothing is touched.

    Args:
        server: where.
        named: the databases to back up; all when empty.
        skipped: databases to leave out.
        kept: whether databases count that restores have kept.

    Raises:
        PlatformError: NOT_FOUND for a named database that is missing; BACKUP_FAILED when none can be backed up.
    """
    with clients.connected(server.endpoints) as link:
        choice = postgres_facts.choose(postgres_facts.databases(link, kept), named, skipped)
        asked, all_roles = needs.shared(link), roles.read(link, server.superuser)
        settings = server_settings.read(server, link)
    looked = {d.name: needs.look(server, d.name, asked.get(d.name, Needs())) for d in choice.chosen}
    left_out = dict(choice.left_out) | {name: why for name, why in looked.items() if isinstance(why, str)}
    wanted = {
        name: found
        for name, found in looked.items()
        if isinstance(found, Needs) and (found.used or name not in EMPTY_AT_FIRST or name in named)
    }
    if not wanted:
        why = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
        raise PlatformError("BACKUP_FAILED", "no database can be backed up", why=why, steps=("invoke db.databases",))
    chosen = tuple(d for d in choice.chosen if d.name in wanted)
    return Survey(chosen, left_out, choice.absent, wanted, all_roles, settings)
