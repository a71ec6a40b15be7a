"""Trainings compared and repeated, by what was recorded with each."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.console import Answer, Table
from infra.context import Context
from infra.errors import PlatformError
from infra.tasks import train_show
from infra.tasks.command import ANY, command

if TYPE_CHECKING:
    from infra.training.client import Order
    from infra.training.jobs import Job

ID = "id of a training, its beginning, or latest"


@command(tier=ANY, log=False, help={"one": ID, "other": ID})
def diff(context: Context, one: str, other: str) -> Answer:
    """Compare two trainings: command, code, packages, machine, result.

    Example: invoke train.diff digits-20261123-1a2b3c latest
    """
    from infra.training import client, record

    contract = train_show.contract_of(context)
    jobs = [client.find(contract, name) for name in (one, other)]
    records = [client.record_of(contract, job.id) for job in jobs]
    metrics = [client.last_metrics(contract, job.id) for job in jobs]
    rows = [(name, *(str(v) for v in pair)) for name, *pair in _facts(*jobs) if pair[0] != pair[1]]
    rows += record.differences(*records)
    names = sorted({*metrics[0], *metrics[1]})
    rows += [(n, *(f"{m[n]:.4g}" if n in m else "" for m in metrics)) for n in names if _apart(n, *metrics)]
    data = {"jobs": [job.id for job in jobs], "differences": [dict(zip(_KEYS, row, strict=True)) for row in rows]}
    lines = () if rows else ("no difference",)
    return Answer(data, Table(("", jobs[0].id, jobs[1].id), tuple(rows), keep=(0,)), lines)


_KEYS = ("name", "one", "other")


def _apart(name: str, one: dict[str, float], other: dict[str, float]) -> bool:
    return one.get(name) != other.get(name)


def _facts(one: Job, other: Job) -> list[tuple[str, Any, Any]]:
    """Return what the rows of two jobs say, in pairs."""
    names = ("state", "command", "experiment", "epochs", "workers")
    pairs = [(n, getattr(one, n) or "", getattr(other, n) or "") for n in names]
    keys = sorted({*one.config, *other.config} - {"argv", "workers"})
    pairs += [(f"config {key}", one.config.get(key, ""), other.config.get(key, "")) for key in keys]
    return pairs


def again(job: Job) -> Order:
    """Return the order that a job came from.

    Raises:
        PlatformError: NOT_FOUND where its directory is not here; PROGRAM_MISSING.
    """
    from dataclasses import replace

    from infra.training import command_line, environment, record
    from infra.training.client import Order
    from infra.training.config import TrainingConfig

    if not job.command:
        order = Order(job.experiment, TrainingConfig(epochs=job.epochs or TrainingConfig().epochs), workers=job.workers)
        return replace(order, record=record.taken((), Path.cwd(), os.environ))
    cwd, argv = str(job.config.get("cwd", "")), [str(word) for word in job.config.get("argv", [])]
    if not Path(cwd).is_dir() or not argv:
        steps = (f"invoke train.show {job.id}", "run its command where its files are: invoke train.run --command ...")
        raise PlatformError("NOT_FOUND", f"the directory of {job.id} is not on this machine: {cwd}", steps=steps)
    argv, env = command_line.located(argv), environment.callers(os.environ)
    made = record.taken(argv, Path(cwd), env)
    return Order(
        job.experiment, command=tuple(argv), cwd=cwd, shown=job.command, workers=job.workers, env=env, record=made
    )


def changes(before: dict[str, Any], order: Order) -> list[str]:
    """Return warnings about what is not as it was when a training ran."""
    from infra.training import record

    found = record.differences(before, order.record) if before else []
    shown = [f"{name}: {old or 'none'} -> {new or 'none'}" for name, old, new in found[:5]]
    more = [f"{len(found) - 5} more differences"] if len(found) > 5 else []
    return [f"not as it was: {line}" for line in [*shown, *more]]


TASKS = (diff,)
