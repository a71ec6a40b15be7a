"""All stacks of this user on this machine: the list, and stopping them all."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from infra.console import Answer, Table
from infra.context import Context
from infra.errors import ExitCode, PlatformError
from infra.tasks.command import command

_LIMIT, _STOP_LIMIT = 60.0, 300.0
"""Seconds for a stack to say how it is, and to stop."""
_TURNS = 3
"""As many as there are tiers: one stack may run on several."""


@dataclass(frozen=True)
class ListedStack:
    """A stack and what its own checkout says about it; state is `unknown` where it says nothing."""

    name: str
    root: str
    home: str
    tier: str
    state: str
    ports: tuple[int, ...]


@command("list", log=False)
def list_(_: Context) -> Answer:
    """List all stacks of this user on this machine: state, tier, ports, directory.

    Example: invoke list
    """
    return listed(_all())


def listed(found: Sequence[ListedStack]) -> Answer:
    """Return the list of stacks."""
    rows = tuple((f.name, f.state, f.tier, _ports(f.ports), f.root) for f in found)
    lines = () if found else ("no stack was started on this machine yet. Next: invoke up",)
    table = Table(("STACK", "STATE", "TIER", "PORTS", "DIRECTORY"), rows, keep=(0, 1, 4))
    return Answer([vars(f) for f in found], table, lines, names=tuple(f.name for f in found))


@command()
def poweroff(context: Context) -> Answer:
    """Stop all stacks of this user on this machine; their data is kept.

    Example: invoke poweroff
    """
    return stop_all(context)


def stop_all(context: Context) -> Answer:
    """Stop every stack that runs.

    Raises:
        PlatformError: PARTIAL, naming those that still run.
    """
    from infra import machine

    known = {stack["home"]: stack for stack in machine.stacks()}
    running = [f for f in _all() if f.state != "stopped"]
    failed = [f for f in running if not _stopped(context, known[f.home])]
    stopped = [f.name for f in running if f not in failed]
    lines = tuple(f"stopped: {name}" for name in stopped) or ("nothing was running",)
    if failed:
        steps = tuple(f"in {f.root}: invoke down" for f in failed)
        raise PlatformError("PARTIAL", f"still running: {', '.join(f.name for f in failed)}", steps=steps)
    return Answer({"stopped": stopped}, lines=lines, names=tuple(stopped))


def _all() -> list[ListedStack]:
    from concurrent.futures import ThreadPoolExecutor

    from infra import machine

    known = machine.stacks()
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(_found, known))


def _found(stack: dict[str, str]) -> ListedStack:
    data, tier = _asked(stack, ("status",), _LIMIT)
    ports = sorted({port for s in data.get("services", []) for port in _ports_of(s["urls"])}) if data else []
    state = str(data.get("state", "unknown"))
    return ListedStack(stack["name"], stack["root"], stack["home"], tier or stack["tier"], state, tuple(ports))


def _asked(stack: dict[str, str], words: Sequence[str], limit: float) -> tuple[dict[str, Any], str]:
    """Run a task of another checkout, with its own version; its data and tier, ({}, '') where it gives none."""
    from infra import machine

    try:
        envelope = json.loads(machine.run(stack, [*words, "--json"], limit).out)
        return dict(envelope["data"] or {}), str(envelope["tier"])
    except (PlatformError, ValueError, KeyError, TypeError):
        return {}, ""


def _ports_of(urls: Sequence[str]) -> list[int]:
    ends = (url.rstrip("/").rpartition(":")[2] for url in urls)
    return [int(end) for end in ends if end.isdigit()]


def _ports(ports: Sequence[int]) -> str:
    return f"{ports[0]}-{ports[-1]}" if len(ports) > 1 else "".join(map(str, ports))


def _stopped(context: Context, stack: dict[str, str]) -> bool:
    """Stop a stack on each tier that it runs on; returns whether nothing runs any more."""
    from infra import machine

    context.console.say(f"stopping {stack['name']} ({stack['root']})...")
    for _ in range(_TURNS):
        try:
            done = machine.run(stack, ["down"], _STOP_LIMIT)
        except PlatformError as error:
            context.console.warn(f"{stack['name']}: {error.what}")
            return False
        state = str(_asked(stack, ("status",), _LIMIT)[0].get("state", "unknown"))
        if done.code != ExitCode.OK or state == "stopped":
            break
    if state != "stopped":
        context.console.warn(f"{stack['name']}: {done.last_line or state}")
    return state == "stopped"


TASKS = (list_, poweroff)
