"""The checks of `doctor`: what the preflight of a tier asks, and what only a person wants to know."""

from __future__ import annotations

import platform
import sys
from collections.abc import Sequence

from infra import health, lifecycle
from infra.errors import PlatformError
from infra.tiers.base import Check, Context, Tier

MINIMUM_PYTHON = (3, 11)


def checks(context: Context, tier: Tier, obs: bool) -> list[Check]:
    """All findings, those of the machine first; never raises for a failed check."""
    found = [_python(), *_settings(context)]
    try:
        found += tier.preflight(context, tier.selection(context, obs, ()))
    except PlatformError as error:
        found.append(Check(error.code.lower(), "fail", error.what, "; ".join(error.steps), error.code))
        return found
    if tier.running(context):
        found += _answers(context, tier)
    return found


def _python() -> Check:
    version = platform.python_version()
    if sys.version_info < MINIMUM_PYTHON:
        return Check("python", "fail", f"Python {version} is too old", "install Python 3.11 or newer")
    return Check("python", "ok", f"Python {version}, {platform.system()} {platform.machine()}")


def _settings(context: Context) -> list[Check]:
    moved = [n for n, v in context.settings.values.items() if v.origin != "default"]
    listed = ", ".join(f"{n} ({context.settings.origin(n)})" for n in moved)
    return [Check("settings", "ok", listed or "all settings have their defaults")]


def _answers(context: Context, tier: Tier) -> list[Check]:
    ends = tier.endpoints(context)
    questions = health.thorough(ends, lifecycle.psql(context.settings))
    remedy = "invoke up makes what is missing; invoke logs -s SERVICE shows why it fails"
    return [
        Check(f"answer.{name}", "ok" if f.ok else "fail", f.detail or f"{name} works", "" if f.ok else remedy)
        for name, f in health.ask(questions).items()
    ]


def worst(found: Sequence[Check]) -> str:
    """The worst status among checks: fail, warn or ok."""
    return next((s for s in ("fail", "warn") if any(c.status == s for c in found)), "ok")
