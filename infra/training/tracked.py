"""The run in MLflow of a user's own program: the platform makes it, MLflow's client in the program logs into it.

Names: https://mlflow.org/docs/latest/api_reference/python_api/mlflow.environment_variables.html
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from infra.catalog import MLFLOW_THROUGH_SERVER
from infra.training.mlflow_client import MLflow, Run

if TYPE_CHECKING:
    from infra.training.contract import Contract
    from infra.training.jobs import Job

RUN, EXPERIMENT, SYSTEM = "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING"
STATUS: Mapping[str, str] = {"succeeded": "FINISHED", "failed": "FAILED", "cancelled": "KILLED"}
"""State of a job -> status of its run."""


def is_own(environment: Mapping[str, str], contract: Contract) -> bool:
    """Return whether a program tracks somewhere else, or in a run of its own choice."""
    return RUN in environment or environment.get("MLFLOW_TRACKING_URI") != contract.values.get("MLFLOW_TRACKING_URI")


def begun(contract: Contract, job: Job, record: Mapping[str, object]) -> dict[str, str]:
    """Find or make the run of a job, below that of its sweep, and open it; returns its id and page, `run` and `url`.

    Raises:
        MLflowError: the server refuses or does not answer.
    """
    server = MLflow(contract["MLFLOW_TRACKING_URI"], contract.mlflow_login)
    try:
        start = int(job.created_at.timestamp() * 1000)
        parent = server.run_for(job.experiment, job.sweep, start).id if job.sweep else ""
        run = server.run_for(job.experiment, job.id, start, parent)
        server.reopen(run)
        server.log_params(run, _params(job, record))
        return {"state": "ok", "run": run.id, "url": server.url(run)}
    finally:
        server.close()


def _params(job: Job, record: Mapping[str, object]) -> dict[str, object]:
    git = record.get("git")
    commit = git.get("commit", "") if isinstance(git, Mapping) else ""
    found = {"platform.command": (job.command or "")[:500], "platform.commit": commit}
    values = job.config.get("values")
    found |= {str(name): str(value) for name, value in values.items()} if isinstance(values, Mapping) else {}
    return {name: value for name, value in found.items() if value}


def variables(job: Job, run: str, environment: Mapping[str, str]) -> dict[str, str]:
    """Return what leads MLflow's client to a run; what the program's environment says already stays."""
    wanted = {RUN: run, EXPERIMENT: job.experiment, SYSTEM: "true", **MLFLOW_THROUGH_SERVER}
    return {name: value for name, value in wanted.items() if name not in environment}


def end(contract: Contract, job: Job) -> None:
    """Set the final status of a job's run; nothing where it has none.

    Raises:
        MLflowError: the server refuses or does not answer.
    """
    run = job.tracking.get("mlflow", {}).get("run")
    if not run or not job.command or "mlflow" not in contract.backends:
        return
    server = MLflow(contract["MLFLOW_TRACKING_URI"], contract.mlflow_login)
    try:
        server.end(Run(run, "", ""), STATUS.get(job.state, "FAILED"), int(time.time() * 1000))
    finally:
        server.close()
