"""Trainings through the whole platform: run, attach, cancel; what shows them is in train_show."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from infra.console import Answer
from infra.context import Context
from infra.errors import PlatformError
from infra.tasks import train_order, train_records, train_show, train_sweep, train_watch
from infra.tasks.command import ANY, command
from infra.training.described import described

if TYPE_CHECKING:
    from infra.tiers.base import Tier
    from infra.training.client import Order
    from infra.training.contract import Contract

CANCEL_BUDGET = 60.0
"""Seconds for a training to stop and clean up."""


@command(
    tier=ANY,
    iterable=("env", "env_file"),
    help={
        "epochs": "passes over the training images (of the built-in training)",
        "experiment": "name to group trainings by (default: digits, or command)",
        "command": "run this program instead of the built-in training, e.g. 'python train.py --rate 0.1'",
        "env": "variable for the program: NAME takes the shell's value, NAME=VALUE this one; may be repeated",
        "env_file": "file with further variables, as in .env",
        "detach": "return immediately; the training continues",
        "as": "how it runs: subprocess (on this machine) or job (of Kubernetes; the default where that is possible)",
        "image": "image for the Job, containing your own program (default: the backend's)",
        "gpus": "number of GPUs, of each worker",
        "or_cpu": train_order.OR_CPU,
        "queue": "the cluster's queue (a LocalQueue of Kueue) that the Job waits in",
        "priority": "low, normal or high: who goes first in the queue",
        "workers": "number of processes of the program that train together, with torchrun's and JAX's variables",
    },
)
def run(
    context: Context,
    env: list[str],
    env_file: list[str],
    epochs: int = 15,
    experiment: str = "",
    command: str = "",
    detach: bool = False,
    as_: str = "",
    image: str = "",
    gpus: int = 0,
    workers: int = 1,
    queue: str = "",
    priority: str = "",
    or_cpu: bool = False,
) -> Answer:
    """Train the digits classifier, or run your own program, end to end.

    Example: invoke train.run --epochs 15 --experiment first-steps
    """
    from infra.training import runners
    from infra.training.request import JOB

    given = train_order.variables(env, env_file, os.environ)
    wanted = runners.How(as_, image, gpus, workers, queue, priority, or_cpu)
    order = train_order.order(epochs, experiment, command, given, located=as_ != JOB)
    active, contract = train_show.running(context)
    return _ordered(active, contract, train_order.placed(active, order, wanted), detach)


@command(tier=ANY, help={"job": train_records.ID, "detach": "return immediately; the training continues"})
def rerun(context: Context, job: str, detach: bool = False) -> Answer:
    """Run a training again: the same command in the same directory, with the environment of this terminal.

    Example: invoke train.rerun latest
    """
    return again(context, job, detach)


@command(tier=ANY, help={"job": "id of the training, its beginning, or latest"})
def attach(context: Context, job: str) -> Answer:
    """Follow a training that runs: its progress and what it prints; Ctrl-C leaves it running.

    Example: invoke train.attach latest
    """
    from infra.training import client

    active, contract = train_show.running(context)
    found = client.find(contract, job)
    context.console.say(f"job {found.id}, log {train_watch.log_path(context, found.id)}")
    train_watch.ensure_worker(active, contract)
    return _followed(active, contract, found.id, train_watch.source(active, found.id, from_start=False))


@command(tier=ANY, help={"job": "id of the training, its beginning, or latest"})
def cancel(context: Context, job: str) -> Answer:
    """Cancel a training and wait until it has stopped.

    Example: invoke train.cancel digits-20261123-1a2b3c
    """
    from infra.training import client

    active, contract = train_show.running(context)
    found = client.find(contract, job)
    if found.final:
        what = f"{found.id} has already {train_watch.ended(found.state)}: nothing to cancel"
        return Answer(described(found), lines=(what,))
    # Without a worker nobody would take the cancellation up.
    train_watch.ensure_worker(active, contract)
    client.cancel(contract, found.id)
    _await_end(context, contract, found.id)
    found = client.find(contract, found.id)
    return Answer(described(found), lines=(f"{found.id} has {train_watch.ended(found.state)}",), names=(found.id,))


def again(context: Context, job: str, detach: bool) -> Answer:
    """Start a training as one that has run."""
    from infra.training import client, runners
    from infra.training.request import SUBPROCESS

    active, contract = train_show.running(context)
    found = client.find(contract, job)
    order = train_records.again(found)
    order = runners.applied(order, runners.How(SUBPROCESS, workers=order.workers), None)
    for line in train_records.changes(client.record_of(contract, found.id), order):
        context.console.warn(line)
    return _ordered(active, contract, order, detach)


def _ordered(active: Tier, contract: Contract, order: Order, detach: bool) -> Answer:
    train_watch.ensure_worker(active, contract)
    job = _start(active, contract, order)
    if detach:
        lines = (job, f"next: invoke train.attach {job}", f"      invoke train.cancel {job}")
        return Answer({"job": job, "state": "queued"}, lines=lines, names=(job,))
    return _followed(active, contract, job, train_watch.source(active, job))


def _followed(active: Tier, contract: Contract, job: str, output: train_watch.TrainingOutput) -> Answer:
    with train_watch.left_running(job):
        train_watch.watch(active, contract, job, output)
    return train_watch.outcome(active, contract, job)


def _start(active: Tier, contract: Contract, order: Order) -> str:
    from infra.training import client, runners
    from infra.training.request import JOB

    context, cluster = active.context, active.jobs_kubeconfig if order.runner == JOB else None
    job = client.start(contract, order, runners.orders_of(context.stack, cluster))
    context.console.say(f"job {job}, log {train_watch.log_path(context, job)}")
    return job


def _await_end(context: Context, contract: Contract, job: str) -> None:
    from infra.training import client

    end = time.monotonic() + CANCEL_BUDGET
    for _ in client.follow(contract, job):
        if time.monotonic() > end:
            raise PlatformError(
                "WAIT_TIMEOUT",
                f"{job} has not stopped within {CANCEL_BUDGET:.0f} s",
                steps=(f"invoke train.show {job}", f"its log: {train_watch.log_path(context, job)}"),
            )


TASKS = (run, rerun, attach, cancel, *train_show.TASKS, *train_records.TASKS, *train_sweep.TASKS)
