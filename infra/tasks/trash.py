"""The trash: what reset and restores have put away, for a week."""

from __future__ import annotations

from typing import TYPE_CHECKING

from infra.console import Answer, Table, human_bytes
from infra.context import Context
from infra.errors import PlatformError
from infra.tasks.command import command, confirm

if TYPE_CHECKING:
    from infra.data.trash import Entry
    from infra.tiers.base import Tier


@command("list", log=False)
def list_(context: Context) -> Answer:
    """List what is in the trash, with its size and when it expires.

    Example: invoke trash.list
    """
    from infra.data import trash

    found = trash.entries(context.stack)
    rows = tuple((e.name, e.tier, e.service, human_bytes(e.size), _expiry(e), e.problem or e.what) for e in found)
    heading = ("ENTRY", "TIER", "SERVICE", "SIZE", "EXPIRES", "WHY")
    lines = ("Next: invoke trash.restore ENTRY",) if found else ("the trash is empty",)
    return Answer([e.data() for e in found], Table(heading, rows), lines, names=tuple(e.name for e in found))


def _expiry(entry: Entry) -> str:
    from infra.data import trash

    return "?" if entry.problem else "expired" if entry.expired else trash.utc(entry.expires)


@command(help={"entry": "an entry of trash.list, or a service for its newest", "yes": "skip the confirmation prompt"})
def restore(context: Context, entry: str, yes: bool = False) -> Answer:
    """Restore data from the trash; the current data is moved to the trash.

    Example: invoke trash.restore redis --yes
    """
    from infra import logins, stack
    from infra.data import trash

    with stack.lock(context.stack, context.console.command):
        found = trash.find(context.stack, entry)
        tier = _tier(context, found)
        present = tier.removals((found.service,))
        plan = [f"This puts {found.name} ({human_bytes(found.size)}) back:"]
        plan += [f"  {item.service:<16} {human_bytes(item.size):>8}  {item.place}" for item in found.items]
        plan += [f"The current data ({human_bytes(sum(p.size for p in present))}) is moved to the trash."] * bool(
            present
        )
        plan += ["The platform is stopped first."] if tier.running() else []
        confirm(context, plan, yes)
        _stop(tier)
        away = trash.bring_back(tier, found)
        logins.doubt(context.stack)
    data = {"restored": found.name, "service": found.service, "tier": tier.name, "trash": [e.data() for e in away]}
    return Answer(data, lines=(f"{found.service} is restored", *kept(away), "Next: invoke up"))


def _tier(context: Context, found: Entry) -> Tier:
    from infra import tier_choice

    if found.tier not in tier_choice.TIERS:
        raise PlatformError(
            "USAGE", f"{found.name} belongs to the tier {found.tier!r}, which this version does not have"
        )
    context.console.tier = found.tier
    return tier_choice.tier_of(found.tier, context)


def _stop(tier: Tier) -> None:
    from infra import lifecycle

    lifecycle.stop_others(tier.context.stack)
    tier.stop()


def kept(entries: list[Entry]) -> tuple[str, ...]:
    """List what was moved to the trash, each with the command that restores it."""
    from infra.data import trash

    rows = tuple(
        (f"  {e.service}", human_bytes(e.size), f"until {trash.utc(e.expires)}", f"invoke trash.restore {e.name}")
        for e in entries
    )
    return ("moved to the trash; to undo:", *Table(("", "", "", ""), rows).lines()) if entries else ()


@command(help={"expired": "only expired entries", "yes": "skip the confirmation prompt"})
def empty(context: Context, expired: bool = False, yes: bool = False) -> Answer:
    """Delete everything in the trash permanently, or only expired entries.

    Example: invoke trash.empty --expired --yes
    """
    from infra import stack
    from infra.data import trash

    with stack.lock(context.stack, context.console.command):
        doomed = [e for e in trash.entries(context.stack) if e.expired or not expired]
        if not doomed:
            return Answer({"removed": [], "bytes": 0}, lines=("nothing to remove",))
        plan = [f"  {e.name}  {human_bytes(e.size)}" for e in doomed]
        confirm(context, ["This permanently deletes:", *plan], yes)
        for entry in doomed:
            trash.remove(entry)
    size = sum(e.size for e in doomed)
    names = tuple(e.name for e in doomed)
    return Answer({"removed": list(names), "bytes": size}, lines=(f"removed {human_bytes(size)}",), names=names)


TASKS = (list_, restore, empty)
