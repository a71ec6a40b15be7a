"""The trainings of a sweep as people and programs see them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from infra.console import Table
from infra.training.described import described

if TYPE_CHECKING:
    from infra.training.jobs import Job
    from infra.training.sweep import Trial


def data(job: Job, trials: Sequence[Trial]) -> dict[str, object]:
    """Return a sweep as plain data: its trainings, best first."""
    from infra.training.report import as_json

    rows = [
        {
            "job": t.job,
            "state": t.state,
            "values": dict(t.values),
            **as_json({"value": t.value} if t.value is not None else {}),
        }
        for t in trials
    ]
    return {
        **described(job),
        "metric": job.config["metric"],
        "goal": "min" if job.config["least"] else "max",
        "trainings": rows,
    }


def table(job: Job, trials: Sequence[Trial]) -> Table:
    """Return the trainings of a sweep as a table, best first."""
    names = list(trials[0].values) if trials else []
    rows = tuple((t.job, t.state, *t.values.values(), number(t)) for t in trials)
    return Table(("JOB", "STATE", *(name.upper() for name in names), str(job.config["metric"]).upper()), rows)


def values(trial: Trial) -> list[str]:
    """Return the values of a training as words."""
    return [f"{name}={value}" for name, value in trial.values.items()]


def number(trial: Trial) -> str:
    """Return the metric of a training; '' where it has none."""
    return "" if trial.value is None else f"{trial.value:.4g}"
