"""The output of a training: what it has printed, and goes on to print, on standard output."""

from __future__ import annotations

import contextlib
import json
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from infra.console import Answer
from infra.context import Context
from infra.errors import PlatformError
from infra.tasks import train_watch

if TYPE_CHECKING:
    from infra.training.contract import Contract
    from infra.training.jobs import Job

PAUSE = 0.3
"""Seconds between two looks at a log that is followed."""
_CHECK = 2.0


def printed(
    context: Context,
    contract: Contract,
    job: str,
    source: Callable[[str], train_watch.TrainingOutput],
    follow: bool,
    tail: int,
    rank: int,
) -> Answer | None:
    """Print what a training has printed.

    Args:
        source: gives the output of a training by its id.

    Raises:
        PlatformError: USAGE, NOT_FOUND.
    """
    from infra.readers import following
    from infra.training import client

    if tail < 0:
        raise PlatformError("USAGE", f"--tail {tail} is less than 0", steps=("--tail 0 prints all that there is",))
    found = client.find(contract, job)
    if not 0 <= rank < found.workers:
        what = f"--rank {rank}: {found.id} has {found.workers} workers, counted from 0"
        raise PlatformError("USAGE", what, steps=(f"invoke train.show {found.id}",))
    output = source(found.id)
    if not output.there and (found.final or not follow):
        raise absent(found, output.in_cluster)
    with following(context.console.stdout) if follow else contextlib.nullcontext():
        return _printed(context, contract, found, output, follow, tail)


def absent(job: Job, in_cluster: bool) -> PlatformError:
    """Return the error for a training of which there is nothing to print."""
    if not job.final:
        steps = (f"invoke train.logs {job.id} -f waits for it", f"invoke train.show {job.id}")
        return PlatformError("NOT_FOUND", f"{job.id} has not printed anything yet", why=job.state, steps=steps)
    what = f"there is no log of {job.id} on this machine"
    why = "its pods are gone" if in_cluster else "it ended before it printed anything, or ran on another machine"
    return PlatformError("NOT_FOUND", what, why=why, steps=(f"invoke train.show {job.id}",))


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
