"""The way of the databases to a new major version, and back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.console import Answer
from infra.context import Context
from infra.errors import PlatformError
from infra.tasks.command import ANY, command, confirm

if TYPE_CHECKING:
    from infra.tiers.base import Tier


@command(
    tier=ANY,
    help={
        "old_bin": "native: directory with the old version's programs, if they are not found automatically",
        "old_image": "container tiers: image that can read the current data",
        "back": "go back to the directory that the last upgrade kept",
        "yes": "skip the confirmation prompt",
    },
)
def upgrade(
    context: Context,
    old_bin: str = "",
    old_image: str = "",
    back: bool = False,
    yes: bool = False,
) -> Answer:
    """Upgrade the databases to the major version of the programs or image; the old storage is kept.

    Example: invoke db.upgrade --yes
    """
    from infra import stack, tier_choice
    from infra.data.postgres import backups as postgres_backups
    from infra.data.postgres import upgrade as postgres_upgrade
    from infra.tiers import providers
    from infra.tiers.native import postgres as native_postgres

    chosen = tier_choice.choose(context).tier
    context.console.tier = chosen.name
    if chosen.from_images:
        return _by_image(context, chosen, old_image, back, yes)
    found = providers.postgres_bin(context.settings)
    present = native_postgres.place(context.settings, context.stack.tier_home(chosen.name), found, context.stack.name)
    with stack.lock(context.stack, context.console.command):
        if back:
            return _back(context, chosen, present.data, yes)
        plan = postgres_upgrade.plan(context.settings, present, found, old_bin)
        if plan is None:
            return Answer({"upgraded": False}, lines=("nothing to do: the data already has the programs' version",))
        confirm(context, plan.lines(), yes)
        ends = chosen.endpoints()
        chosen.stop()
        target = postgres_backups.default_target(context.stack)
        made = postgres_upgrade.upgrade(context.settings, ends, context.console, plan, target, context.stack.scratch)
    data = {"upgraded": True, "from": plan.old_major, "to": plan.new_major, "kept": str(plan.kept), "path": str(made)}
    lines = (f"PostgreSQL {plan.new_major}; the old directory is {plan.kept}", "Next: invoke up")
    return Answer(data, lines=(*lines, "to undo: invoke down, invoke db.upgrade --back"))


def _by_image(context: Context, chosen: Tier, old_image: str, back: bool, yes: bool) -> Answer:
    from infra import stack
    from infra.data.postgres import volume_upgrade

    if back:
        steps = ("invoke trash.restore postgres", "then set POSTGRES_IMAGE to the old image, and: invoke up")
        raise PlatformError("USAGE", f"on the {chosen.name} tier the old storage is in the trash", steps=steps)
    with stack.lock(context.stack, context.console.command):
        confirm(context, volume_upgrade.plan(chosen, old_image), yes)
        done = volume_upgrade.upgrade(chosen, old_image)
    kept = [e.name for e in done.kept]
    data = {"upgraded": True, "from": str(done.old), "to": str(done.new), "kept": kept, "path": str(done.backup)}
    lines = (f"PostgreSQL {done.new}; the storage of {done.old} is in the trash: {', '.join(kept)}", "Next: invoke up")
    way = f"to undo: invoke trash.restore {kept[0]}, POSTGRES_IMAGE={old_image} in .env, invoke up"
    return Answer(data, lines=(*lines, way))


def _back(context: Context, chosen: Any, data: Path, yes: bool) -> Answer:
    from infra.data.postgres import upgrade as postgres_upgrade

    found = postgres_upgrade.kept(data)
    plan = [f"This moves {found[-1]} back to {data}; the current directory is kept."] if found else []
    if found:
        confirm(context, plan, yes)
        chosen.stop()
    place, away, major = postgres_upgrade.back(data)
    steps = f"Next: set PLATFORM_POSTGRES_BIN to the programs of PostgreSQL {major}, then invoke up"
    return Answer({"path": str(place), "kept": str(away), "major": major}, lines=(f"{away} is kept", steps))
