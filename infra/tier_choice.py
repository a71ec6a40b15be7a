"""The tier of a run: named, running, used last, or the best that this machine can run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from infra import catalog, stack
from infra.context import Context
from infra.endpoints import Endpoints
from infra.errors import PlatformError, nearest
from infra.tiers.base import Availability, Tier


@dataclass(frozen=True)
class Choice:
    """A tier and why it was taken; `named` when the user asked for it."""

    tier: Tier
    reason: str
    named: bool


def tiers(context: Context) -> Mapping[str, Tier]:
    """Return all tiers of this version, best first."""
    return {name: made(context) for name, made in TIERS.items()}


def tier_of(name: str, context: Context) -> Tier:
    """Return one tier; what the others are made of is not imported.

    Raises:
        PlatformError: USAGE for a name that this version does not have.
    """
    if name not in TIERS:
        raise PlatformError("USAGE", f"there is no tier {name!r}", steps=(f"use one of {', '.join(TIERS)}",))
    return TIERS[name](context)


def _compose(context: Context) -> Tier:
    from infra.tiers.compose.tier import Compose

    return Compose(context)


def _native(context: Context) -> Tier:
    from infra.tiers.native.tier import Native

    return Native(context)


def _kind(context: Context) -> Tier:
    from infra.tiers.kind.tier import Kind

    return Kind(context)


TIERS: Mapping[str, Callable[[Context], Tier]] = {"compose": _compose, "native": _native, "kind": _kind}
"""Every tier, best first; each is imported when it is used, since commands start faster without the others."""


def choose(context: Context, known: Mapping[str, Tier] | None = None) -> Choice:
    """Decide on a tier: flag or PLATFORM_TIER, else the one that runs, else the last one used, else the best.

    Raises:
        PlatformError: TIER_UNAVAILABLE when the named tier, or every tier, cannot run here.
    """
    settings = context.settings
    asked = settings.text("PLATFORM_TIER")
    if known is None:
        known = {asked: tier_of(asked, context)} if asked else tiers(context)
    if asked:
        return Choice(_usable(known[asked]), f"set by {settings.origin('PLATFORM_TIER')}", named=True)
    last = known.get(stack.remembered(context.stack, "tier"))
    for tier in sorted(known.values(), key=lambda t: t is not last):  # the others' engines are asked only if need be
        if tier.running():
            return Choice(tier, "it runs", named=False)
    if last is not None and last.available().ok:
        return Choice(last, "it was used last", named=False)
    return _best(known)


def _usable(tier: Tier) -> Tier:
    found = tier.available()
    if not found.ok:
        raise PlatformError(
            found.code,
            f"the {tier.name} tier cannot run on this machine",
            why=found.reason,
            steps=(*found.steps, "or omit --tier to choose automatically"),
        )
    return tier


def _best(known: Mapping[str, Tier]) -> Choice:
    refused: list[str] = []
    steps: list[str] = []
    for tier in known.values():
        found: Availability = tier.available()
        if found.ok and found.prefer:
            because = f"{found.reason}; {'; '.join(refused)}" if refused else found.reason
            return Choice(tier, because, named=False)
        refused.append(f"{tier.name}: {found.reason}")
        steps += found.steps
    for tier in known.values():
        if (found := tier.available()).ok:
            return Choice(tier, found.reason, named=False)
    raise PlatformError(
        "TIER_UNAVAILABLE", "no tier can run on this machine", why="; ".join(refused), steps=tuple(steps)
    )


def require_running(choice: Choice) -> Tier:
    """Return the tier, provided that it runs.

    Raises:
        PlatformError: NOT_RUNNING.
    """
    if not choice.tier.running():
        raise PlatformError(
            "NOT_RUNNING", "the platform is not running", steps=("invoke up", "./scripts/start-infra.sh")
        )
    return choice.tier


def running_endpoints(context: Context) -> Endpoints:
    """Return the endpoints of the running platform, for tasks that use it.

    Raises:
        PlatformError: NOT_RUNNING.
    """
    return require_running(choose(context)).endpoints()


def known_services(names: Sequence[str], tier: Tier) -> None:
    """Refuse names that are no services of the tier, with the nearest one.

    Raises:
        PlatformError: USAGE.
    """
    offered = [s.name for s in catalog.offered(tier.name)]
    for name in names:
        if name in offered:
            continue
        gap = next((g for g in catalog.gaps(tier.name) if g.feature == name), None)
        raise PlatformError(
            "USAGE",
            f"no service {name!r} on the {tier.name} tier",
            why=gap.reason if gap else "",
            steps=(*nearest(name, offered), f"the services are: {', '.join(offered)}"),
        )
