"""The built-in training: `python -m infra.training.trainer --job ID --dataset digits/v1 --epochs 15 --attempt 1`.

It knows the platform only by the `.env` contract in its environment. Exit status: 0 done, 75 a server was away
(try again: it goes on after the last checkpoint), 143 stopped by a signal, anything else failed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from infra.errors import PlatformError
from infra.training import confusion, contract, dataset
from infra.training.checkpoints import Checkpoints
from infra.training.config import SCHEMA_BUCKET, SCHEMA_KEY, TrainingConfig, json_schema
from infra.training.dataset import WHOLE, Split
from infra.training.jobs import Jobs, Metric, Superseded
from infra.training.model import Classifier, Model, to_npz
from infra.training.output import say
from infra.training.patience import EXIT_TEMPORARY, Unavailable
from infra.training.progress import Progress
from infra.training.store import ObjectStore, S3Store
from infra.training.tracking import Subject, Tracking, tracking_for

EXIT_SUPERSEDED = 76
EXIT_STOPPED = 143
WEIGHTS_BUCKET, RESULTS_BUCKET = "model-weights", "training-results"


class Stopped(Exception):
    """A request to stop the training."""


@dataclass(frozen=True)
class Attempt:
    """One attempt at a job, with its configuration."""

    id: str
    attempt: int
    config: TrainingConfig


@dataclass(frozen=True)
class Servers:
    """The connections of a training."""

    jobs: Jobs
    progress: Progress
    datasets: ObjectStore
    results: ObjectStore
    tracking: Tracking


def parse(argv: Sequence[str], config: TrainingConfig | None = None) -> Attempt:
    """Return the job of a command line; `config` has the values that it does not name."""
    parser = argparse.ArgumentParser(prog="infra.training.trainer")
    parser.add_argument("--job", required=True)
    parser.add_argument("--attempt", type=int, default=0, help="0: begin a new attempt")
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--epochs", type=int, required=True)
    found = parser.parse_args(argv)
    return Attempt(
        found.job, found.attempt, replace(config or TrainingConfig(), dataset=found.dataset, epochs=found.epochs)
    )


def train(job: Attempt, servers: Servers, model: Model | None = None, part: slice = WHOLE) -> None:
    """Train to the end: from the last checkpoint, if there is one.

    Args:
        model: what is trained (default: the built-in classifier).
        part: the training images that it reads itself, by their place in the manifest.

    Raises:
        Superseded, Unavailable, Stopped, PlatformError: see `main`.
    """
    history, model = _begin(job, servers), model or Classifier(job.config)
    try:
        data = dataset.load(servers.datasets, job.config.dataset, {"train": part, "val": WHOLE})
        fit(job, servers, model, data, history)
        deliver(job, servers, model, data["val"], history)
    except BaseException as error:
        if not isinstance(error, Superseded):
            _close_tracking(servers, "KILLED" if isinstance(error, Stopped) else "FAILED", history)
        raise


def _begin(job: Attempt, servers: Servers) -> list[Metric]:
    """Make sure that this try may write, open the trackers and return what earlier tries have recorded."""
    servers.jobs.record(job.id, job.attempt, 0, {})
    servers.tracking.start()
    servers.jobs.set_result(job.id, job.attempt, tracking=servers.tracking.outcome)
    return servers.jobs.metrics(job.id)


def fit(job: Attempt, servers: Servers, model: Model, data: Mapping[str, Split], history: list[Metric]) -> None:
    """Train the epochs that are left; appends their metrics to `history`."""
    checkpoints = Checkpoints(servers.results, job.id)
    done = model.begin(resume(model, checkpoints))
    history[:] = [m for m in history if m.epoch <= done]
    for epoch in range(done + 1, job.config.epochs + 1):
        began = time.perf_counter()
        metrics = {"train_loss": model.fit_epoch(data["train"], epoch), "val_accuracy": score(model, data["val"])}
        metrics["epoch_seconds"] = time.perf_counter() - began
        # Metrics come first: they refuse an old try. An epoch whose checkpoint is missing is simply done again.
        servers.jobs.record(job.id, job.attempt, epoch, metrics)
        checkpoints.save(epoch, model.weights)
        history += [Metric(epoch, name, value, datetime.now(UTC)) for name, value in metrics.items()]
        announce(job, servers, epoch, metrics)
        servers.tracking.sync(history)


def resume(model: Model, checkpoints: Checkpoints) -> int:
    """Put the latest checkpoint into the model; the epoch it is of, 0 for none."""
    found = checkpoints.latest()
    if found is None:
        return 0
    model.weights = found.weights
    say(f"resumed at epoch {found.epoch}")
    return found.epoch


def score(model: Model, data: Split) -> float:
    """Return the share of images that are recognised, 0 to 1."""
    return float((model.predict(data.images) == data.labels).mean())


def announce(job: Attempt, servers: Servers, epoch: int, metrics: Mapping[str, float]) -> None:
    """Tell those who watch: a line of JSON on stdout (which also shows that it lives) and Redis."""
    facts = {"epoch": epoch, "epochs": job.config.epochs, "metrics": dict(metrics)}
    say(json.dumps(facts))
    servers.progress.publish(**facts)


def deliver(job: Attempt, servers: Servers, model: Model, val: Split, history: list[Metric]) -> None:
    """Write weights, schema, report and confusion matrix, and note them in the job's row."""
    matrix = confusion.count(val.labels, model.predict(val.images), dataset.CLASSES)
    accuracy = confusion.accuracy(matrix)
    servers.jobs.record(job.id, job.attempt, 0, {})
    weights = _deliver_weights(job, servers.results, model)
    subtitle = f"{len(val.labels)} validation images, accuracy {accuracy:.3f}, job {job.id}"
    picture = confusion.draw(matrix, "Handwritten digits: confusion matrix", subtitle)
    report = {**_report(job, history), "val_accuracy": accuracy, "weights": weights, "confusion": matrix.tolist()}
    artifacts = {"report.json": _json(report), "confusion_matrix.png": picture, "weights.npz": to_npz(model.weights)}
    servers.tracking.finish("FINISHED", history, artifacts, _now_ms())
    servers.results.put(RESULTS_BUCKET, f"{job.id}/confusion_matrix.png", picture, "image/png")
    text = _json({**report, "tracking": servers.tracking.outcome})
    servers.results.put(RESULTS_BUCKET, f"{job.id}/report.json", text, "application/json")
    servers.jobs.set_result(
        job.id,
        job.attempt,
        val_accuracy=accuracy,
        weights=weights["key"],
        report=f"{RESULTS_BUCKET}/{job.id}/report.json",
        tracking=servers.tracking.outcome,
    )


def _deliver_weights(job: Attempt, store: ObjectStore, model: Model) -> dict[str, str]:
    data = to_npz(model.weights)
    about = {"sha256": hashlib.sha256(data).hexdigest(), "config": job.config.as_dict(), "job": job.id}
    store.put(SCHEMA_BUCKET, SCHEMA_KEY, _json(json_schema()), "application/json")
    store.put(WEIGHTS_BUCKET, f"{job.id}/weights.npz", data)
    store.put(WEIGHTS_BUCKET, f"{job.id}/weights.json", _json(about), "application/json")
    return {"key": f"{WEIGHTS_BUCKET}/{job.id}/weights.npz", "sha256": str(about["sha256"])}


def _report(job: Attempt, history: Sequence[Metric]) -> dict[str, object]:
    epochs: dict[int, dict[str, float]] = {}
    for metric in history:
        epochs.setdefault(metric.epoch, {})[metric.name] = metric.value
    return {
        "job": job.id,
        "attempt": job.attempt,
        "config": job.config.as_dict(),
        "schema": f"{SCHEMA_BUCKET}/{SCHEMA_KEY}",
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "epochs": [{"epoch": epoch, **metrics} for epoch, metrics in sorted(epochs.items())],
        "confusion_matrix": f"{RESULTS_BUCKET}/{job.id}/confusion_matrix.png",
    }


def _json(data: object) -> bytes:
    return json.dumps(data, indent=1).encode()


def _now_ms() -> int:
    return int(time.time() * 1000)


def _close_tracking(servers: Servers, status: str, history: Sequence[Metric]) -> None:
    if servers.tracking.outcome:
        servers.tracking.finish(status, history, {}, _now_ms())


def connect(job: Attempt) -> Servers:
    """Connect to the servers of the contract in the environment."""
    found = contract.read()
    jobs = Jobs(found)
    row = jobs.get(job.id)
    if row is None:
        raise PlatformError("NOT_FOUND", f"there is no job {job.id} in the database")
    subject = Subject(job.id, row.experiment, job.config.as_dict(), int(row.created_at.timestamp() * 1000))
    stores = S3Store(found.datasets), S3Store(found.results)
    return Servers(jobs, Progress(found, job.id), *stores, tracking_for(found, subject))


def claimed(job: Attempt, servers: Servers) -> Attempt:
    """Return the job with a new try of its own: earlier ones may not write any more.

    Raises:
        Superseded: it has ended.
    """
    attempt = servers.jobs.claim(job.id)
    if attempt is None:
        raise Superseded(f"job {job.id} had already ended")
    servers.progress.publish(state="running", attempt=attempt)
    return replace(job, attempt=attempt)


def stop_on_signals() -> None:
    """Let SIGTERM and SIGINT (Windows: Ctrl-Break) end the training after its clean-up."""

    def stop(number: int, _: object) -> None:
        # Once: the clean-up must not be interrupted by a second signal; SIGKILL remains for the hurried.
        for name in names:
            signal.signal(name, signal.SIG_IGN)
        raise Stopped(f"stopped by signal {number}")

    names = [getattr(signal, n) for n in ("SIGTERM", "SIGINT", "SIGBREAK") if hasattr(signal, n)]
    for name in names:
        signal.signal(name, stop)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a training and return the exit status; the reason of a failure is the last line that is printed."""
    job = parse(sys.argv[1:] if argv is None else argv)
    stop_on_signals()

    def work() -> None:
        servers = connect(job)
        train(job if job.attempt else claimed(job, servers), servers)

    return outcome(work)


def outcome(work: Callable[[], object]) -> int:
    """Do the work of a training and return its exit status; the reason of a failure is the last line printed."""
    try:
        work()
    except Stopped as error:
        return _ended(str(error), EXIT_STOPPED)
    except Superseded as error:
        return _ended(f"{error}: a newer attempt runs it, or it has ended; this one stops", EXIT_SUPERSEDED)
    except Unavailable as error:
        return _ended(str(error), EXIT_TEMPORARY)
    except PlatformError as error:
        return _ended(f"{error.what}. {error.why}".strip(" ."), int(error.exit))
    return 0


def _ended(reason: str, status: int) -> int:
    say(reason)
    return status


if __name__ == "__main__":
    sys.exit(main())
