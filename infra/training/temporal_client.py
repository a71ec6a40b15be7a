"""Asking Temporal for something, in a process of its own.

Threads of temporalio's core may still call into an interpreter that is being taken down, which aborts it
("PyGILState_Release: thread state must be current"). A task must end with its own exit code, so it leaves
temporalio to a child, which ends without being taken down.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from infra import shell
from infra.console import write_line
from infra.errors import PlatformError
from infra.settings import ROOT
from infra.training.contract import Contract
from infra.training.patience import EXIT_TEMPORARY, Unavailable, patiently
from infra.training.request import Request, Sweep, workflow_id

if TYPE_CHECKING:
    from temporalio.client import Client

PATIENCE = 20.0
"""Seconds to wait for Temporal while it is unreachable."""
NOT_FOUND = "NOT_FOUND"


def start(contract: Contract, request: Request) -> None:
    """Start the workflow of a job, once: a start whose answer was lost may be repeated.

    Raises:
        Unavailable: Temporal does not answer.
        PlatformError: REQUEST_REFUSED.
    """
    _ask(contract, "start", asdict(request))


def start_sweep(contract: Contract, sweep: Sweep) -> None:
    """Start the workflow of a sweep, which starts those of its trainings. Raises as `start`."""
    _ask(contract, "start_sweep", asdict(sweep))


def cancel(contract: Contract, job: str) -> None:
    """Ask for the cancellation of a job's workflow; nothing happens when there is none. Raises as `start`."""
    _ask(contract, "cancel", {"job": job})


def status(contract: Contract, job: str, patience: float = 2.0) -> str:
    """Return RUNNING, COMPLETED, FAILED, CANCELED, TERMINATED, TIMED_OUT or NOT_FOUND. Raises as `start`."""
    return _ask(contract, "status", {"job": job}, patience)


def _ask(contract: Contract, what: str, about: Mapping[str, object], patience: float = PATIENCE) -> str:
    argv = [sys.executable, "-m", "infra.training.temporal_client", what, str(patience)]
    # The address only: it needs no secret.
    env = {name: contract[name] for name in ("TEMPORAL_HOST", "TEMPORAL_NAMESPACE")}
    result = shell.run(argv, env=env, cwd=ROOT, stdin=json.dumps(about), limit=patience + 60, check=False)
    if result.code == EXIT_TEMPORARY:
        raise Unavailable(result.last_line)
    if result.code != 0:
        named = ("check TEMPORAL_NAMESPACE in .env",) if "amespace" in result.last_line else ()
        steps = (*named, "invoke logs -s temporal", "invoke doctor")
        raise PlatformError("REQUEST_REFUSED", "Temporal refused the request", why=result.last_line, steps=steps)
    return result.out.strip()


async def _start(client: Client, about: Mapping[str, Any]) -> str:
    from infra.training.workflow import TrainingWorkflow

    return await _begin(client, TrainingWorkflow.run, Request(**about))


async def _start_sweep(client: Client, about: Mapping[str, Any]) -> str:
    from infra.training.workflow import SweepWorkflow

    requests = [Request(**one) for one in about["requests"]]
    return await _begin(client, SweepWorkflow.run, Sweep(about["job"], requests, about["parallel"]))


async def _begin(client: Client, run: Any, order: Request | Sweep) -> str:
    from temporalio.common import WorkflowIDConflictPolicy

    from infra.training.workflow import QUEUE

    same = WorkflowIDConflictPolicy.USE_EXISTING
    await client.start_workflow(run, order, id=workflow_id(order.job), task_queue=QUEUE, id_conflict_policy=same)
    return ""


async def _cancel(client: Client, about: Mapping[str, Any]) -> str:
    from temporalio.service import RPCError, RPCStatusCode

    try:
        await client.get_workflow_handle(workflow_id(about["job"])).cancel()
    except RPCError as error:
        if error.status != RPCStatusCode.NOT_FOUND:
            raise
    return ""


async def _status(client: Client, about: Mapping[str, Any]) -> str:
    from temporalio.service import RPCError, RPCStatusCode

    try:
        found = await client.get_workflow_handle(workflow_id(about["job"])).describe()
    except RPCError as error:
        if error.status != RPCStatusCode.NOT_FOUND:
            raise
        return NOT_FOUND
    return found.status.name if found.status else "RUNNING"


def _away(error: Exception) -> bool:
    from temporalio.service import RPCError, RPCStatusCode

    if isinstance(error, RPCError):
        # CANCELLED is what tonic makes of a call that took too long ("Timeout expired").
        busy = (RPCStatusCode.DEADLINE_EXCEEDED, RPCStatusCode.CANCELLED, RPCStatusCode.RESOURCE_EXHAUSTED)
        return error.status in (RPCStatusCode.UNAVAILABLE, *busy)
    # Client.connect raises a bare RuntimeError when nobody answers.
    return isinstance(error, RuntimeError)


async def _answer(what: str, about: Mapping[str, Any]) -> str:
    from temporalio.client import Client

    known = {"start": _start, "start_sweep": _start_sweep, "cancel": _cancel, "status": _status}
    client = await Client.connect(os.environ["TEMPORAL_HOST"], namespace=os.environ["TEMPORAL_NAMESPACE"])
    answer: Awaitable[str] = known[what](client, about)
    return await answer


def main(what: str, patience: float) -> int:
    """Do what is asked about the JSON object on stdin; the answer is on stdout. 75: Temporal was away."""
    about = json.loads(sys.stdin.read())
    name = f"Temporal at {os.environ['TEMPORAL_HOST']}"
    try:
        write_line(sys.stdout, patiently(lambda: asyncio.run(_answer(what, about)), _away, name, patience))
    except Unavailable as error:
        write_line(sys.stderr, str(error))
        return EXIT_TEMPORARY
    except Exception as error:
        write_line(sys.stderr, " ".join(str(error).split()) or type(error).__name__)
        return 1
    return 0


if __name__ == "__main__":
    os._exit(main(sys.argv[1], float(sys.argv[2])))
