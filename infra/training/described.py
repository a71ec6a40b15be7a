"""A training for programs: the same names in `--json`, in the backend and on the page."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from infra.training.jobs import Job


def described(job: Job) -> dict[str, object]:
    """Return a job as plain data: durations in seconds, accuracies 0 to 1, times in UTC (ISO 8601)."""
    return {
        "job": job.id,
        "state": job.state,
        "note": job.note,
        "experiment": job.experiment,
        "command": job.command,
        "epoch": job.epoch,
        "epochs": job.epochs,
        "attempt": job.attempt,
        "workers": job.workers,
        "heldout_accuracy": _share(job.heldout_accuracy),
        "val_accuracy": _share(job.val_accuracy),
        "seconds": round(job.seconds, 1),
        "weights": job.weights,
        "report": job.report,
        "mlflow": job.tracking.get("mlflow", {}).get("url"),
        "tracking": dict(job.tracking),
        "error": job.error,
        "created_at": job.created_at.isoformat(timespec="seconds"),
        "finished_at": job.finished_at.isoformat(timespec="seconds") if job.finished_at else None,
    }


def _share(value: float | None) -> float | str | None:
    from infra.training.report import as_json

    return None if value is None else as_json({"": value})[""]
