"""The stacks of this user on this machine: each has a small file, so that every directory's tasks find the others."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

from infra import private
from infra.stack import Stack, write_atomic


def register(stack: Stack, root: Path, tier: str, running: bool) -> None:
    """Note that a stack was started or stopped; silent where the user's directory takes no writes."""
    import platform_launcher

    entry = {"name": stack.name, "root": str(root), "home": str(stack.home), "tier": tier}
    with contextlib.suppress(OSError, RuntimeError):
        directory = platform_launcher.registry()
        directory.mkdir(mode=private.CLOSED, parents=True, exist_ok=True)
        text = json.dumps(entry | {"running": "yes" if running else "no"}) + "\n"
        write_atomic(directory / f"{stack.name}.json", text, mode=0o600, sync=False)
