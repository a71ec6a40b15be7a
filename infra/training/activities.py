"""The activities of a training: states in the database, and the programs that do the work."""

from __future__ import annotations

import logging
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from temporalio import activity
from temporalio.exceptions import ApplicationError, CancelledError

from infra import ports, private
from infra.errors import PlatformError
from infra.training import gang, gpus, notify, program, tracked, workflow
from infra.training.contract import Contract
from infra.training.environment import own_environment
from infra.training.jobs import Job, Jobs
from infra.training.mlflow_client import MLflowError, silence
from infra.training.orders import OrderRefused, Orders
from infra.training.patience import BUDGET, EXIT_TEMPORARY
from infra.training.program import TrainingProgram
from infra.training.progress import Progress
from infra.training.recorder import Heart, Recorder, Stop
from infra.training.request import SUBPROCESS, Ending, Request, workflow_id

T = TypeVar("T")
RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
"""MLflow's own variable; by its default its client tries for four minutes to reach a server that is not there."""
OPENING = 5.0
"""Seconds for MLflow to make or end a run: less than a heartbeat may be late."""
_log = logging.getLogger("training.worker")
# Signals by which others end a program; by the rest (segmentation fault, ...) it has ended itself.
_OUTSIDE = ("SIGKILL", "SIGTERM", "SIGINT", "SIGHUP")
_FROM_OUTSIDE = {int(getattr(signal, name)) for name in _OUTSIDE if hasattr(signal, name)}


@dataclass(frozen=True)
class Step:
    """A program of a training: what to call it, its arguments, variables of its own."""

    name: str
    argv: list[str]
    env: Mapping[str, str] = field(default_factory=dict)


class Activities:
    """The activities, bound to a platform, a directory for logs and the orders that may be run."""

    runner = SUBPROCESS

    def __init__(self, contract: Contract, logs: Path, orders: Orders) -> None:
        self._contract, self._logs, self._orders = contract, logs, orders

    @property
    def long(self) -> list[Callable[..., object]]:
        """The activities of those who run trainings."""
        return [self.set_preparing, self.prepare, self.run, self.evaluate]

    @activity.defn(name=workflow.SET_PREPARING)
    def set_preparing(self, request: Request) -> None:
        """Set the job to preparing."""
        self._accept(request)
        with jobs_session(self._contract) as jobs:
            if not jobs.prepare(request.job):
                raise ApplicationError(f"job {request.job} had already ended", non_retryable=True)
        Progress(self._contract, request.job).publish(state="preparing")

    @activity.defn(name=workflow.PREPARE, no_thread_cancel_exception=True)
    def prepare(self, request: Request) -> None:
        """Bring tables and dataset up to date."""
        self._accept(request)
        self._run(request, [Step("preparation", _module("prepare"))])

    @activity.defn(name=workflow.CLAIM_AND_RUN, no_thread_cancel_exception=True)
    def run(self, request: Request) -> None:
        """Begin a new try and run the training program to its end."""
        self._accept(request)
        attempt = self._claim(request.job)
        with Recorder(self._contract, request, attempt) as recorder:
            recorder.beat()
            with self._gpus(request, recorder) as held:
                self._run(request, self._steps(request, attempt, held), recorder, recorder.line)

    @activity.defn(name=workflow.EVALUATE, no_thread_cancel_exception=True)
    def evaluate(self, request: Request) -> None:
        """Measure the accuracy on held-out images."""
        self._accept(request)
        self._run(request, [Step("evaluation", _module("evaluate", "--job", request.job))])

    @activity.defn(name=workflow.FINISH)
    def finish(self, ending: Ending) -> None:
        """Mark the final state, and end the order."""
        self._check_workflow(ending.job)
        with jobs_session(self._contract) as jobs:
            jobs.finish(ending.job, ending.state, ending.error, "\n".join(ending.lines))
            found = jobs.get(ending.job)
        self._orders.close(ending.job)
        if found is not None:
            self._end_of_run(found)
        Progress(self._contract, ending.job).publish(state=ending.state)
        self._notify(found)

    @activity.defn(name=workflow.BEGIN_SWEEP)
    def begin_sweep(self, job: str) -> None:
        """Set a sweep to running, and make its run in MLflow before its trainings look for it."""
        self._check_workflow(job)
        attempt = self._claim(job)
        uri = self._contract.values.get("MLFLOW_TRACKING_URI", "")
        if uri and "mlflow" in self._contract.backends and not silence(uri):
            self._tracked(job, attempt, self._contract.values)

    @activity.defn(name=workflow.FINISH_SWEEP)
    def finish_sweep(self, ending: Ending) -> None:
        """Mark the final state of a sweep; its trainings that have not begun are cancelled, and their orders end."""
        self._check_workflow(ending.job)
        with jobs_session(self._contract) as jobs:
            for trial in jobs.trials(ending.job):
                if not trial.final:
                    jobs.finish(trial.id, "cancelled", "its sweep has ended")
                self._orders.close(trial.id)
            jobs.finish(ending.job, ending.state, ending.error)
            found = jobs.get(ending.job)
        if found is not None:
            self._end_of_run(found)
        Progress(self._contract, ending.job).publish(state=ending.state)
        self._notify(found)

    def _accept(self, request: Request) -> None:
        try:
            self._orders.check(request, activity.info().workflow_id or "", self.runner)
        except OrderRefused as error:
            raise refusal(request.job, error) from error

    def _check_workflow(self, job: str) -> None:
        if activity.info().workflow_id != workflow_id(job):
            raise refusal(job, OrderRefused("the workflow is another job's"))

    def _claim(self, job: str) -> int:
        # No longer than a heartbeat may be late.
        with jobs_session(self._contract, budget=5) as jobs:
            attempt = jobs.claim(job)
        if attempt is None:
            raise ApplicationError(f"job {job} had already ended", non_retryable=True)
        Progress(self._contract, job).publish(state="running", attempt=attempt)
        return attempt

    def _tracking(self, request: Request, attempt: int, environment: Mapping[str, str]) -> dict[str, str]:
        """Return the variables of the run in MLflow, or those that keep a program from waiting minutes for it."""
        uri = environment.get("MLFLOW_TRACKING_URI", "")
        if request.built_in or not uri.startswith(("http://", "https://")):
            return {}  # the built-in training says so itself
        reason = silence(uri)
        if not reason:
            return self._tracked(request.job, attempt, environment)
        _note(self._logs / f"{request.job}.log", f"warning: not tracked in MLflow: {reason}")
        return {} if RETRIES in environment else {RETRIES: "1"}

    def _tracked(self, job: str, attempt: int, environment: Mapping[str, str]) -> dict[str, str]:
        """Give a program the platform's run, unless it has another one or the server is too slow."""
        if tracked.is_own(environment, self._contract):
            return {}
        with jobs_session(self._contract, budget=5) as jobs:
            found, record = jobs.get(job), jobs.record_of(job)
            if found is None:
                return {}
            try:
                run = within(OPENING, lambda: tracked.begun(self._contract, found, record))
            except (MLflowError, TimeoutError) as error:
                _note(self._logs / f"{job}.log", f"warning: not tracked in MLflow: {error}")
                return {}
            jobs.set_result(job, attempt, tracking={"mlflow": run})
        return tracked.variables(found, run["run"], environment)

    def _end_of_run(self, job: Job) -> None:
        """Set the status of the run in MLflow, if there is one; a failure is said in the log."""
        try:
            within(OPENING, lambda: tracked.end(self._contract, job))
        except (MLflowError, TimeoutError) as error:
            _note(self._logs / f"{job.id}.log", f"warning: MLflow does not know of the end: {error}")

    def _notify(self, job: Job | None) -> None:
        """Report an end to PLATFORM_NOTIFY, where it is set; a failure is a line in the log."""
        target = os.environ.get(notify.NOTIFY, "")
        if target and job is not None:
            deliver(target, job, self._logs)

    @contextmanager
    def _gpus(self, request: Request, heart: Heart) -> Iterator[list[str]]:
        """Hold the GPUs that a training asks for, after others that have them; none where it asks for none.

        Raises:
            ApplicationError: this machine has too few; final.
        """
        if not request.gpus:
            yield []
            return
        found, wanted = self._shared_out(request), request.gpus * request.workers
        log = self._logs / f"{request.job}.log"
        said: list[int] = []

        def waits() -> None:
            if not said:
                said.append(_note(log, f"waiting for {wanted} of {len(found)} GPUs: other trainings have them"))
            try:
                heart.beat()
            except Stop as reason:
                raise _stopped(str(reason)) from reason

        with gpus.held(found, wanted, self._logs.parent / "gpus", waits) as mine:
            yield mine

    def _shared_out(self, request: Request) -> list[str]:
        found = gang.devices(self._environment(request))
        try:
            gang.shares(found, request.workers, request.gpus)
        except PlatformError as error:
            raise ApplicationError(error.what, [], non_retryable=True) from error
        return found

    def _steps(self, request: Request, attempt: int, held: Sequence[str] = ()) -> list[Step]:
        """Return the training: one program, or each of its workers."""
        given = self._environment(request)
        own = {
            "TRAINING_JOB_ID": request.job,
            "TRAINING_ATTEMPT": str(attempt),
            **self._tracking(request, attempt, given),
        }
        argv, count = _training(request, attempt), request.workers
        try:
            found = gang.environments(given, count, request.gpus, gang.free_port(), held)
        except PlatformError as error:
            raise ApplicationError(error.what, [], non_retryable=True) from error
        names = ["training"] if count == 1 else [f"worker {rank} of {count}" for rank in range(count)]
        return [Step(name, argv, {**own, **env}) for name, env in zip(names, found, strict=True)]

    def _run(
        self,
        request: Request,
        steps: Sequence[Step],
        heart: Heart | None = None,
        on_line: Callable[[str], object] = len,
    ) -> None:
        logs = [gang.log_of(self._logs / f"{request.job}.log", rank) for rank in range(len(steps))]
        starts = [_head(log, step) for log, step in zip(logs, steps, strict=True)]
        programs = [self._program(request, step, log) for step, log in zip(steps, logs, strict=True)]
        try:
            codes = program.run_together(programs, on_line, (heart or Heart()).beat)
        except OSError as error:
            raise ApplicationError(f"{steps[0].argv[0]} cannot be started: {error}", [], non_retryable=True) from error
        except Stop as reason:
            raise _stopped(str(reason)) from reason
        rank = decisive(codes)
        lines = program.last_lines(logs[rank], starts[rank])
        _check_port(steps[rank], codes[rank] or 0, lines)
        judge(steps[rank].name, codes[rank] or 0, lines)

    def _program(self, request: Request, step: Step, log: Path) -> TrainingProgram:
        return TrainingProgram(
            argv=step.argv,
            cwd=Path(request.cwd) if request.command else self._logs,
            env={**self._environment(request), **step.env},
            log=log,
            pid_file=log.with_suffix(".pid.json"),
        )

    def _environment(self, request: Request) -> dict[str, str]:
        if request.built_in:
            return own_environment(os.environ, self._contract)
        # A program whose output goes into a file would keep its lines back.
        unbuffered = {"PYTHONUNBUFFERED": "1"}
        return {**unbuffered, **self._contract.values, **self._orders.environment(request.job)}


def within(limit: float, work: Callable[[], T]) -> T:
    """Return the result of `work`, which goes on by itself when the time is over.

    Raises:
        TimeoutError: it took longer than `limit` seconds.
    """
    found: Future[T] = Future()

    def run() -> None:
        try:
            found.set_result(work())
        except BaseException as error:  # it is raised where the result is awaited
            found.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    try:
        return found.result(limit)
    except FutureTimeout as error:
        raise TimeoutError(f"it took longer than {limit:.0f} s") from error


def deliver(target: str, job: Job, logs: Path) -> None:
    """Send the notification of an end, within its limit; what goes wrong is a warning in the log of the job."""
    try:
        within(notify.LIMIT + 1, lambda: notify.send(target, notify.body(job), logs))
    except Exception as error:  # the end of a training never fails for want of a message
        reason = error if isinstance(error, notify.NotifyError | TimeoutError) else type(error).__name__
        _note(logs / f"{job.id}.log", f"warning: the notification of the end failed: {reason}")


def refusal(job: str, reason: OrderRefused) -> ApplicationError:
    """Return the error that ends a training whose order must not be run; the worker's log has it too."""
    _log.warning("the order of %s refused: %s", ascii(job[:100])[1:-1], reason)
    return ApplicationError(f"the order was refused: {reason}", [], non_retryable=True)


def _training(request: Request, attempt: int) -> list[str]:
    if request.command:
        return list(request.command)
    options = {"job": request.job, "attempt": attempt, "dataset": request.dataset, "epochs": request.epochs}
    program = "trainer" if request.workers == 1 else "parallel"
    return _module(program, *(word for name, value in options.items() for word in (f"--{name}", str(value))))


def _module(name: str, *arguments: str) -> list[str]:
    return [sys.executable, "-u", "-m", f"infra.training.{name}", *arguments]


def _head(log: Path, step: Step) -> int:
    shown = subprocess.list2cmdline(step.argv) if sys.platform == "win32" else shlex.join(step.argv)
    return section(log, f"{step.name}: {shown}")


def section(log: Path, title: str) -> int:
    """Begin a section of the log; returns where what follows will start."""
    return _note(log, f"== {time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {title}")


def _note(log: Path, line: str) -> int:
    private.directory(log.parent)
    with private.appending(log) as file:
        file.write(f"{line}\n".encode("utf-8", "replace"))
        return file.tell()


def _stopped(reason: str) -> BaseException:
    if activity.is_cancelled():
        return CancelledError(reason)
    return ApplicationError(reason)


def decisive(codes: Sequence[int | None]) -> int:
    """Return which of several exit statuses says how they ended together; None is one that had to be stopped.

    One that another try may cure counts most: where one worker is killed, the others fail for want of it. Then a
    program's own exit status: a signal is how libraries end a worker that has lost another.
    """
    ranks = range(len(codes))
    return min(ranks, key=lambda rank: (not codes[rank], not _curable(codes[rank] or 0), (codes[rank] or 0) < 0, rank))


def _check_port(step: Step, code: int, lines: Sequence[str]) -> None:
    """Raise what lets workers begin again with another port, where somebody else has taken theirs meanwhile.

    Raises:
        ApplicationError: it is taken, now that they have ended.
    """
    port = step.env.get("MASTER_PORT")
    if code and port and ports.blocked(gang.HOST, int(port)):
        raise ApplicationError(f"port {port}, where the workers were to meet, is taken by another program", list(lines))


def _curable(code: int) -> bool:
    return _signal(code) in _FROM_OUTSIDE or code == EXIT_TEMPORARY


def _signal(code: int) -> int:
    # Shells report a program that a signal has killed as 128 + its number.
    return -code if code < 0 else code - 128


def judge(what: str, code: int, lines: Sequence[str]) -> None:
    """Raise the failure of an exit status other than 0; those that another attempt may cure are left retryable.

    Raises:
        ApplicationError: with the last lines as its detail.
    """
    if code == 0:
        return
    number = _signal(code)
    killed = code < 0 or number in _FROM_OUTSIDE
    ended = f"was killed by signal {number}" if killed else f"ended with exit status {code}"
    raise ApplicationError(f"the {what} {ended}", list(lines), non_retryable=not _curable(code))


@contextmanager
def jobs_session(contract: Contract, budget: float = BUDGET) -> Iterator[Jobs]:
    """Open the statements of one activity; their connection is closed at the end."""
    jobs = Jobs(contract, budget)
    try:
        yield jobs
    finally:
        jobs.close()
