"""Views of trainings: the list, one of them, its output."""

from __future__ import annotations

import json
import time
from collections import deque
from typing import TYPE_CHECKING

from infra.console import Answer, Table
from infra.context import Context
from infra.errors import ExitCode, PlatformError
from infra.tasks import train_watch
from infra.tasks.command import ANY, command
from infra.training.described import described

if TYPE_CHECKING:
    from infra.tiers.base import Tier
    from infra.training.contract import Contract
    from infra.training.jobs import Job

PAUSE = 0.3
"""Seconds between two looks at a log that is followed."""
_CHECK = 2.0


def running(context: Context) -> tuple[Tier, Contract]:
    """Return the tier that runs, and its contract.

    Raises:
        PlatformError: NOT_RUNNING and what tiers raise.
    """
    from infra import endpoints, tier_choice
    from infra.training import contract

    choice = tier_choice.choose(context)
    context.console.tier = choice.tier.name
    active = tier_choice.require_running(choice)
    return active, contract.read(endpoints.contract(active.endpoints()))


@command("list", tier=ANY, log=False, help={"limit": "number of trainings, newest first"})
def list_(context: Context, limit: int = 20) -> Answer:
    """List the newest trainings.

    Example: invoke train.list --limit 5
    """
    from infra.training import client

    if limit < 1:
        raise PlatformError("USAGE", f"--limit {limit} is less than 1", steps=("invoke train.list --limit 20",))
    jobs = client.newest(running(context)[1], limit)
    lines = () if jobs else ("no trainings yet; start one: invoke train.run",)
    heading = ("JOB", "STATE", "EPOCHS", "HELD-OUT", "CREATED", "TIME")
    rows = tuple(_row(job) for job in jobs)
    return Answer([described(j) for j in jobs], Table(heading, rows), lines, names=tuple(j.id for j in jobs))


def _row(job: Job) -> tuple[str, ...]:
    held_out, made = train_watch.percent(job.heldout_accuracy), train_watch.when(job)
    return job.id, job.state, train_watch.epochs_of(job), held_out, made, train_watch.duration(job)


@command(tier=ANY, log=False, help={"job": "id of the training, its beginning, or latest"})
def show(context: Context, job: str) -> Answer:
    """Show one training: state, accuracy, last metrics, stored artifacts.

    Example: invoke train.show digits-20261123-1a2b3c
    """
    from infra.training import client
    from infra.training.report import as_json

    _, contract = running(context)
    found = client.find(contract, job)
    metrics, stored = (
        client.last_metrics(contract, found.id),
        client.artifacts(contract, found.id, context.console.warn),
    )
    log = str(train_watch.log_path(context, found.id))
    data = {**described(found), "metrics": as_json(metrics), "artifacts": stored, "log": log}
    rows = [*train_watch.rows(found), *((name, f"{value:.4g}") for name, value in metrics.items())]
    rows += [("stored" if i == 0 else "", key) for i, key in enumerate(stored)] + [("log", log)]
    lines = ("", *(f"  | {line}" for line in (found.last_lines or "").splitlines())) if found.last_lines else ()
    return Answer(data, Table(("", ""), tuple(rows), keep=(1,)), lines, names=(found.id,))


@command(
    tier=ANY,
    log=False,
    help={
        "job": "id of the training, its beginning, or latest",
        "follow": "go on with what comes, until it has ended",
        "tail": "lines from the end; 0: all",
        "rank": "which of several workers; 0 is the first",
    },
)
def logs(context: Context, job: str, follow: bool = False, tail: int = 0, rank: int = 0) -> Answer | None:
    """Print what a training has printed, with -f also what comes.

    Example: invoke train.logs latest -f
    """
    from infra.training import client

    if tail < 0:
        raise PlatformError("USAGE", f"--tail {tail} is less than 0", steps=("--tail 0 prints all that there is",))
    active, contract = running(context)
    found = client.find(contract, job)
    if not 0 <= rank < found.workers:
        what = f"--rank {rank}: {found.id} has {found.workers} workers, counted from 0"
        raise PlatformError("USAGE", what, steps=(f"invoke train.show {found.id}",))
    output = train_watch.source(active, found.id, rank=rank)
    if not output.there:
        what = f"the log of {found.id} is not on this machine, and its pods are gone"
        raise PlatformError("NOT_FOUND", what, steps=(f"invoke train.show {found.id}",))
    try:
        return _printed(context, contract, found, output, follow, tail)
    except KeyboardInterrupt:
        if follow:  # the usual way to end it: nothing went wrong
            raise SystemExit(int(ExitCode.INTERRUPTED)) from None
        raise


def _printed(
    context: Context, contract: Contract, job: Job, output: train_watch.TrainingOutput, follow: bool, tail: int
) -> Answer | None:
    there: deque[str] = deque(maxlen=tail or None)
    whole = context.console.output in ("json", "yaml") and not follow
    while news := output.news():
        there.extend(news)
        if not tail and not whole:
            _print(context, there)
    if whole:
        return Answer({"job": job.id, "lines": list(there)})
    _print(context, there)
    while follow and not job.final:
        job = _follow(context, contract, job, output)
    return None


def _print(context: Context, lines: deque[str]) -> None:
    console = context.console
    while lines:
        text = console.mask(lines.popleft())
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        console.line(json.dumps({"ts": now, "type": "log", "text": text}) if console.output == "json" else text)


def _follow(context: Context, contract: Contract, job: Job, output: train_watch.TrainingOutput) -> Job:
    """Print what comes for a while; the training as it is then, its last lines printed."""
    from infra.training import client

    end = time.monotonic() + _CHECK
    while time.monotonic() < end:
        _print(context, deque(output.news()))
        time.sleep(PAUSE)
    found = client.find(contract, job.id)
    while found.final and (news := output.news()):
        _print(context, deque(news))
    return found


TASKS = (list_, show, logs)
