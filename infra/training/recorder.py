"""Signs of life while a program runs, and what it reports on its way into the database, even if a server is away."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from types import TracebackType

from temporalio import activity
from temporalio.exceptions import ApplicationError

from infra.training.contract import Contract
from infra.training.jobs import Jobs, Row, Superseded
from infra.training.patience import Unavailable
from infra.training.progress import Progress
from infra.training.report import parse_progress
from infra.training.request import Request

_log = logging.getLogger("training.worker")

PAUSE = 5.0
"""Seconds between tries to write progress while PostgreSQL is unreachable."""
PATIENCE = 600.0
"""Seconds for the last metrics to be written, once the program has ended."""
AT_ONCE = 2000
"""Metrics in one statement."""
MOST_UNWRITTEN = 200_000
"""Metrics that are kept while PostgreSQL is away; then the oldest are given up."""
_TELL = 0.1
_IDLE = 0.2


class Stop(Exception):
    """The program has to be stopped: the training was cancelled, or the worker is stopping."""


class Heart:
    """Beats while a program runs: tells Temporal the epoch and finds out whether to stop."""

    def __init__(self) -> None:
        self.epoch = 0

    def beat(self) -> None:
        """Send a heartbeat.

        Raises:
            Stop: the training was cancelled, or the worker is stopping.
        """
        activity.heartbeat(self.epoch)
        if activity.is_cancelled():
            raise Stop("cancelled")
        if activity.is_worker_shutdown():
            raise Stop("the worker is stopping")


class Recorder(Heart):
    """Reads progress from the lines of a program; what a user's program reports, it also records.

    A thread of its own writes: neither a flood of reports nor a PostgreSQL that hangs holds a heartbeat up. At the end
    of the `with` block everything is written.
    """

    def __init__(self, contract: Contract, request: Request, attempt: int, jobs: Jobs | None = None) -> None:
        super().__init__()
        self._request, self.attempt = request, attempt
        self._progress = Progress(contract, request.job)
        self._news: dict[str, object] = {}
        self._told = 0.0
        self._writer = _Writer(jobs or Jobs(contract, budget=0), self)

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """Write the rest; patiently where the program has ended well.

        Raises:
            ApplicationError: it could not be written, and nothing else has gone wrong.
        """
        try:
            self._tell()
            self._await_writer(PATIENCE if error is None else PAUSE)
        finally:
            self._writer.end()
        if error is None:
            self._writer.raise_fault()
            if self._writer.waiting:
                raise ApplicationError("PostgreSQL was away for too long: the last metrics are not written")

    def line(self, text: str) -> None:
        """Take one line; anything but a progress object is left to the log."""
        report = parse_progress(text)
        if report is None:
            return
        self.epoch = report.epoch
        # The built-in training records by itself, before it prints.
        if not self._request.built_in:
            self._writer.take(report.epoch, report.epochs, report.metrics)
            self._news = {"epoch": report.epoch, "epochs": report.epochs, "metrics": dict(report.metrics)}

    def beat(self) -> None:
        """Send a heartbeat and tell those who watch.

        Raises:
            Stop: also when a newer try runs the job.
            ApplicationError: the database refuses the metrics.
        """
        super().beat()
        self._writer.raise_fault()
        if time.monotonic() >= self._told + _TELL:
            self._tell()

    def _tell(self) -> None:
        if self._news:
            news, self._news, self._told = self._news, {}, time.monotonic()
            self._progress.publish(**news)

    def _await_writer(self, patience: float) -> None:
        end = time.monotonic() + patience
        while self._writer.waiting and not self._writer.over and time.monotonic() < end:
            activity.heartbeat(self.epoch)
            time.sleep(_TELL / 2)

    @property
    def job(self) -> str:
        """The id of the job."""
        return self._request.job


class _Writer:
    """Writes metrics in a thread of its own, each name of an epoch once, the newest value."""

    def __init__(self, jobs: Jobs, recorder: Recorder) -> None:
        self._jobs, self._recorder = jobs, recorder
        self._rows: dict[tuple[int, str], float] = {}
        self._epochs = self._noted = self._lost = 0
        self._lock, self._ending = threading.Lock(), threading.Event()
        self._thread: threading.Thread | None = None
        self._fault: Exception | None = None
        self._busy = False

    @property
    def waiting(self) -> bool:
        """Return whether something is not written yet."""
        with self._lock:
            return bool(self._rows) or self._busy or self._epochs != self._noted

    @property
    def over(self) -> bool:
        """Return whether nothing more will be written."""
        return self._fault is not None

    def take(self, epoch: int, epochs: int, metrics: Mapping[str, float]) -> None:
        """Take what an epoch has reported."""
        with self._lock:
            self._rows.update({(epoch, name): value for name, value in metrics.items()})
            self._epochs = epochs or self._epochs
            while len(self._rows) > MOST_UNWRITTEN:
                del self._rows[next(iter(self._rows))]
                self._lost += 1
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=f"writer of {self._recorder.job}", daemon=True)
            self._thread.start()

    def raise_fault(self) -> None:
        """Raise what has ended the writing, if anything has.

        Raises:
            Stop: a newer try runs the job.
            ApplicationError: final, with what the database refused.
        """
        if isinstance(self._fault, Superseded):
            raise Stop(str(self._fault)) from self._fault
        if self._fault is not None:
            reason = (str(self._fault).strip() or type(self._fault).__name__).splitlines()[0]
            text = f"the database refused the metrics: {reason}"
            raise ApplicationError(text, [], non_retryable=True) from self._fault

    def end(self) -> None:
        """Stop the thread; one that hangs in the database is left behind."""
        self._ending.set()
        if self._lost:
            _log.warning("%s: %d metrics were not recorded: PostgreSQL was away", self._recorder.job, self._lost)

    def _run(self) -> None:
        pause = 0.0
        while not self._ending.wait(pause or _IDLE):
            try:
                while not self._ending.is_set() and self._write():
                    pause = 0.0
            except Unavailable:
                pause = PAUSE
            except Exception as fault:
                self._fault = fault
                break
        self._jobs.close()

    def _write(self) -> bool:
        """Write some; False when there is nothing left."""
        with self._lock:
            keys = list(self._rows)[:AT_ONCE]
            rows = [Row(epoch, name, self._rows.pop((epoch, name))) for epoch, name in keys]
            self._busy = bool(rows)
        try:
            self._send(rows)
        except BaseException:
            with self._lock:  # newer values stay
                self._rows = {**{(row.epoch, row.name): row.value for row in rows}, **self._rows}
            raise
        finally:
            self._busy = False
        return bool(rows)

    def _send(self, rows: list[Row]) -> None:
        job, attempt, epochs = self._recorder.job, self._recorder.attempt, self._epochs
        if rows:
            self._jobs.record_rows(job, attempt, rows)
        if epochs != self._noted:
            self._jobs.set_epochs(job, attempt, epochs)
            self._noted = epochs
