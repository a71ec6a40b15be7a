"""The worker as a service: started with the first training, stopped with the platform."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from infra import private
from infra.errors import PlatformError
from infra.settings import ROOT
from infra.stack import Stack, unwritable
from infra.training import orders

WORKER = "training-worker"
STOP_GRACE = 20.0
"""Seconds for the worker to stop: its programs get ten of them."""


def home(stack: Stack) -> Path:
    """Return the worker's directory."""
    return stack.home / "training"


def job_logs(stack: Stack) -> Path:
    """Return the directory of the jobs' logs, `<job>.log`."""
    return home(stack) / "jobs"


def orders_directory(stack: Stack) -> Path:
    """Return the private directory of the orders and the key that signs them."""
    return home(stack) / "orders"


def worker_log(stack: Stack) -> Path:
    """Return the worker's own log."""
    return home(stack) / "worker.log"


def ensure_worker(stack: Stack, contract_env: Mapping[str, str], jobs: Mapping[str, str]) -> None:
    """Keep a worker running for the platform of that contract; returns at once.

    `jobs` is what `runners.environment` says. A worker of another contract (another port, a backend more) or of another
    version of the code is restarted; its trainings go on from their last checkpoint.

    Raises:
        PlatformError: STATE_UNWRITABLE.
    """
    from infra.supervision import client as supervise

    work = home(stack) / "work"
    try:
        for directory in (home(stack), work, job_logs(stack), orders_directory(stack)):
            private.directory(directory)
        supervise.ensure(home(stack), [_spec(stack, work, {**contract_env, **jobs})])
    except OSError as error:
        raise unwritable(home(stack), error) from error


def _spec(stack: Stack, work: Path, contract_env: Mapping[str, str]) -> supervise.Spec:  # type: ignore[name-defined] # noqa: F821
    from infra.supervision.client import Spec

    where = {"TRAINING_LOG_DIR": str(job_logs(stack)), orders.DIRECTORY: str(orders_directory(stack))}
    own = {**where, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1", "TRAINING_CODE": code()}
    return Spec(
        name=WORKER,
        argv=[sys.executable, "-m", "infra.training.worker"],
        cwd=str(work),
        log=str(worker_log(stack)),
        env={**contract_env, **own},
        probe={"kind": "process"},
        grace=STOP_GRACE,
        umask=-1,  # what trainings write in the directories of the user is the user's to share
    )


def code() -> str:
    """Return a digest of the code that a worker runs: one of an earlier version of the checkout is restarted."""
    digest = hashlib.sha256()
    for path in sorted((ROOT / "infra").rglob("*.py")):
        digest.update(os.fsencode(path.relative_to(ROOT)) + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def open_orders(stack: Stack) -> orders.Orders:
    """Return the orders of a stack.

    Raises:
        PlatformError: STATE_UNWRITABLE, DATA_INCOMPATIBLE.
    """
    try:
        private.directory(home(stack))
        return orders.open_orders(orders_directory(stack))
    except OSError as error:
        raise unwritable(home(stack), error) from error


def resume_unfinished(stack: Stack, contract_env: Mapping[str, str], jobs: Mapping[str, str]) -> int:
    """Start the worker when trainings were interrupted by the platform's stop; how many there are.

    Raises:
        PlatformError: UNREACHABLE, LOGIN_REFUSED, STATE_UNWRITABLE.
    """
    from infra.training import client, contract

    waiting = client.unfinished(contract.read(contract_env))
    if waiting:
        ensure_worker(stack, contract_env, jobs)
    return waiting


def stop_worker(stack: Stack) -> bool:
    """Stop the worker and its trainings (they go on when a worker runs again); True when one ran."""
    from infra.supervision import client as supervise

    return supervise.stop(home(stack), timeout=STOP_GRACE + 10)


def check_worker(stack: Stack) -> None:
    """Raise an error unless the worker is starting or at work.

    Raises:
        PlatformError: SERVICE_FAILED when the supervisor has given up.
    """
    from infra.supervision import client as supervise
    from infra.training.program import last_lines

    state = supervise.states(home(stack)).get(WORKER)
    if state is not None and state.state == "failed":
        raise PlatformError(
            "SERVICE_FAILED",
            "the training worker keeps crashing",
            why=state.detail,
            steps=("invoke train.run starts it again", f"its log: {worker_log(stack)}"),
            details={"log": last_lines(worker_log(stack))},
        )
