"""Experiment tracking beside the database: MLflow and ClearML. One that fails is named, and harms no training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from infra.training import clearml_client
from infra.training.clearml_client import ClearML
from infra.training.contract import Contract
from infra.training.jobs import Metric
from infra.training.mlflow_client import NEXT, MLflow, MLflowError, Point, Run, silence
from infra.training.output import say

STEP_METRIC = "val_accuracy"
"""The metric by which a resumed training sees how far its run has come."""


@dataclass(frozen=True)
class Subject:
    """The training that is tracked: job, experiment, parameters; `start` in milliseconds since 1970."""

    job: str
    experiment: str
    params: Mapping[str, object]
    start: int


class Backend(Protocol):
    """A tracking server; every method may raise anything."""

    name: str
    url: str

    def open(self, subject: Subject) -> None:
        """Find or make the run."""

    def sync(self, history: Sequence[Metric]) -> None:
        """Send the epochs that it does not have yet."""

    def close(self, status: str, artifacts: Mapping[str, bytes], at: int) -> None:
        """Send the files and set the final status: FINISHED, FAILED or KILLED."""


class MLflowBackend:
    """A run in MLflow."""

    name = "mlflow"

    def __init__(self, uri: str, login: tuple[str, str] | None = None) -> None:
        self._uri, self._server = uri, MLflow(uri, login)
        self._run: Run | None = None
        self._sent = 0
        self.url = ""

    def open(self, subject: Subject) -> None:
        """Find the run by the job's tag, or make it."""
        if reason := silence(self._uri):  # known in seconds: a question of its own would wait for longer
            raise MLflowError(reason)
        run = self._server.run_for(subject.experiment, subject.job, subject.start)
        self._server.reopen(run)
        self._server.log_params(run, subject.params)
        self._sent = self._server.last_step(run, STEP_METRIC)
        self._run, self.url = run, self._server.url(run)

    def sync(self, history: Sequence[Metric]) -> None:
        """Send the epochs after the last one sent."""
        news = [m for m in history if m.epoch > self._sent]
        if news and self._run:
            self._server.log_metrics(self._run.id, points(news))
            self._sent = max(m.epoch for m in news)

    def close(self, status: str, artifacts: Mapping[str, bytes], at: int) -> None:
        """Send the files and the status."""
        if self._run:
            for name, data in artifacts.items():
                self._server.put_artifact(self._run, name, data)
            self._server.end(self._run, status, at)

    def disconnect(self) -> None:
        """Close the connection."""
        self._server.close()

    @property
    def run_id(self) -> str:
        """The id of the run, or ''."""
        return self._run.id if self._run else ""


class ClearMLBackend:
    """A task in ClearML."""

    name = "clearml"

    def __init__(self) -> None:
        self._task: ClearML | None = None
        self._sent = 0
        self.url = ""

    def open(self, subject: Subject) -> None:
        """Find the task by its name, or make it."""
        self._task = ClearML(subject.experiment, subject.job)
        self._task.log_params(subject.params)
        self.url = self._task.url

    def sync(self, history: Sequence[Metric]) -> None:
        """Send the epochs after the last one sent; the same iteration sent again replaces the old value."""
        if self._task is None:
            return
        for metric in (m for m in history if m.epoch > self._sent):
            self._task.log_metric(metric.name, metric.value, metric.epoch)
        self._sent = max((m.epoch for m in history), default=0)

    def close(self, status: str, artifacts: Mapping[str, bytes], _at: int) -> None:
        """Send the files and the status."""
        if self._task:
            for name, data in artifacts.items():
                self._task.put_artifact(name, data)
            self._task.end(status)


class Tracking:
    """All backends of a training. After a failure a backend is left alone until the end, then tried once more."""

    def __init__(self, backends: Sequence[Backend], subject: Subject, say: Callable[[str], None] = say) -> None:
        self._subject, self._say = subject, say
        self._backends = list(backends)
        self._open: set[str] = set()
        self.outcome: dict[str, dict[str, str]] = {}

    def skip(self, name: str, reason: str) -> None:
        """Note a backend that cannot be used, with the reason."""
        self._say(f"warning: not tracked in {name}: {reason}")
        self.outcome[name] = {"state": "skipped", "reason": reason}

    def start(self) -> None:
        """Open all backends."""
        for backend in self._backends:
            self._guard(backend, lambda: None)

    def sync(self, history: Sequence[Metric]) -> None:
        """Send new epochs to all that work."""
        for backend in self._backends:
            if backend.name in self._open:
                self._guard(backend, lambda b=backend: b.sync(history))  # type: ignore[misc]

    def finish(self, status: str, history: Sequence[Metric], artifacts: Mapping[str, bytes], at: int) -> None:
        """Send everything that is missing, the files and the final status."""

        def complete(backend: Backend) -> None:
            backend.sync(history)
            backend.close(status, artifacts, at)

        for backend in self._backends:
            self._guard(backend, lambda b=backend: complete(b))  # type: ignore[misc]

    def _guard(self, backend: Backend, call: Callable[[], None]) -> None:
        try:
            if backend.name not in self._open:
                backend.open(self._subject)
                self._open.add(backend.name)
            call()
        except Exception as error:  # whatever a tracking package raises must not end the training
            self._open.discard(backend.name)
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            self._say(f"warning: {backend.name}: {reason}")
            self.outcome[backend.name] = {"state": "failed", "reason": reason}
        else:
            self.outcome[backend.name] = {"state": "ok", "url": backend.url, "run": getattr(backend, "run_id", "")}


def tracking_for(contract: Contract, subject: Subject) -> Tracking:
    """Return the backends that OBSERVABILITY_BACKENDS names (`database` is the training's own)."""
    backends: list[Backend] = []
    if "mlflow" in contract.backends:
        backends.append(MLflowBackend(contract["MLFLOW_TRACKING_URI"], contract.mlflow_login))
    if "clearml" in contract.backends and clearml_client.installed():
        backends.append(ClearMLBackend())
    tracking = Tracking(backends, subject)
    for name in contract.absent_backends:
        tracking.skip(name, f"it is not running; {NEXT}")
    if "clearml" in contract.backends and not clearml_client.installed():
        tracking.skip("clearml", "the package clearml is not installed")
    return tracking


def points(metrics: Sequence[Metric]) -> list[Point]:
    """Return the metrics of the database as MLflow's."""
    return [Point(m.name, m.value, m.epoch, int(m.at.timestamp() * 1000)) for m in metrics]
