"""Sweeps: one command trained with several values of its parameters."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from infra.console import Answer
from infra.context import Context
from infra.errors import PlatformError
from infra.tasks import train_order, train_show, train_trials, train_watch
from infra.tasks.command import ANY, command

if TYPE_CHECKING:
    from infra.tiers.base import Tier
    from infra.training.client import SweepOrder
    from infra.training.contract import Contract


@command(
    tier=ANY,
    iterable=("grid", "random", "env", "env_file"),
    help={
        "command": "the program, with {name} where a value goes, e.g. 'python train.py --lr {lr}'",
        "grid": "name=value,value: all combinations of these; may be repeated",
        "random": "name=low..high, name=log:low..high, name=int:low..high or name=value,value; may be repeated",
        "trials": "number of trainings, with --random",
        "seed": "of the random values: the same one gives the same values",
        "parallel": "number of trainings at the same time",
        "metric": "the metric by which they are compared: its last value",
        "goal": "min or max (default: min for a loss or an error, else max)",
        "experiment": "name to group trainings by (default: sweep)",
        "workers": "number of processes of each training",
        "gpus": "number of GPUs, of each worker",
        "as": "how they run: subprocess (on this machine; the default) or job (of Kubernetes)",
        "image": "image for the Jobs, containing your own program (default: the backend's)",
        "queue": "the cluster's queue (a LocalQueue of Kueue) that the Jobs wait in",
        "priority": "low, normal or high: who goes first in the queue",
        "or_cpu": train_order.OR_CPU,
        "env": "variable for the program: NAME takes the shell's value, NAME=VALUE this one; may be repeated",
        "env_file": "file with further variables, as in .env",
        "detach": "return immediately; the sweep continues",
    },
)
def sweep(
    context: Context,
    grid: list[str],
    random: list[str],
    env: list[str],
    env_file: list[str],
    command: str = "",
    trials: int = 8,
    seed: int = 0,
    parallel: int = 2,
    metric: str = "val_accuracy",
    goal: str = "",
    experiment: str = "sweep",
    workers: int = 1,
    gpus: int = 0,
    as_: str = "",
    image: str = "",
    queue: str = "",
    priority: str = "",
    or_cpu: bool = False,
    detach: bool = False,
) -> Answer:
    """Train one command with several values of its parameters, and list the best.

    Example: invoke train.sweep --command "python train.py --lr {lr}" --grid lr=0.1,0.01 --parallel 2
    """
    from infra.training import client, runners, sweep
    from infra.training.request import JOB

    points = _points(grid, random, trials, seed)
    wanted = sweep.goal(metric, goal)
    if not command or parallel < 1:
        raise PlatformError(
            "USAGE", "a sweep wants --command, and --parallel of at least 1", steps=("invoke --help train.sweep",)
        )
    given = train_order.variables(env, env_file, os.environ)
    one = train_order.order(1, experiment, command, given, located=as_ != JOB)
    active, contract = train_show.running(context)
    one = train_order.placed(active, one, runners.How(as_, image, gpus, workers, queue, priority, or_cpu))
    found = [
        client.TrialOrder(
            replace(one, command=tuple(sweep.applied(one.command, point)), shown=sweep.applied([command], point)[0]),
            point,
        )
        for point in points
    ]
    train_watch.ensure_worker(active, contract)
    order = client.SweepOrder(experiment, command, found, parallel, wanted)
    return _started(active, contract, order, detach)


def _points(grid: Sequence[str], random: Sequence[str], trials: int, seed: int) -> list[dict[str, str]]:
    from infra.training import sweep

    if bool(grid) == bool(random):
        what = "a sweep wants either --grid or --random"
        raise PlatformError("USAGE", what, steps=("--grid lr=0.1,0.01", "--random lr=log:0.0001..0.1 --trials 8"))
    return sweep.grid(grid) if grid else sweep.drawn(random, trials, seed)


def _started(active: Tier, contract: Contract, order: SweepOrder, detach: bool) -> Answer:
    from infra.training import client, runners
    from infra.training.request import JOB

    in_cluster = any(trial.order.runner == JOB for trial in order.trials)
    orders = runners.orders_of(active.context.stack, active.jobs_kubeconfig if in_cluster else None)
    job = client.start_sweep(contract, order, orders)
    if detach:
        lines = (job, f"next: invoke train.show {job}", f"      invoke train.cancel {job}")
        return Answer({"job": job, "state": "queued", "trainings": len(order.trials)}, lines=lines, names=(job,))
    active.context.console.say(f"sweep {job}: {len(order.trials)} trainings, {order.parallel} at a time")
    with train_watch.left_running(job):
        _watch(active, contract, job)
    return _outcome(contract, job)


def _watch(active: Tier, contract: Contract, job: str) -> None:
    from infra.training import client, service
    from infra.training.jobs import FINAL

    told: set[str] = set()
    found = client.find(contract, job)
    for _ in client.follow(contract, job):
        service.check_worker(active.context.stack)
        for trial in client.trials(contract, found):
            if trial.state in FINAL and trial.job not in told:
                told.add(trial.job)
                said = (trial.job, trial.state, *train_trials.values(trial), train_trials.number(trial))
                active.context.console.say("  ".join(said).rstrip())


def _outcome(contract: Contract, job: str) -> Answer:
    from infra.training import client

    found = client.find(contract, job)
    trials = client.trials(contract, found)
    if found.state != "succeeded":
        steps = (f"invoke train.show {job}", *(f"invoke train.logs {trial.job}" for trial in trials[:1]))
        raise PlatformError(
            "TASK_FAILED", f"{job} has {train_watch.ended(found.state)}", why=found.error or "", steps=steps
        )
    return Answer(
        train_trials.data(found, trials),
        train_trials.table(found, trials),
        (f"next: invoke train.show {trials[0].job}",),
        names=(job,),
    )


TASKS = (sweep,)
