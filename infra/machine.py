"""The stacks of this user on this machine: each has a small file, so that every directory's tasks find the others."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from infra import catalog, private, shell
from infra.errors import PlatformError
from infra.settings import ENVIRONMENT, Settings, Value
from infra.stack import Stack, write_atomic

STATE_DIR = "PLATFORM_STATE_DIR"


def register(stack: Stack, settings: Settings, tier: str, running: bool) -> None:
    """Note that a stack was started or stopped; silent where the user's directory takes no writes.

    What a shell has set (as POSTGRES_PORT) is noted, too: another shell asks the stack with the same; secrets are not.
    """
    import platform_launcher

    entry = {"name": stack.name, "root": str(settings.root), "home": str(stack.home), "tier": tier}
    given = {name: value.text for name, value in settings.values.items() if _of_the_shell(name, value)}
    entry["given"] = json.dumps(given)
    with contextlib.suppress(OSError, RuntimeError):
        directory = platform_launcher.registry()
        directory.mkdir(mode=private.CLOSED, parents=True, exist_ok=True)
        text = json.dumps(entry | {"running": "yes" if running else "no"}) + "\n"
        write_atomic(directory / f"{stack.name}.json", text, mode=0o600, sync=False)


def _of_the_shell(name: str, value: Value) -> bool:
    return value.origin == ENVIRONMENT and catalog.SETTINGS[name].kind != "secret" and name != STATE_DIR


def stacks() -> list[dict[str, str]]:
    """Return the stacks of this user: name, root, home, tier, running (yes or no), given, as they were noted last."""
    import platform_launcher

    try:
        return platform_launcher.known_stacks(platform_launcher.registry())
    except (OSError, RuntimeError):
        return []


def run(stack: Mapping[str, str], words: Sequence[str], limit: float) -> shell.Result:
    """Run a task of a stack's own checkout, with the settings that it was started with and none of this run.

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
    given = dict(json.loads(stack.get("given") or "{}"))
    given |= {STATE_DIR: stack["home"]} if Path(stack["home"]) != root / ".platform" else {}
    argv = [str(python), str(root / "platform_launcher.py"), platform_launcher.HERE, *words]
    return shell.run(argv, env=given, without=ours - set(given), limit=limit, check=False)
