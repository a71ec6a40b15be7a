"""Ordering and watching trainings: what the tasks need of the database, Temporal, Redis and the object store."""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from infra import database
from infra.errors import PlatformError, nearest
from infra.training import temporal_client
from infra.training.config import TrainingConfig
from infra.training.contract import Contract, connect_redis
from infra.training.jobs import Job, Jobs
from infra.training.orders import Orders
from infra.training.patience import Unavailable
from infra.training.progress import channel
from infra.training.request import SUBPROCESS, Request, Sweep
from infra.training.sweep import Goal, Trial, ranked

PATIENCE = 20.0
"""Seconds to wait for an unreachable server, when starting a training or asking about one."""
WATCH_PATIENCE = 120.0
"""Seconds to wait for PostgreSQL while watching."""
_POLL, _CHECK = 1.0, 15.0
RESULT_BUCKETS = ("model-weights", "training-results", "training-checkpoints")


@dataclass(frozen=True)
class Order:
    """An order: the built-in training (with its configuration) or a command in a directory.

    `env` is the environment of the command, beside the contract.
    """

    experiment: str
    config: TrainingConfig = field(default_factory=TrainingConfig)
    command: tuple[str, ...] = ()
    cwd: str = ""
    shown: str = ""
    runner: str = SUBPROCESS
    image: str = ""
    gpus: int = 0
    workers: int = 1
    queue: str = ""
    priority: str = ""
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    record: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class TrialOrder:
    """One training of a sweep, and the values that it has in its command."""

    order: Order
    values: Mapping[str, str]


@dataclass(frozen=True)
class SweepOrder:
    """A sweep that is wanted: its trainings, of which `parallel` run at the same time, and what is best."""

    experiment: str
    shown: str
    trials: Sequence[TrialOrder]
    parallel: int
    goal: Goal


@dataclass(frozen=True)
class Glimpse:
    """A training at one moment; `note` says what is in the way."""

    state: str
    epoch: int = 0
    epochs: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    note: str = ""


@contextlib.contextmanager
def answering(contract: Contract) -> Iterator[None]:
    """Turn the failures of servers into errors for users.

    Raises:
        PlatformError: UNREACHABLE, and what `database.failure` says.
    """
    try:
        with database.answering(contract["DATABASE_URL"], "ask for the trainings"):
            yield
    except Unavailable as error:
        if database.is_failure(error.__cause__):
            raise database.failure(error.__cause__, contract["DATABASE_URL"], "ask for the trainings") from error
        raise PlatformError("UNREACHABLE", str(error), steps=("invoke status", "invoke doctor")) from error


def new_id(experiment: str, now: datetime | None = None) -> str:
    """Return a short id for a job, e.g. `digits-20261123-1a2b3c` (the date in UTC)."""
    label = re.sub(r"[^a-z0-9]+", "-", experiment.lower()).strip("-")[:24].strip("-") or "job"
    return f"{label}-{(now or datetime.now(UTC)):%Y%m%d}-{secrets.token_hex(3)}"


def start(contract: Contract, order: Order, orders: Orders) -> str:
    """Note a job as queued, start its workflow and return its id.

    Raises:
        PlatformError: UNREACHABLE, LOGIN_REFUSED, REQUEST_REFUSED, DATA_INCOMPATIBLE, USAGE.
        OSError: the order cannot be kept.
    """
    job = new_id(order.experiment)
    epochs = None if order.command else order.config.epochs
    with answering(contract), contextlib.closing(Jobs(contract, PATIENCE)) as jobs:
        jobs.migrate()
        with _withdrawn(orders, jobs, (job,)):
            request = orders.place(_request(job, order), order.env)
            jobs.add(job, order.experiment, order.shown or None, _config(order), epochs, order.record)
            temporal_client.start(contract, request)
    return job


@contextlib.contextmanager
def _withdrawn(orders: Orders, jobs: Jobs, names: Sequence[str]) -> Iterator[None]:
    """End the orders of trainings that could not be started, and note why."""
    try:
        yield
    except Exception as error:
        for job in names:
            orders.close(job)
        if isinstance(error, Unavailable | PlatformError):
            with contextlib.suppress(Exception):  # the database may be what is away
                for job in names:
                    jobs.finish(job, "failed", str(error))
        raise


def start_sweep(contract: Contract, sweep: SweepOrder, orders: Orders) -> str:
    """Note a sweep and its trainings as queued, start its workflow and return its id. Raises as `start`."""
    name = new_id(sweep.experiment)
    trials = [(f"{name}-{number:03d}", trial) for number, trial in enumerate(sweep.trials, 1)]
    told: dict[str, object] = {
        "trainings": len(trials),
        "parallel": sweep.parallel,
        "metric": sweep.goal.metric,
        "least": sweep.goal.least,
    }
    with answering(contract), contextlib.closing(Jobs(contract, PATIENCE)) as jobs:
        jobs.migrate()
        with _withdrawn(orders, jobs, [*(job for job, _ in trials), name]):
            requests = [orders.place(_request(job, trial.order), trial.order.env) for job, trial in trials]
            jobs.add(name, sweep.experiment, sweep.shown, told, None)
            for job, trial in trials:
                about = {**_config(trial.order), "sweep": name, "values": dict(trial.values)}
                jobs.add(job, sweep.experiment, trial.order.shown, about, None, trial.order.record)
            temporal_client.start_sweep(contract, Sweep(name, requests, sweep.parallel))
    return name


def trials(contract: Contract, sweep: Job) -> list[Trial]:
    """Return the trainings of a sweep, best first; none where it is no sweep.

    Raises:
        PlatformError: UNREACHABLE, LOGIN_REFUSED.
    """
    if "trainings" not in sweep.config:
        return []
    wanted = Goal(str(sweep.config["metric"]), bool(sweep.config["least"]))
    with answering(contract), contextlib.closing(Jobs(contract, PATIENCE)) as jobs:
        values = jobs.last_values(sweep.id, wanted.metric)
        found = jobs.trials(sweep.id)
    return ranked([Trial(j.id, j.config["values"], j.state, values.get(j.id)) for j in found], wanted)


def _config(order: Order) -> dict[str, Any]:
    """Return what the row of a training says of how it is trained."""
    found = {"argv": list(order.command), "cwd": order.cwd} if order.command else order.config.as_dict()
    return found | ({"workers": order.workers} if order.workers > 1 else {})


def _request(job: str, order: Order) -> Request:
    how = {"runner": order.runner, "image": order.image, "gpus": order.gpus, "workers": order.workers}
    how |= {"queue": order.queue, "priority": order.priority}
    if order.command:
        return Request(job, command=list(order.command), cwd=order.cwd, **how)  # type: ignore[arg-type]
    return Request(job, order.config.epochs, order.config.dataset, **how)  # type: ignore[arg-type]


def newest(contract: Contract, limit: int, experiment: str = "") -> list[Job]:
    """Return the newest jobs, newest first; of one experiment where it is named; none before the first training.

    Raises:
        PlatformError: UNREACHABLE, LOGIN_REFUSED.
    """
    import psycopg

    with answering(contract), contextlib.closing(Jobs(contract, PATIENCE)) as jobs:
        try:
            return jobs.newest(limit, experiment)
        except psycopg.errors.UndefinedTable:
            return []


def unfinished(contract: Contract) -> int:
    """Count the jobs that have not ended; 0 before the first training.

    Raises:
        PlatformError: UNREACHABLE, LOGIN_REFUSED.
    """
    import psycopg

    with answering(contract), contextlib.closing(Jobs(contract, PATIENCE)) as jobs:
        try:
            return jobs.unfinished()
        except psycopg.errors.UndefinedTable:
            return 0


def find(contract: Contract, name: str) -> Job:
    """Return the job of that id, or the newest (`latest`), or the one whose id begins so; brought up to date.

    Raises:
        PlatformError: NOT_FOUND with a near miss; USAGE when several begin so; UNREACHABLE, LOGIN_REFUSED.
    """
    recent = newest(contract, 200)
    job = named(name, recent) or _older(contract, name, bool(recent))
    if job is None:
        raise _unknown(name, [j.id for j in recent])
    return job if job.final else _reconciled(contract, job)


LATEST = "latest"


def named(name: str, recent: Sequence[Job]) -> Job | None:
    """Return the job that a name means, out of the newest ones (newest first).

    Raises:
        PlatformError: USAGE when several begin so.
    """
    if name == LATEST:
        return next(iter(recent), None)
    found = [j for j in recent if j.id == name] or [j for j in recent if name and j.id.startswith(name)]
    if len(found) > 1:
        some = ", ".join(j.id for j in found[:5])
        what = f"{len(found)} trainings begin with {name}"
        raise PlatformError("USAGE", what, why=some, steps=("give more of the id", f"or {LATEST} for the newest"))
    return next(iter(found), None)


def _older(contract: Contract, name: str, tables: bool) -> Job | None:
    with answering(contract), contextlib.closing(Jobs(contract, PATIENCE)) as jobs:
        return jobs.get(name) if tables else None


def _unknown(name: str, recent: list[str]) -> PlatformError:
    part = [job for job in recent if name and name in job]
    hint = (f"did you mean {part[0]}?",) if len(part) == 1 else nearest(name, recent, 0.6)
    return PlatformError("NOT_FOUND", f"there is no job {name}", steps=(*hint, "invoke train.list"))


def _reconciled(contract: Contract, job: Job) -> Job:
    """Return the job, marked as failed if its workflow is gone without doing so (terminated, or its data removed)."""
    fresh = (datetime.now(UTC) - job.created_at).total_seconds() < 60
    with contextlib.suppress(Unavailable):
        status = temporal_client.status(contract, job.id)
        if status == temporal_client.NOT_FOUND and job.sweep:  # it waits for its turn
            status = temporal_client.status(contract, job.sweep)
        if status == "RUNNING" or (status == temporal_client.NOT_FOUND and fresh):
            return job
        with answering(contract), contextlib.closing(Jobs(contract, PATIENCE)) as jobs:
            jobs.finish(job.id, "failed", f"its workflow is gone ({status.lower().replace('_', ' ')})")
            return jobs.get(job.id) or job
    return job


def artifacts(contract: Contract, job: str, warn: Callable[[str], None]) -> list[str]:
    """Return what a job has stored, as bucket/key, of checkpoints the newest; `warn` gets what could not be listed."""
    from botocore.exceptions import ClientError

    from infra.training.store import S3Store

    store = S3Store(contract.results, budget=2.0)
    found = []
    for bucket in RESULT_BUCKETS:
        try:
            keys = sorted(store.listing(bucket, f"{job}/"))
        except (Unavailable, ClientError) as error:
            warn(f"what is stored in {bucket} is not known: {error}")
        else:
            epochs = [key for key in keys if key.endswith(".npz")]
            found += [f"{bucket}/{key}" for key in (epochs[-1:] if bucket == "training-checkpoints" else keys)]
    return found


def last_metrics(contract: Contract, job: str) -> dict[str, float]:
    """Return the metrics of a job's last epoch."""
    with answering(contract), contextlib.closing(Jobs(contract, PATIENCE)) as jobs:
        return jobs.last_metrics(job)


def record_of(contract: Contract, job: str) -> dict[str, Any]:
    """Return what was recorded with a job (infra.training.record); {} where an earlier version ran it."""
    with answering(contract), contextlib.closing(Jobs(contract, PATIENCE)) as jobs:
        return jobs.record_of(job)


Extremes = Mapping[str, tuple[float, float]]
"""Metric -> its least and its greatest value."""


def extremes(contract: Contract, found: Sequence[Job]) -> dict[str, Extremes]:
    """Return the least and the greatest value of each metric, by job."""
    made: dict[str, dict[str, tuple[float, float]]] = {job.id: {} for job in found}
    with answering(contract), contextlib.closing(Jobs(contract, PATIENCE)) as jobs:
        for job, name, least, greatest in jobs.extremes([job.id for job in found]) if found else []:
            made[job][name] = (least, greatest)
    return dict(made)


def cancel(contract: Contract, job: str) -> None:
    """Ask for a cancellation; `follow` shows when it is done.

    Raises:
        PlatformError: UNREACHABLE, PROGRAM_FAILED.
    """
    with answering(contract), contextlib.closing(Jobs(contract, PATIENCE)) as jobs:
        found = jobs.get(job)
        if found and found.sweep and temporal_client.status(contract, job) == temporal_client.NOT_FOUND:
            jobs.finish(job, "cancelled", "cancelled")  # its sweep has not begun with it
        temporal_client.cancel(contract, job)


def follow(contract: Contract, job: str) -> Iterator[Glimpse]:
    """Yield the glimpses of a job, at least one a second, until it has ended (the last one is final).

    Raises:
        PlatformError: UNREACHABLE when PostgreSQL stays away, NOT_FOUND when the job is gone.
    """
    watch = _Watch(contract, job)
    try:
        while True:
            glimpse = watch.look()
            yield glimpse
            if watch.over:
                return
            watch.listen(0.5)
    finally:
        watch.close()


class _Watch:
    """Redis for speed, PostgreSQL for the truth, Temporal for the doubt."""

    def __init__(self, contract: Contract, job: str) -> None:
        self._contract, self._job = contract, job
        self._jobs = Jobs(contract, budget=0)
        self._pubsub: Any = None
        self._seen = Glimpse("queued")
        self._next_poll, self._next_check = 0.0, time.monotonic() + _CHECK
        self._away_since: float | None = None
        self.over = False

    def look(self) -> Glimpse:
        """Return the training now."""
        if time.monotonic() >= self._next_poll:
            self._next_poll = time.monotonic() + _POLL
            self._poll()
        return self._seen

    def listen(self, seconds: float) -> None:
        """Take the next message of the channel, or wait that long."""
        import redis

        try:
            if self._pubsub is None:
                client: Any = connect_redis(self._contract, timeout=2.0)
                self._pubsub = client.pubsub(ignore_subscribe_messages=True)
                self._pubsub.subscribe(channel(self._job))
            message = self._pubsub.get_message(timeout=seconds)
        except redis.RedisError:
            self._pubsub = None
            time.sleep(seconds)
            return
        if message:
            self._take(message["data"])

    def close(self) -> None:
        """Close the connections."""
        self._jobs.close()
        if self._pubsub is not None:
            with contextlib.suppress(Exception):
                self._pubsub.close()

    def _take(self, text: str) -> None:
        with contextlib.suppress(ValueError, TypeError, AttributeError, OverflowError, RecursionError):
            facts = json.loads(text)
            if "state" in facts:
                self._next_poll = 0.0
            elif "note" in facts:
                self._seen = replace(self._seen, note=str(facts["note"]))
            elif int(facts["epoch"]) > self._seen.epoch:
                epochs = int(facts.get("epochs") or self._seen.epochs)
                metrics = {str(name): float(value) for name, value in facts.get("metrics", {}).items()}
                self._seen = Glimpse("running", int(facts["epoch"]), epochs, metrics)

    def _poll(self) -> None:
        try:
            with answering(self._contract):
                found = self._jobs.get(self._job)
                metrics = self._jobs.last_metrics(self._job) if found else {}
        except PlatformError as error:
            self._away(error)
            return
        if found is None:
            raise PlatformError("NOT_FOUND", f"the job {self._job} is gone", steps=("invoke train.list",))
        self._away_since = None
        found = self._doubted(found)
        self.over = found.final
        self._note(found, metrics)

    def _note(self, job: Job, metrics: dict[str, float]) -> None:
        # A message may be ahead of the database.
        epoch, seen = job.epoch or 0, self._seen
        newer = epoch >= seen.epoch
        shown, note = metrics if newer else seen.metrics, job.note or ("" if job.epoch or job.final else seen.note)
        self._seen = Glimpse(job.state, max(epoch, seen.epoch), job.epochs or 0, shown, note)

    def _doubted(self, job: Job) -> Job:
        if job.final or time.monotonic() < self._next_check:
            return job
        self._next_check = time.monotonic() + _CHECK
        return _reconciled(self._contract, job)

    def _away(self, error: PlatformError) -> None:
        self._away_since = self._away_since or time.monotonic()
        if not error.kind.retryable or time.monotonic() - self._away_since > WATCH_PATIENCE:
            raise error
        seen = self._seen
        self._seen = Glimpse(seen.state, seen.epoch, seen.epochs, seen.metrics, "PostgreSQL does not answer")
