"""The way of the databases to a new major version, and back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.console import Answer
from infra.errors import PlatformError
from infra.tasks.command import Run, command, confirm

if TYPE_CHECKING:
    from infra.tiers.base import Tier


@command(
    help={
        "old_bin": "native: directory with the programs of the old version, where they are not found",
        "old_image": "tiers of containers: the image that can read the present data",
        "back": "go back to the directory that the last upgrade has kept",
        "yes": "do not ask",
        "tier": "tier to use",
    }
)
def upgrade(
    run: Run, old_bin: str = "", old_image: str = "", back: bool = False, yes: bool = False, tier: str = ""
) -> Answer:
    """Move the databases to the major version of the programs, or of the image; the old storage is kept.

    Example: invoke db.upgrade --yes
    """
    from infra import lifecycle, stack
    from infra.data.postgres import backup as postgres_backup
    from infra.data.postgres import upgrade as postgres_upgrade
    from infra.tiers import providers
    from infra.tiers.native import postgres as native_postgres

    chosen = lifecycle.choose(run.context).tier
    run.console.tier = chosen.name
    if chosen.name != "native":
        return _by_image(run, chosen, old_image, back, yes)
    found = providers.postgres_bin(run.settings)
    present = native_postgres.place(run.settings, run.stack.tier_home(chosen.name), found, run.stack.name)
    with stack.lock(run.stack, run.console.command):
        if back:
            return _back(run, chosen, present.data, yes)
        plan = postgres_upgrade.plan(run.settings, present, found, old_bin)
        if plan is None:
            return Answer({"upgraded": False}, lines=("nothing to do: the data is of the programs' version",))
        confirm(run, plan.lines(), yes)
        ends = chosen.endpoints(run.context)
        chosen.stop(run.context)
        target = postgres_backup.default_target(run.stack)
        made = postgres_upgrade.upgrade(run.settings, ends, run.console, plan, target, run.stack.scratch)
    data = {"upgraded": True, "from": plan.old_major, "to": plan.new_major, "kept": str(plan.kept), "path": str(made)}
    lines = (f"PostgreSQL {plan.new_major}; the old directory is {plan.kept}", "Next: invoke up")
    return Answer(data, lines=(*lines, "the way back: invoke down, invoke db.upgrade --back"))


def _by_image(run: Run, chosen: Tier, old_image: str, back: bool, yes: bool) -> Answer:
    from infra import stack
    from infra.data.postgres import volume_upgrade

    if back:
        steps = ("invoke trash.restore postgres", "then set POSTGRES_IMAGE to the old image, and: invoke up")
        raise PlatformError("USAGE", f"on the tier {chosen.name} the old storage is in the trash", steps=steps)
    with stack.lock(run.stack, run.console.command):
        confirm(run, volume_upgrade.plan(run.context, chosen, old_image), yes)
        done = volume_upgrade.upgrade(run.context, chosen, old_image)
    kept = [e.name for e in done.kept]
    data = {"upgraded": True, "from": str(done.old), "to": str(done.new), "kept": kept, "path": str(done.backup)}
    lines = (f"PostgreSQL {done.new}; the storage of {done.old} is in the trash: {', '.join(kept)}", "Next: invoke up")
    way = f"the way back: invoke trash.restore {kept[0]}, POSTGRES_IMAGE={old_image} in .env, invoke up"
    return Answer(data, lines=(*lines, way))


def _back(run: Run, chosen: Any, data: Path, yes: bool) -> Answer:
    from infra.data.postgres import upgrade as postgres_upgrade

    found = postgres_upgrade.kept(data)
    plan = [f"This puts {found[-1]} back in the place of {data}; the present one is kept."] if found else []
    if found:
        confirm(run, plan, yes)
        chosen.stop(run.context)
    place, away, major = postgres_upgrade.back(data)
    steps = f"Next: set PLATFORM_POSTGRES_BIN to the programs of PostgreSQL {major}, then invoke up"
    return Answer({"path": str(place), "kept": str(away), "major": major}, lines=(f"{away} is kept", steps))
