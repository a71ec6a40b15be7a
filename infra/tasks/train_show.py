"""Views of trainings: the list, one of them, its output."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from infra.console import Answer, Table
from infra.context import Context
from infra.errors import PlatformError
from infra.tasks import train_trials, train_watch
from infra.tasks.command import ANY, command
from infra.training.described import described

if TYPE_CHECKING:
    from infra.tiers.base import Tier
    from infra.training.client import Extremes
    from infra.training.contract import Contract
    from infra.training.jobs import Job


def contract_of(context: Context) -> Contract:
    """Return the contract of what is asked for: production's, where the task is about that, else of what runs.

    Raises:
        PlatformError: NOT_RUNNING and what tiers raise.
    """
    from infra.tasks import production_site

    return production_site.CONTRACT.get() or running(context)[1]


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


@command(
    "list",
    tier=ANY,
    log=False,
    help={
        "limit": "number of trainings",
        "sort": "metric by which the best come first; losses and errors count as better when they are smaller",
        "experiment": "only those of this experiment",
    },
)
def list_(context: Context, limit: int = 20, sort: str = "", experiment: str = "") -> Answer:
    """List the newest trainings, or the best ones.

    Example: invoke train.list --limit 5
    """
    from infra.training import client

    if limit < 1:
        raise PlatformError("USAGE", f"--limit {limit} is less than 1", steps=("invoke train.list --limit 20",))
    contract = contract_of(context)
    jobs = client.newest(contract, CANDIDATES if sort else limit, experiment)
    found = {job: best(metrics, sort) for job, metrics in client.extremes(contract, jobs).items()}
    if sort:
        jobs = sorted((j for j in jobs if found[j.id]), key=lambda j: _rank(found[j.id]))[:limit]
    which = f" of the experiment {experiment}" if experiment else f" with the metric {sort}" if sort else ""
    lines = () if jobs else (f"no trainings{which} yet; start one: invoke train.run",)
    heading = ("JOB", "STATE", "EPOCHS", "HELD-OUT", "BEST", "CREATED", "TIME")
    rows = tuple(_row(job, found[job.id]) for job in jobs)
    data = [{**described(j), "best": {b[0]: b[1]} if (b := found[j.id]) else {}} for j in jobs]
    return Answer(data, Table(heading, rows, keep=(0,), drop=(6, 2, 3, 5, 4)), lines, names=tuple(j.id for j in jobs))


CANDIDATES = 1000
"""Trainings, the newest ones, among which the best are searched."""
Best = tuple[str, float] | tuple[()]


def best(metrics: Extremes, wanted: str = "") -> Best:
    """Return a metric and its best value: the one that is asked for, else an accuracy, else the first; () for none."""
    from infra.training.sweep import smaller_is_better

    names = [wanted] if wanted else sorted(metrics, key=lambda n: ("acc" not in n, smaller_is_better(n), n))
    name = next((n for n in names if n in metrics), None)
    return () if name is None else (name, metrics[name][0 if smaller_is_better(name) else 1])


def _rank(found: Best) -> float:
    from infra.training.sweep import smaller_is_better

    return (found[1] if smaller_is_better(found[0]) else -found[1]) if found else 0.0


def _row(job: Job, found: Best) -> tuple[str, ...]:
    held_out, made = train_watch.percent(job.heldout_accuracy), train_watch.when(job)
    shown = f"{found[0]} {found[1]:.4g}" if found else ""
    return (
        job.id,
        train_watch.state_of(job),
        train_watch.epochs_of(job),
        held_out,
        shown,
        made,
        train_watch.duration(job),
    )


@command(tier=ANY, log=False, help={"job": "id of the training, its beginning, or latest"})
def show(context: Context, job: str) -> Answer:
    """Show one training: state, accuracy, last metrics, stored artifacts.

    Example: invoke train.show digits-20261123-1a2b3c
    """
    from infra.training import client, record
    from infra.training.report import as_json

    contract = contract_of(context)
    found = client.find(contract, job)
    if trials := client.trials(contract, found):
        head = "  ".join(
            f"{name} {value}" for name, value in train_watch.rows(found) if name in ("job", "state", "error")
        )
        return Answer(train_trials.data(found, trials), train_trials.table(found, trials), (head,), names=(found.id,))
    metrics, stored = (
        client.last_metrics(contract, found.id),
        client.artifacts(contract, found.id, context.console.warn),
    )
    log = str(train_watch.log_path(context, found.id))
    made = client.record_of(contract, found.id)
    data = {**described(found), "metrics": as_json(metrics), "artifacts": stored, "log": log, "record": made}
    rows = [
        *train_watch.rows(found),
        *record.summary(made),
        *((name, f"{value:.4g}") for name, value in metrics.items()),
    ]
    rows += [("stored" if i == 0 else "", key) for i, key in enumerate(stored)]
    rows += [("log", log)] if Path(log).exists() else []  # else it is with its pods, or it never began to print
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
    from infra.tasks import train_output

    active, contract = running(context)

    def source(found: str) -> train_watch.TrainingOutput:
        return train_watch.source(active, found, rank=rank)

    return train_output.printed(context, contract, job, source, follow, tail, rank)


TASKS = (list_, show, logs)
