"""Older than this checkout, as after `git pull`: its packages, and the programs that it has started."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

from infra.context import Context
from infra.tiers.base import Check


def packages(root: Path) -> list[Check]:
    """Check that `.venv` has what this checkout asks for, e.g. after `git pull`; [] for another environment."""
    from infra.stack import read_json

    stamp = read_json(root / ".venv" / ".platform-stamp.json") if Path(sys.prefix) == root / ".venv" else None
    if stamp is None:
        return []
    wanted = hashlib.sha256((root / "requirements" / "platform.txt").read_bytes()).hexdigest()
    if stamp.get("platform") == wanted:
        return [Check("packages", "ok", ".venv has the packages of this checkout")]
    script = root / "scripts" / ("start-infra.ps1" if sys.platform == "win32" else "start-infra.sh")
    return [Check("packages", "warn", ".venv is older than this checkout", f"{script} brings it up to date")]


def programs(context: Context) -> list[Check]:
    """Name what runs our own code and was started before that changed, e.g. by `git pull`; [] where nothing."""
    from infra.supervision import age

    found = age.outdated(context.stack.home, context.settings.root)
    remedy = "invoke down, then invoke up: data stays, interrupted trainings continue"
    text = f"started by an earlier version of this checkout: {', '.join(found)}"
    return [Check("outdated", "warn", text, remedy)] if found else []
