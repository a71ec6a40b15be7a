"""Trainings through the whole platform: run, list, show, cancel."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from infra.console import Answer, Console, Table, human_seconds
from infra.context import Context
from infra.errors import PlatformError
from infra.tasks.command import ANY, command
from infra.terminal import visible
from infra.training.described import described

if TYPE_CHECKING:
    from pathlib import Path

    from infra.tiers.base import Tier
    from infra.training.client import Glimpse, Order
    from infra.training.contract import Contract
    from infra.training.jobs import Job

HEARTBEAT = 15.0
"""Seconds without news after which a line says that the training still runs."""
CANCEL_BUDGET = 60.0
"""Seconds for a training to stop and clean up."""


@command(
    tier=ANY,
    help={
        "epochs": "passes over the training images (of the built-in training)",
        "experiment": "name to group trainings by (default: digits, or command)",
        "command": "run this program instead of the built-in training, e.g. 'python train.py --rate 0.1'",
        "detach": "return immediately; the training continues",
        "as": "how it runs: subprocess (on this machine) or job (of Kubernetes; the default where that is possible)",
        "image": "image for the Job, containing your own program (default: the backend's)",
        "gpus": "number of GPUs the Job requests",
    },
)
def run(
    context: Context,
    epochs: int = 15,
    experiment: str = "",
    command: str = "",
    detach: bool = False,
    as_: str = "",
    image: str = "",
    gpus: int = 0,
) -> Answer:
    """Train the digits classifier, or run a program of yours, through the whole platform.

    Example: invoke train.run --epochs 15 --experiment first-steps
    """
    from infra.training import runners
    from infra.training.request import JOB

    wanted = runners.How(as_, image, gpus)
    order = _order(epochs, experiment, command, located=as_ != JOB)
    active, contract = _running(context)
    order = runners.applied(order, wanted, runners.obstacle(active.jobs_kubeconfig, active.name))
    _ensure_worker(active, contract)
    job = _start(active, contract, order)
    if detach:
        return _detached(job)
    try:
        _watch(context, contract, job)
    except KeyboardInterrupt:
        raise _left("INTERRUPTED", job) from None
    except PlatformError as error:
        raise (_left("TERMINATED", job) if error.code == "TERMINATED" else error) from None
    return _outcome(context, contract, job, in_cluster=order.runner == JOB)


@command("list", tier=ANY, log=False, help={"limit": "number of trainings, newest first"})
def list_(context: Context, limit: int = 20) -> Answer:
    """List the newest trainings.

    Example: invoke train.list --limit 5
    """
    from infra.training import client

    if limit < 1:
        raise PlatformError("USAGE", f"--limit {limit} is less than 1", steps=("invoke train.list --limit 20",))
    jobs = client.newest(_running(context)[1], limit)
    rows = tuple((j.id, j.state, _epochs(j), _percent(j.heldout_accuracy), _when(j), _duration(j)) for j in jobs)
    lines = () if jobs else ("no trainings yet; start one: invoke train.run",)
    heading = ("JOB", "STATE", "EPOCHS", "HELD-OUT", "CREATED", "TIME")
    return Answer([described(j) for j in jobs], Table(heading, rows), lines, names=tuple(j.id for j in jobs))


@command(tier=ANY, log=False, help={"job": "id of the training, as in train.list"})
def show(context: Context, job: str) -> Answer:
    """Show one training: state, accuracy, last metrics, what it has stored.

    Example: invoke train.show digits-20261123-1a2b3c
    """
    from infra.training import client
    from infra.training.report import as_json

    _, contract = _running(context)
    found = client.find(contract, job)
    metrics, stored = client.last_metrics(contract, found.id), client.artifacts(contract, found.id)
    data = {**described(found), "metrics": as_json(metrics), "artifacts": stored, "log": str(_log(context, found.id))}
    rows = [*_rows(found), *((name, f"{value:.4g}") for name, value in metrics.items())]
    rows += [("stored" if i == 0 else "", key) for i, key in enumerate(stored)] + [
        ("log", str(_log(context, found.id)))
    ]
    lines = ("", *(f"  | {line}" for line in (found.last_lines or "").splitlines())) if found.last_lines else ()
    return Answer(data, Table(("", ""), tuple(rows), keep=(1,)), lines, names=(found.id,))


@command(tier=ANY, help={"job": "id of the training, as in train.list"})
def cancel(context: Context, job: str) -> Answer:
    """Cancel a training and wait until it has stopped.

    Example: invoke train.cancel digits-20261123-1a2b3c
    """
    from infra.training import client

    active, contract = _running(context)
    found = client.find(contract, job)
    if found.final:
        return Answer(described(found), lines=(f"{found.id} has already {_ended(found.state)}: nothing to cancel",))
    # Without a worker nobody would take the cancellation up.
    _ensure_worker(active, contract)
    client.cancel(contract, found.id)
    _await_end(context, contract, found.id)
    found = client.find(contract, found.id)
    return Answer(described(found), lines=(f"{found.id} has {_ended(found.state)}",), names=(found.id,))


def _order(epochs: int, experiment: str, command: str, located: bool) -> Order:
    import os

    from infra.training import command_line, environment
    from infra.training.client import Order
    from infra.training.config import MOST_EPOCHS, TrainingConfig

    if not 1 <= epochs <= MOST_EPOCHS:
        raise PlatformError(
            "USAGE", f"--epochs {epochs} is not between 1 and {MOST_EPOCHS}", steps=("invoke train.run --epochs 15",)
        )
    if len(experiment) > 100 or any(ord(c) < 32 for c in experiment):
        raise PlatformError("USAGE", "--experiment is longer than 100 characters, or has a line break in it")
    if not command:
        return Order(experiment or "digits", TrainingConfig(epochs=epochs))
    words = command_line.split(command)
    words, env = (command_line.located(words), environment.callers(os.environ)) if located else (words, {})
    return Order(experiment or "command", command=tuple(words), cwd=os.getcwd(), shown=command, env=env)


def _running(context: Context) -> tuple[Tier, Contract]:
    from infra import endpoints, lifecycle
    from infra.training import contract

    choice = lifecycle.choose(context)
    context.console.tier = choice.tier.name
    active = lifecycle.require_running(choice)
    return active, contract.read(endpoints.contract(active.endpoints()))


def _ensure_worker(active: Tier, contract: Contract) -> None:
    from infra.training import runners, service

    jobs = runners.environment(active.context.settings, active.jobs_kubeconfig)
    service.ensure_worker(active.context.stack, contract.values, jobs)


def _start(active: Tier, contract: Contract, order: Order) -> str:
    from infra.training import client, runners
    from infra.training.request import JOB

    context, cluster = active.context, active.jobs_kubeconfig if order.runner == JOB else None
    job = client.start(contract, order, runners.orders_of(context.stack, cluster))
    context.console.say(f"job {job}, log {_log(context, job)}")
    return job


def _detached(job: str) -> Answer:
    lines = (job, f"next: invoke train.show {job}", f"      invoke train.cancel {job}")
    return Answer({"job": job, "state": "queued"}, lines=lines, names=(job,))


def _watch(context: Context, contract: Contract, job: str) -> None:
    from infra.training import client, service

    view: Any = _bar(context.console) if context.console.live else _lines(context.console)
    with view as show:
        for glimpse in client.follow(contract, job):
            show(glimpse)
            service.check_worker(context.stack)


@contextlib.contextmanager
def _lines(console: Console) -> Iterator[Any]:
    """Progress for a log: a line for each change, and one now and then when nothing changes."""
    began, last, told = time.monotonic(), "", 0.0

    def show(glimpse: Glimpse) -> None:
        nonlocal last, told
        text, now = _progress(glimpse), time.monotonic()
        if text != last or now - told > HEARTBEAT:
            console.say(text if text != last else f"{text} (for {human_seconds(now - began)}){_reason(glimpse)}")
            last, told = text, now

    yield show


@contextlib.contextmanager
def _bar(console: Console) -> Iterator[Any]:
    """Progress for a terminal."""
    from rich.console import Console as Terminal
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    terminal = Terminal(file=console.stderr, no_color=not console.color(console.stderr))
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    news = TextColumn("{task.fields[news]}", markup=False)  # names of metrics are not ours
    with Progress(*columns, news, console=terminal, transient=True) as progress:
        task = progress.add_task("queued", total=None, news="")

        def show(glimpse: Glimpse) -> None:
            told, total = visible(glimpse.note or _numbers(glimpse)), glimpse.epochs or None
            progress.update(task, description=glimpse.state, completed=glimpse.epoch, total=total, news=told)

        yield show


def _progress(glimpse: Glimpse) -> str:
    if glimpse.note:
        return f"{glimpse.state}: {glimpse.note}"
    if glimpse.state != "running" or not glimpse.epoch:
        return glimpse.state
    of = f"/{glimpse.epochs}" if glimpse.epochs else ""
    return f"epoch {glimpse.epoch}{of}  {_numbers(glimpse)}".rstrip()


def _reason(glimpse: Glimpse) -> str:
    return ": other trainings run first (invoke train.list)" if glimpse.state == "queued" else ""


def _numbers(glimpse: Glimpse) -> str:
    shown = (f"{name} {value:.4g}" for name, value in sorted(glimpse.metrics.items()) if name != "epoch_seconds")
    return "  ".join(shown)


def _await_end(context: Context, contract: Contract, job: str) -> None:
    from infra.training import client

    end = time.monotonic() + CANCEL_BUDGET
    for _ in client.follow(contract, job):
        if time.monotonic() > end:
            raise PlatformError(
                "WAIT_TIMEOUT",
                f"{job} has not stopped within {CANCEL_BUDGET:.0f} s",
                steps=(f"invoke train.show {job}", f"its log: {_log(context, job)}"),
            )


def _left(code: str, job: str) -> PlatformError:
    steps = (f"invoke train.show {job}", f"invoke train.cancel {job}")
    return PlatformError(code, f"{job} continues in the background", steps=steps)


def _outcome(context: Context, contract: Contract, name: str, in_cluster: bool) -> Answer:
    from infra.training import client, service

    job = client.find(contract, name)
    if job.state != "succeeded":
        raise _failure(job, _where(_log(context, name), service.worker_log(context.stack), in_cluster))
    for backend, found in job.tracking.items():
        if found.get("state") != "ok":
            context.console.warn(f"not tracked in {backend}: {found.get('reason', '')}")
    lines = ("", f"next: invoke train.show {job.id}")
    return Answer(described(job), Table(("", ""), tuple(_rows(job)), keep=(1,)), lines, names=(job.id,))


def _where(log: Path, worker_log: Path, in_cluster: bool) -> str:
    """Say where to read on."""
    if log.exists():
        return f"its log: {log}"
    if in_cluster:
        return "its log is in the cluster, with the worker that ran it"
    return f"it ended before it wrote a log; the worker's own: {worker_log}"


def _failure(job: Job, where: str) -> PlatformError:
    lines = (job.last_lines or "").splitlines()
    return PlatformError(
        "TASK_FAILED",
        f"{job.id} has {_ended(job.state)}",
        why=job.error or "" if job.state == "failed" else "by invoke train.cancel, or in Temporal",
        steps=(where, f"invoke train.show {job.id}"),
        details={**described(job), "log": lines},
    )


def _ended(state: str) -> str:
    return {"cancelled": "been cancelled"}.get(state, state)


def _rows(job: Job) -> list[tuple[str, str]]:
    rows = [
        ("job", job.id),
        ("state", job.state),
        ("experiment", job.experiment),
        ("command", job.command or ""),
        ("epochs", _epochs(job)),
        ("held-out accuracy", _percent(job.heldout_accuracy)),
        ("validation accuracy", _percent(job.val_accuracy)),
        ("time", _duration(job)),
        ("tries", str(job.attempt) if job.attempt > 1 else ""),
        ("weights", job.weights or ""),
        ("report", job.report or ""),
        ("mlflow", str(job.tracking.get("mlflow", {}).get("url", ""))),
        ("error", (job.error or "") if job.state == "failed" else ""),
    ]
    return [row for row in rows if row[1]]


def _epochs(job: Job) -> str:
    if not job.epoch and not job.epochs:
        return ""
    return f"{job.epoch or 0}/{job.epochs}" if job.epochs else str(job.epoch)


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f} %"


def _when(job: Job) -> str:
    return job.created_at.astimezone().strftime("%Y-%m-%d %H:%M")


def _duration(job: Job) -> str:
    return human_seconds(job.seconds)


def _log(context: Context, job: str) -> Path:
    from infra.training import service

    return service.job_logs(context.stack) / f"{job}.log"


TASKS = (run, list_, show, cancel)
