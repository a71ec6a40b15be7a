"""The stacks of this user on this machine: each has a small file, so that every directory's tasks find the others."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from infra import catalog, private, shell
from infra.errors import PlatformError
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


def stacks() -> list[dict[str, str]]:
    """Return the stacks of this user: name, root, home, tier, running (yes or no), as they were noted last."""
    import platform_launcher

    try:
        return platform_launcher.known_stacks(platform_launcher.registry())
    except (OSError, RuntimeError):
        return []


def run(stack: Mapping[str, str], words: Sequence[str], limit: float) -> shell.Result:
    """Run a task of a stack's own checkout, without the settings of this one.

    Raises:
        PlatformError: PROGRAM_MISSING, WAIT_TIMEOUT.
    """
    import platform_launcher

    root = Path(stack["root"])
    try:
        python = platform_launcher.python_of(root)
    except platform_launcher.NoCheckout as problem:
        raise PlatformError("PROGRAM_MISSING", str(problem), steps=problem.steps) from problem
    ours = {name for name in os.environ if name in catalog.SETTINGS or name.startswith("PLATFORM_")}
    home = {"PLATFORM_STATE_DIR": stack["home"]} if Path(stack["home"]) != root / ".platform" else {}
    argv = [str(python), str(root / "platform_launcher.py"), platform_launcher.HERE, *words]
    return shell.run(argv, env=home, without=ours - set(home), limit=limit, check=False)
