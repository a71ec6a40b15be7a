"""The Temporal worker of the trainings: `python -m infra.training.worker`.

It knows the platform by the `.env` contract in its environment, and TRAINING_LOG_DIR for the logs of the jobs.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

from temporalio.client import Client
from temporalio.service import RPCError
from temporalio.worker import Worker

from infra import setting_rules
from infra.console import write_line
from infra.errors import PlatformError
from infra.training import contract, workflow
from infra.training.activities import Activities
from infra.training.contract import Contract
from infra.training.orders import DIRECTORY, KEY, Orders, from_environment
from infra.training.program import GRACE
from infra.training.request import JOB, RUNNERS, SUBPROCESS
from infra.training.workflow import SweepWorkflow, TrainingWorkflow

log = logging.getLogger("training.worker")

LONGEST_PAUSE = 5.0
"""Seconds between tries to reach Temporal, at most."""
AT_ONCE = {SUBPROCESS: max(2, (os.cpu_count() or 2) // 2), JOB: 250}
"""Trainings at the same time; more wait. Jobs are held up by the cluster where it is full.

Of those that wait for a place here the first one is next, whatever its priority in the cluster's queue: so there are
many.
"""


async def connect(found: Contract) -> Client:
    """Return a client, as soon as Temporal answers."""
    pause = 0.2
    while True:
        try:
            return await Client.connect(found["TEMPORAL_HOST"], namespace=found["TEMPORAL_NAMESPACE"])
        except (RuntimeError, RPCError) as error:
            log.warning("Temporal at %s does not answer (%s)", found["TEMPORAL_HOST"], str(error).splitlines()[0])
        await asyncio.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)


def workers(client: Client, offers: Mapping[str, Activities], threads: ThreadPoolExecutor) -> list[Worker]:
    """Return one worker for workflows and their endings, and one for each way to run trainings."""
    some = next(iter(offers.values()))
    short = Worker(
        client,
        task_queue=workflow.QUEUE,
        workflows=[TrainingWorkflow, SweepWorkflow],
        activities=[some.finish, some.begin_sweep, some.finish_sweep],
        activity_executor=threads,
        max_concurrent_activities=4,
        max_cached_workflows=20,
    )
    return [short, *(_long(client, runner, activities, threads) for runner, activities in offers.items())]


def _long(client: Client, runner: str, activities: Activities, threads: ThreadPoolExecutor) -> Worker:
    return Worker(
        client,
        task_queue=workflow.QUEUES[runner],
        activities=activities.long,
        activity_executor=threads,
        max_concurrent_activities=AT_ONCE[runner],
        # A cancellation comes as the answer to a heartbeat, so these must not be held back for long.
        max_heartbeat_throttle_interval=timedelta(seconds=1),
        graceful_shutdown_timeout=timedelta(seconds=GRACE + 2),
    )


def offers(found: Contract, logs: Path, orders: Orders, environ: Mapping[str, str]) -> dict[str, Activities]:
    """Return the ways to run trainings that this worker offers, by their names: TRAINING_RUNNER (default: subprocess).

    Jobs go to the cluster of TRAINING_KUBECONFIG, or to the one that the worker itself runs in.

    Raises:
        PlatformError: USAGE for an unknown name; NOT_RUNNING for a kubeconfig that leads nowhere.
    """
    names = list(setting_rules.words(environ.get("TRAINING_RUNNER", ""))) or [SUBPROCESS]
    unknown = [name for name in names if name not in RUNNERS]
    if unknown:
        raise PlatformError("USAGE", f"TRAINING_RUNNER names {unknown[0]!r}; allowed: {', '.join(RUNNERS)}")
    # A worker outside the cluster reads the cluster's key from its Secret.
    key = orders if environ.get(KEY) else None
    plain = Activities(found, logs, orders)
    return {name: _jobs(found, logs, key, environ) if name == JOB else plain for name in names}


def _jobs(found: Contract, logs: Path, orders: Orders | None, environ: Mapping[str, str]) -> Activities:
    from infra.training import cluster, job_manifest
    from infra.training.job_activities import JobActivities

    shape, path = job_manifest.shape(environ), environ.get("TRAINING_KUBECONFIG")
    access = cluster.from_kubeconfig(Path(path)) if path else cluster.from_pod(environ)
    return JobActivities(found, logs, orders, cluster.JobCluster(access, shape.namespace), shape)


async def serve(found: Contract, offered: Mapping[str, Activities], stop: asyncio.Event) -> None:
    """Work until told to stop; start again after anything that ends a worker."""
    with ThreadPoolExecutor(4 + sum(AT_ONCE[runner] for runner in offered)) as threads:
        while not stop.is_set():
            client = await _unless(stop, connect(found))
            if client is not None:
                await _work(workers(client, offered, threads), stop)


async def _work(them: list[Worker], stop: asyncio.Event) -> None:
    log.info("ready")
    running = [asyncio.create_task(worker.run()) for worker in them]
    ended = asyncio.create_task(stop.wait())
    await asyncio.wait([*running, ended], return_when=asyncio.FIRST_COMPLETED)
    ended.cancel()
    await asyncio.gather(*(worker.shutdown() for worker in them), return_exceptions=True)
    for result in await asyncio.gather(*running, return_exceptions=True):
        if isinstance(result, BaseException):
            log.error("the worker ended: %s", result)
            await asyncio.sleep(1)


async def _unless(stop: asyncio.Event, wanted: Coroutine[Any, Any, Client]) -> Client | None:
    task = asyncio.create_task(wanted)
    ended = asyncio.create_task(stop.wait())
    await asyncio.wait([task, ended], return_when=asyncio.FIRST_COMPLETED)
    ended.cancel()
    if task.done():
        return task.result()
    task.cancel()
    return None


def _stop_on_signals(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    """End the worker on SIGTERM and SIGINT (Windows: Ctrl-Break); asyncio's own handlers do not exist on Windows."""
    for name in ("SIGTERM", "SIGINT", "SIGBREAK"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), lambda *_: loop.call_soon_threadsafe(stop.set))


async def _main(found: Contract, offered: Mapping[str, Activities]) -> None:
    stop = asyncio.Event()
    _stop_on_signals(asyncio.get_running_loop(), stop)
    await serve(found, offered, stop)


def main() -> int:
    """Run the worker until SIGTERM, then end the process; returns 2 when the environment lacks something."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        found = contract.read()
        logs = os.environ.get("TRAINING_LOG_DIR", "")
        if not logs:
            raise PlatformError("USAGE", "not in the environment: TRAINING_LOG_DIR")
        orders = from_environment(os.environ)
        if orders is None:
            raise PlatformError("USAGE", f"not in the environment: {DIRECTORY}, or in a cluster {KEY}")
        offered = offers(found, Path(logs), orders, os.environ)
    except PlatformError as error:
        write_line(sys.stderr, f"{error.what}: {error.why}".rstrip(" :"))
        return int(error.exit)
    asyncio.run(_main(found, offered))
    # Threads of temporalio's core may call into an interpreter that is being taken down, which aborts it.
    logging.shutdown()
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
