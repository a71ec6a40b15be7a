"""Completion in shells: the scripts, and the table of words that they choose from."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import invoke

from infra.console import Answer
from infra.context import Context
from infra.errors import PlatformError
from infra.tasks.command import command
from infra.tasks.shorthand import ALIASES

KINDS: Mapping[str, str] = {
    **dict.fromkeys(("tier", "service", "output", "bucket", "shell", "job"), ""),
    **{"one": "job", "other": "job", "store": "store", "database": "database"},
}
"""Option or argument -> the kind of its values, '' for the one of that name."""
ARGUMENTS: Mapping[str, str] = {"snapshot": "snapshot", "db": "backup"}
"""Namespace -> the kind of what its tasks call `name` or `from`."""
STARTS: Mapping[str, tuple[str, ...]] = {
    "bash": (".bashrc",),
    "zsh": (".zshrc",),
    "fish": (".config", "fish", "config.fish"),
    "powershell": (".config", "powershell", "Microsoft.PowerShell_profile.ps1"),
}
"""Shell -> the file below the home directory that it reads when it starts."""
MARK = "# completion of the command platform"


@command(help={"shell": "bash, zsh, fish, powershell; default: that of $SHELL", "install": "add it to its profile"})
def completion(_: Context, shell: str = "", install: bool = False) -> Answer:
    """Print the script by which a shell completes tasks, options and values of the command `platform`.

    Example: invoke completion --shell bash --install
    """
    from infra.completion import SCRIPTS

    name = shell or Path(os.environ.get("SHELL", "powershell")).stem
    if name not in SCRIPTS:
        raise PlatformError("USAGE", f"unknown shell {name!r}", steps=(f"--shell with one of {', '.join(SCRIPTS)}",))
    if not install:
        return Answer({"shell": name, "script": SCRIPTS[name]}, lines=tuple(SCRIPTS[name].splitlines()))
    profile = _profile(name)
    changed = installed(profile, SCRIPTS[name])
    text = f"added to {profile}; new terminals have it" if changed else f"{profile} has it already"
    return Answer({"shell": name, "profile": str(profile), "changed": changed}, lines=(text,))


def _profile(shell: str) -> Path:
    if shell == "powershell" and sys.platform == "win32":
        return Path.home() / "Documents" / "PowerShell" / STARTS[shell][-1]
    return Path.home().joinpath(*STARTS[shell])


def installed(profile: Path, script: str) -> bool:
    """Add a script to a shell's profile, in place of the one that is there; returns whether anything changed.

    Raises:
        PlatformError: STATE_UNWRITABLE.
    """
    block = f"{MARK}: begin\n{script}{MARK}: end\n"
    try:
        before = profile.read_text(encoding="utf-8") if profile.exists() else ""
        head, begin, rest = before.partition(f"{MARK}: begin\n")
        after = rest.partition(f"{MARK}: end\n")[2] if begin else ""
        gap = "" if not head or head.endswith("\n") else "\n"
        text = f"{head}{gap}{block}{after}"
        if text != before:
            profile.parent.mkdir(parents=True, exist_ok=True)
            profile.write_text(text, encoding="utf-8", newline="\n")  # through a link, as dotfiles often are
    except (OSError, UnicodeDecodeError) as error:
        steps = ("invoke completion prints the script: add it to the profile by hand",)
        raise PlatformError("STATE_UNWRITABLE", f"{profile} cannot be changed", why=str(error), steps=steps) from error
    return text != before


def table(tasks: invoke.Collection) -> str:
    """Return as JSON what completion chooses from: tasks with options and places, their other names, values by kind."""
    from infra import catalog
    from infra.console import FORMATS, SHELLS
    from infra.endpoints import STORES

    names = sorted(str(name) for name in tasks.task_names)
    rows = ",\n".join(f"  {json.dumps(name)}: {json.dumps(_entry(name, tasks[name]))}" for name in names)
    others = {f"{n.rpartition('.')[0]}.{w}".lstrip("."): n for n in names for w, v in ALIASES.items() if _is(n, v)}
    values = {
        "tier": list(catalog.TIERS),
        "service": [service.name for service in catalog.SERVICES],
        "output": list(FORMATS),
        "bucket": [bucket.name for bucket in catalog.BUCKETS],
        "shell": [*SHELLS],
        "store": list(STORES),
        "database": [database.name for database in catalog.DATABASES],
    }
    return f'{{"tasks": {{\n{rows}\n}},\n"aliases": {json.dumps(others)},\n"values": {json.dumps(values)}}}\n'


def _is(name: str, verb: str) -> bool:
    return name.rpartition(".")[2] == verb


def _entry(name: str, task: Any) -> dict[str, Any]:
    options: dict[str, str] = {}
    places: list[str] = []
    for argument in task.get_arguments():
        kind = _kind(name, str(argument.name))
        flags = [f"--{n}" if len(n) > 1 else f"-{n}" for n in argument.names]
        options |= dict.fromkeys(flags, kind or "text" if argument.takes_value else "")
        places += [kind] if argument.positional and kind else []
    if "--service" in options:
        places.append("service")
    return {"options": options, "places": places}


def _kind(task: str, argument: str) -> str:
    if argument in ("name", "from") and task.partition(".")[0] in ARGUMENTS:
        return ARGUMENTS[task.partition(".")[0]]
    return (KINDS[argument] or argument) if argument in KINDS else ""


TASKS = (completion,)
