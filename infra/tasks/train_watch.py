"""Following a training from a terminal or a log: its progress, what it prints, how it ends."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from infra.console import Answer, Console, Table, human_seconds
from infra.context import Context
from infra.errors import PlatformError
from infra.terminal import visible
from infra.training.described import described

if TYPE_CHECKING:
    from infra.tiers.base import Tier
    from infra.training.client import Glimpse
    from infra.training.contract import Contract
    from infra.training.jobs import Job

HEARTBEAT = 15.0
"""Seconds without news after which a line says that the training still runs."""
AT_ONCE = 200
"""Lines of a training's output that are shown between two looks; a flood is left to the log."""
SECTION = "== "
"""Beginning of a line of a log that the worker has written, not the program."""


@dataclass(frozen=True)
class View:
    """The receiver of progress and lines."""

    show: Callable[[Glimpse], None]
    say: Callable[[str], None]


Pods = Callable[[], list[str]]
"""Asks the pods of a training for their new lines."""


class TrainingOutput:
    """The output of a training, as it comes: by its log on this machine, else by its pods, where there is a cluster."""

    def __init__(self, log: Path, pods: Callable[[], Pods | None] | None, from_start: bool) -> None:
        from infra.loglines import Follower

        self._log, self._find = log, pods
        self._follower = Follower(log, 0 if from_start else None)
        self._pods: Pods | None = None

    def news(self) -> list[str]:
        """Return the lines since the last call; none if unavailable."""
        if self._log.exists():
            return self._follower.news()
        return self._pods() if self.there and self._pods else []

    @property
    def there(self) -> bool:
        """Return whether it is available now."""
        if self._find is not None and self._pods is None and not self._log.exists():
            self._pods = self._find()
        return self._log.exists() or self._pods is not None

    @property
    def in_cluster(self) -> bool:
        """Return whether pods may have it."""
        return self._find is not None


def log_path(context: Context, job: str, rank: int = 0) -> Path:
    """Return the log of a training on this machine; of several workers, that of one."""
    from infra.training import gang, service

    return gang.log_of(service.job_logs(context.stack) / f"{job}.log", rank)


def source(active: Tier, job: str, from_start: bool = True, rank: int = 0) -> TrainingOutput:
    """Return the output of a training; of several workers, that of one."""
    from infra.training import runners

    kubeconfig = active.jobs_kubeconfig
    pods = None if kubeconfig is None else partial(runners.pod_log, kubeconfig, job, rank)
    return TrainingOutput(log_path(active.context, job, rank), pods, from_start)


def watch(active: Tier, contract: Contract, job: str, output: TrainingOutput) -> None:
    """Show the progress of a training, and above it what it prints, until it has ended."""
    from infra.training import service

    shown(active.context.console, contract, job, output, lambda: service.check_worker(active.context.stack))


def shown(
    console: Console, contract: Contract, job: str, output: TrainingOutput, check: Callable[[], None] = lambda: None
) -> None:
    """Show the same; `check` is called now and then, and may end it."""
    from infra.training import client

    with bar(console) if console.live else lines(console) as view:
        for glimpse in client.follow(contract, job):
            _tell(view, output)
            view.show(glimpse)
            check()
        while _tell(view, output):
            pass


def _tell(view: View, output: TrainingOutput) -> bool:
    news = output.news()
    told = [line for line in news if is_output(line)]
    for line in told[:AT_ONCE]:
        view.say(line)
    if len(told) > AT_ONCE:
        view.say(f"... {len(told) - AT_ONCE} more lines are in the log")
    return bool(news)


def is_output(line: str) -> bool:
    """Tell whether a line of a log is the program's own, and no report of progress, which is shown as such."""
    from infra.training.report import parse_progress

    return not line.startswith(SECTION) and parse_progress(line) is None


@contextlib.contextmanager
def lines(console: Console) -> Iterator[View]:
    """Show progress in a log: a line for each change, and one now and then when nothing changes."""
    began, last, told = time.monotonic(), "", 0.0

    def show(glimpse: Glimpse) -> None:
        nonlocal last, told
        text, now = _progress(glimpse), time.monotonic()
        if text != last or now - told > HEARTBEAT:
            console.say(text if text != last else f"{text} (for {human_seconds(now - began)}){_reason(glimpse)}")
            last, told = text, now

    yield View(show, console.say)


@contextlib.contextmanager
def bar(console: Console) -> Iterator[View]:
    """Show progress on a terminal."""
    from rich.console import Console as Terminal
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    terminal = Terminal(file=console.stderr, no_color=not console.color(console.stderr))
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    news = TextColumn("{task.fields[news]}", markup=False)  # names of metrics come from users
    with Progress(*columns, news, console=terminal, transient=True) as progress:
        task = progress.add_task("queued", total=None, news="")

        def say(line: str) -> None:
            progress.console.print(visible(console.mask(line)), markup=False, highlight=False, soft_wrap=True)

        def show(glimpse: Glimpse) -> None:
            told, total = visible(glimpse.note or _numbers(glimpse)), glimpse.epochs or None
            progress.update(task, description=glimpse.state, completed=glimpse.epoch, total=total, news=told)

        yield View(show, say)


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


def ensure_worker(active: Tier, contract: Contract) -> None:
    """Keep a worker of the platform running; returns at once.

    Raises:
        PlatformError: STATE_UNWRITABLE.
    """
    from infra.training import runners, service

    jobs = runners.environment(active.context.settings, active.jobs_kubeconfig)
    service.ensure_worker(active.context.stack, contract.values, jobs)


@contextlib.contextmanager
def left_running(job: str) -> Iterator[None]:
    """Turn the end of a watch into an error that says how to go on: what is watched continues.

    Raises:
        PlatformError: INTERRUPTED, TERMINATED.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise left("INTERRUPTED", job) from None
    except PlatformError as error:
        raise (left("TERMINATED", job) if error.code == "TERMINATED" else error) from None


def left(code: str, job: str) -> PlatformError:
    """Return the error that ends a run which no longer watches a training."""
    steps = (f"invoke train.attach {job}", f"invoke train.cancel {job}")
    return PlatformError(code, f"{job} continues in the background", steps=steps)


def outcome(active: Tier, contract: Contract, name: str) -> Answer:
    """Return the answer about a training that has ended.

    Raises:
        PlatformError: TASK_FAILED when it has failed or was cancelled.
    """
    from infra.training import client, service

    job = client.find(contract, name)
    if job.state != "succeeded":
        worker_log, in_cluster = service.worker_log(active.context.stack), active.jobs_kubeconfig is not None
        raise failure(job, where(job.id, log_path(active.context, name), worker_log, in_cluster))
    for backend, found in job.tracking.items():
        if found.get("state") != "ok":
            active.context.console.warn(f"not tracked in {backend}: {found.get('reason', '')}")
    after = ("", f"next: invoke train.show {job.id}")
    return Answer(described(job), Table(("", ""), tuple(rows(job)), keep=(1,)), after, names=(job.id,))


def where(job: str, log: Path, worker_log: Path, in_cluster: bool) -> str:
    """Say where to read on."""
    if log.exists():
        return f"its log: {log}"
    if in_cluster:
        return f"its log: invoke train.logs {job}"
    return f"it ended before it wrote a log; the worker's own: {worker_log}"


def failure(job: Job, where: str) -> PlatformError:
    """Explain why a training did not succeed, with its last lines, and where the others are."""
    last = (job.last_lines or "").splitlines()
    return PlatformError(
        "TASK_FAILED",
        f"{job.id} has {ended(job.state)}",
        why=job.error or "" if job.state == "failed" else "by invoke train.cancel, or in Temporal",
        steps=(where, f"invoke train.show {job.id}"),
        details={**described(job), "log": last},
    )


def ended(state: str) -> str:
    """Return a final state as a participle."""
    return {"cancelled": "been cancelled"}.get(state, state)


def rows(job: Job) -> list[tuple[str, str]]:
    """Return what is known of a training, as rows of name and value."""
    found = [
        ("job", job.id),
        ("state", job.state),
        ("waits for", "" if job.final else job.note or ""),
        ("experiment", job.experiment),
        ("command", job.command or ""),
        ("epochs", epochs_of(job)),
        ("held-out accuracy", percent(job.heldout_accuracy)),
        ("validation accuracy", percent(job.val_accuracy)),
        ("time", duration(job)),
        ("workers", str(job.workers) if job.workers > 1 else ""),
        ("tries", str(job.attempt) if job.attempt > 1 else ""),
        ("weights", job.weights or ""),
        ("report", job.report or ""),
        ("mlflow", str(job.tracking.get("mlflow", {}).get("url", ""))),
        ("error", (job.error or "") if job.state == "failed" else ""),
    ]
    return [row for row in found if row[1]]


_SHARE = re.compile(r"(\d+) of (\d+)\b")


def state_of(job: Job) -> str:
    """Return the state for a table: with the position in a queue, or how many workers run, where that is known."""
    found = _SHARE.match(job.note or "")
    return f"{job.state} {found[1]}/{found[2]}" if found and not job.final else job.state


def epochs_of(job: Job) -> str:
    """Format the epochs that are done, and the number to reach."""
    if not job.epoch and not job.epochs:
        return ""
    return f"{job.epoch or 0}/{job.epochs}" if job.epochs else str(job.epoch)


def percent(share: float | None) -> str:
    """Return a share as a percentage."""
    return "" if share is None else f"{100 * share:.1f} %"


def when(job: Job) -> str:
    """Format when it was ordered, in local time (ISO 8601)."""
    return job.created_at.astimezone().isoformat(timespec="minutes")


def duration(job: Job) -> str:
    """Format how long it took, or has taken."""
    return human_seconds(job.seconds)
