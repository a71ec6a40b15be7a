"""The order in a command line: the built-in training, or a program with its directory and environment."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from infra.errors import PlatformError

if TYPE_CHECKING:
    from infra.tiers.base import Tier
    from infra.training.client import Order
    from infra.training.runners import How

OR_CPU = "with --gpus: train on the processor where there are too few, instead of refusing"
"""Help of an option."""


def order(epochs: int, experiment: str, command: str, given: Mapping[str, str], *, located: bool) -> Order:
    """Build an order.

    Args:
        given: the variables that --env and --env-file name.
        located: whether the program is one of this machine, which then runs as in the caller's shell.

    Raises:
        PlatformError: USAGE, PROGRAM_MISSING.
    """
    from infra.training import command_line, environment, record
    from infra.training.client import Order
    from infra.training.config import MOST_EPOCHS, TrainingConfig

    if not 1 <= epochs <= MOST_EPOCHS:
        raise PlatformError(
            "USAGE", f"--epochs {epochs} is not between 1 and {MOST_EPOCHS}", steps=("invoke train.run --epochs 15",)
        )
    if len(experiment) > 100 or any(ord(c) < 32 for c in experiment):
        raise PlatformError("USAGE", "--experiment is longer than 100 characters, or has a line break in it")
    if not command:
        if given:
            raise PlatformError("USAGE", "--env is for a program of yours", steps=("add --command",))
        made = record.taken((), Path.cwd(), os.environ)
        return Order(experiment or "digits", TrainingConfig(epochs=epochs), record=made)
    words = command_line.split(command)
    if located:
        words, env = command_line.located(words), {**environment.callers(os.environ), **given}
    else:
        env = dict(given)
    made = record.taken(words, Path.cwd(), env) if located else {"git": record.state_of(Path.cwd())}
    return Order(experiment or "command", command=tuple(words), cwd=os.getcwd(), shown=command, env=env, record=made)


def placed(active: Tier, order: Order, wanted: How) -> Order:
    """Return an order with the way that it runs: as a program of the worker, or as a Job of the tier's cluster.

    Raises:
        PlatformError: USAGE for what does not go together; TIER_UNAVAILABLE for what the tier or its cluster lacks.
    """
    from infra.training import environment, runners
    from infra.training.request import JOB

    made = runners.applied(order, wanted, runners.obstacle(active.jobs_kubeconfig, active.name))
    if made.runner == JOB:  # neither this machine nor its packages have a part in it
        about = {"git": made.record.get("git", {}), "image": made.image, "env": environment.names(made.env)}
        made = replace(made, record={name: value for name, value in about.items() if value})
    if absent := runners.lacking(active.jobs_kubeconfig, made):
        raise absent
    made = runners.afforded(active.jobs_kubeconfig, made, wanted)
    if made.gpus < wanted.gpus:
        active.context.console.warn("there are not enough GPUs: it trains on the processor (see invoke doctor)")
    return made


def variables(entries: Sequence[str], files: Sequence[str], shell: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of --env-file, then of --env: `NAME` takes the value of the shell.

    Raises:
        PlatformError: USAGE.
    """
    found: dict[str, str] = {}
    for file in files:
        found |= _of_file(Path(file).expanduser())
    for entry in entries:
        name, equals, value = entry.partition("=")
        if not equals and name not in shell:
            steps = (f"export {name}=..., or --env {name}=VALUE",)
            raise PlatformError("USAGE", f"--env {name}: the shell has no such variable", steps=steps)
        found[_checked(name, "--env")] = value if equals else shell[name]
    return found


def _of_file(path: Path) -> dict[str, str]:
    from dotenv import dotenv_values

    try:
        with open(path, encoding="utf-8-sig") as file:
            found = dotenv_values(stream=file, interpolate=False)
    except (OSError, UnicodeDecodeError) as error:
        raise PlatformError("USAGE", f"--env-file {path} cannot be read", why=str(error)) from error
    return {_checked(name, str(path)): value or "" for name, value in found.items()}


def _checked(name: str, origin: str) -> str:
    if not name or "\0" in name or name.split() != [name]:
        raise PlatformError("USAGE", f"{origin}: {name!r} is no name of a variable", steps=("--env NAME=VALUE",))
    return name
