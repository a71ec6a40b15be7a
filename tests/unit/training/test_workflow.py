"""The workflow on a real Temporal server of this machine, with activities that only note what they were asked."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import shutil
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from temporalio import activity
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle
from temporalio.exceptions import ApplicationError, CancelledError
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from infra.training import workflow
from infra.training.request import JOB, Ending, Request, Sweep
from infra.training.workflow import SweepWorkflow, TrainingWorkflow

TEMPORAL = shutil.which("temporal", path=str(Path(sys.executable).parent)) or shutil.which("temporal")
pytestmark = pytest.mark.skipif(TEMPORAL is None, reason="no temporal program on this machine")

BUILT_IN = Request("job", epochs=3, dataset="digits/v1")
Started = WorkflowHandle[Any, Any]


class Acts:
    """Activities that note their names; `script` says what each try of the training does."""

    def __init__(self, *script: Callable[[], None]) -> None:
        self.names: list[str] = []
        self.endings: list[Ending] = []
        self.running, self.finishing, self.go_on = threading.Event(), threading.Event(), threading.Event()
        self._script = iter(script)

    @activity.defn(name=workflow.SET_PREPARING)
    def set_preparing(self, request: Request) -> None:
        self.names.append("preparing")

    @activity.defn(name=workflow.PREPARE)
    def prepare(self, request: Request) -> None:
        self.names.append("prepare")

    @activity.defn(name=workflow.CLAIM_AND_RUN, no_thread_cancel_exception=True)
    def run(self, request: Request) -> None:
        self.names.append("run")
        next(self._script, lambda: None)()

    @activity.defn(name=workflow.EVALUATE)
    def evaluate(self, request: Request) -> None:
        self.names.append("evaluate")

    @activity.defn(name=workflow.TIDY)
    def tidy(self, request: Request) -> None:
        self.names.append("tidy")
        if "stubborn" in request.job:
            raise ApplicationError("Kubernetes refused", [], non_retryable=True)

    @activity.defn(name=workflow.FINISH)
    def finish(self, ending: Ending) -> None:
        self.names.append("finish")
        self.finishing.set()
        self.endings.append(ending)

    @activity.defn(name=workflow.BEGIN_SWEEP)
    def begin_sweep(self, job: str) -> None:
        self.names.append("begin sweep")

    @activity.defn(name=workflow.FINISH_SWEEP)
    def finish_sweep(self, ending: Ending) -> None:
        self.names.append("finish sweep")
        self.endings.append(ending)

    def until_cancelled(self) -> None:
        """A training that goes on until it is cancelled."""
        self.running.set()
        while not activity.is_cancelled():
            activity.heartbeat()
            activity.wait_for_cancelled_sync(0.05)
        raise CancelledError("cancelled")

    @property
    def all(self) -> list[Callable[..., Any]]:
        short: list[Callable[..., Any]] = [self.finish, self.begin_sweep, self.finish_sweep]
        return [self.set_preparing, self.prepare, self.run, self.evaluate, self.tidy, *short]


@pytest.fixture(scope="module")
def event_loop_runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def client(event_loop_runner: asyncio.Runner) -> Iterator[Client]:
    assert TEMPORAL
    starting = WorkflowEnvironment.start_local(dev_server_existing_path=TEMPORAL, dev_server_log_level="error")
    environment = event_loop_runner.run(starting)
    yield environment.client
    event_loop_runner.run(environment.shutdown())


Play = Callable[[Acts, Request | Sweep, Callable[[Started], Awaitable[None]]], str]


@pytest.fixture
def play(client: Client, event_loop_runner: asyncio.Runner, request: pytest.FixtureRequest) -> Play:
    """Run a workflow with activities, and something beside it; returns its result, or how it failed."""

    async def played(acts: Acts, order: Request | Sweep, beside: Callable[[Started], Awaitable[None]]) -> str:
        with ThreadPoolExecutor(4) as threads:
            async with contextlib.AsyncExitStack() as stack:
                of_workflows: dict[str, list[Any]] = {workflow.QUEUE: [TrainingWorkflow, SweepWorkflow]}
                for queue in (workflow.QUEUE, *workflow.QUEUES.values()):
                    worker = Worker(
                        client,
                        task_queue=queue,
                        workflows=of_workflows.get(queue, []),
                        activities=acts.all,
                        activity_executor=threads,
                        max_heartbeat_throttle_interval=timedelta(milliseconds=50),
                    )
                    await stack.enter_async_context(worker)
                run: Any = SweepWorkflow.run if isinstance(order, Sweep) else TrainingWorkflow.run
                handle = await client.start_workflow(run, order, id=request.node.name, task_queue=workflow.QUEUE)
                await beside(handle)
                try:
                    return str(await handle.result())
                except WorkflowFailureError as error:
                    return f"{type(error.cause).__name__}: {error.cause.args[0]}"

    return lambda acts, order, beside: event_loop_runner.run(asyncio.wait_for(played(acts, order, beside), 60))


async def nothing(handle: Started) -> None:
    """Nothing beside the workflow."""


def fail(*, final: bool) -> Callable[[], None]:
    def failing() -> None:
        raise ApplicationError("the training ended with exit status 3", ["last", "line"], non_retryable=final)

    return failing


def test_the_life_of_a_built_in_training(play: Play) -> None:
    acts = Acts()
    assert play(acts, BUILT_IN, nothing) == "succeeded"
    assert acts.names == ["preparing", "prepare", "run", "evaluate", "finish"]
    assert acts.endings == [Ending("job", "succeeded")]


def test_a_program_of_the_user_is_neither_prepared_nor_evaluated(play: Play) -> None:
    acts = Acts()
    assert play(acts, Request("job", command=["python", "x.py"], cwd="/"), nothing) == "succeeded"
    assert acts.names == ["preparing", "run", "finish"]


def test_a_failure_that_may_pass_is_tried_again(play: Play) -> None:
    acts = Acts(fail(final=False))
    assert play(acts, BUILT_IN, nothing) == "succeeded"
    assert acts.names.count("run") == 2


def test_a_failed_program_fails_the_training_with_its_last_lines(play: Play) -> None:
    acts = Acts(fail(final=True))
    assert play(acts, BUILT_IN, nothing) == "ApplicationError: the training ended with exit status 3"
    assert acts.names == ["preparing", "prepare", "run", "finish"]
    assert acts.endings == [Ending("job", "failed", "the training ended with exit status 3", ["last", "line"])]


def test_a_cancelled_training_is_marked_so(play: Play) -> None:
    acts = Acts()
    acts._script = iter([acts.until_cancelled])

    async def cancel(handle: Started) -> None:
        await asyncio.to_thread(acts.running.wait, 20)
        await handle.cancel()

    assert play(acts, BUILT_IN, cancel).startswith("CancelledError")
    assert acts.names == ["preparing", "prepare", "run", "finish"]
    assert [e.state for e in acts.endings] == ["cancelled"]


def test_a_cancellation_that_a_step_did_not_notice_stops_the_next_one(play: Play) -> None:
    acts = Acts()

    def deaf() -> None:
        acts.running.set()
        acts.go_on.wait(20)

    acts._script = iter([deaf])

    async def cancel(handle: Started) -> None:
        await asyncio.to_thread(acts.running.wait, 20)
        await handle.cancel()
        await asyncio.sleep(0.3)
        acts.go_on.set()

    assert play(acts, BUILT_IN, cancel).startswith("CancelledError")
    assert acts.names == ["preparing", "prepare", "run", "finish"]
    assert [e.state for e in acts.endings] == ["cancelled"]


def test_a_cancellation_that_comes_during_the_end_is_too_late(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    acts = Acts()
    real = acts.endings.append

    def slowly(ending: Ending) -> None:
        acts.go_on.wait(20)
        real(ending)

    monkeypatch.setattr(acts, "endings", type("Slow", (list,), {"append": lambda self, e: slowly(e)})())

    async def cancel(handle: Started) -> None:
        await asyncio.to_thread(acts.finishing.wait, 20)
        await handle.cancel()
        await asyncio.sleep(0.3)
        acts.go_on.set()

    endings: list[Ending] = []
    real = endings.append
    assert play(acts, BUILT_IN, cancel) == "succeeded"
    assert endings == [Ending("job", "succeeded")]


AS_JOB = Request("job", command=["python", "x.py"], runner=JOB)


@pytest.mark.parametrize(
    ("order", "script", "tidied"),
    [
        (AS_JOB, (), []),
        (dataclasses.replace(AS_JOB, env_names=["A"]), (), ["tidy"]),
        (AS_JOB, (fail(final=True),), ["tidy"]),
        (dataclasses.replace(AS_JOB, job="stubborn"), (fail(final=True),), ["tidy"]),
    ],
    ids=["nothing left", "its variables", "its Job", "a cluster that refuses"],
)
def test_what_a_job_leaves_in_the_cluster_is_removed_before_its_end_is_marked(
    play: Play, order: Request, script: tuple[Callable[[], None], ...], tidied: list[str]
) -> None:
    acts = Acts(*script)
    play(acts, order, nothing)
    assert acts.names == ["preparing", "run", *tidied, "finish"]
    assert [e.state for e in acts.endings] == ["failed" if script else "succeeded"]


def test_a_training_that_is_cancelled_while_its_worker_is_lost_leaves_no_job(play: Play) -> None:
    acts = Acts()

    def lost() -> None:
        acts.running.set()
        acts.finishing.wait(50)  # no heartbeat: Temporal gives it up after some seconds

    acts._script = iter([lost])

    async def cancel(handle: Started) -> None:
        await asyncio.to_thread(acts.running.wait, 20)
        await handle.cancel()

    assert play(acts, AS_JOB, cancel).startswith("CancelledError")
    assert acts.names == ["preparing", "run", "tidy", "finish"]
    assert [e.state for e in acts.endings] == ["cancelled"]


def sweep(count: int, parallel: int, name: str) -> Sweep:
    return Sweep("sweep", [Request(f"{name}-{i}", command=["python", "x.py"], cwd="/") for i in range(count)], parallel)


def test_a_sweep_runs_some_at_a_time_and_one_that_fails_ends_no_other(play: Play) -> None:
    acts, now, most, lock, together = Acts(), 0, 0, threading.Lock(), threading.Barrier(2)

    def counted() -> None:
        nonlocal now, most
        with lock:
            now, most = now + 1, max(most, now + 1)
        with contextlib.suppress(threading.BrokenBarrierError):
            together.wait(20)
        with lock:
            now -= 1

    acts._script = iter([counted, counted, fail(final=True), counted, counted])
    assert play(acts, sweep(5, 2, "some"), nothing) == "succeeded"
    assert most == 2
    assert (acts.names[0], acts.names[-1], acts.names.count("run")) == ("begin sweep", "finish sweep", 5)
    assert sorted(e.state for e in acts.endings) == ["failed", *["succeeded"] * 5]


def test_a_sweep_of_which_all_fail_has_failed(play: Play) -> None:
    acts = Acts(fail(final=True), fail(final=True))
    assert play(acts, sweep(2, 2, "none"), nothing) == "failed"
    assert acts.endings[-1] == Ending("sweep", "failed", "none of its 2 trainings has succeeded")


def test_a_sweep_that_is_cancelled_ends_what_runs_and_begins_nothing_more(play: Play) -> None:
    acts = Acts()
    acts._script = iter([acts.until_cancelled] * 4)

    async def cancel(handle: Started) -> None:
        await asyncio.to_thread(acts.running.wait, 20)
        await handle.cancel()

    assert play(acts, sweep(4, 1, "stopped"), cancel).startswith("CancelledError")
    assert acts.names.count("run") == 1
    assert [e.state for e in acts.endings] == ["cancelled", "cancelled"]


def test_a_training_of_a_sweep_that_is_cancelled_alone_ends_no_other(play: Play, client: Client) -> None:
    acts = Acts()
    acts._script = iter([acts.until_cancelled])

    async def cancel(handle: Started) -> None:
        await asyncio.to_thread(acts.running.wait, 20)
        await client.get_workflow_handle("training-alone-0").cancel()

    assert play(acts, sweep(3, 1, "alone"), cancel) == "succeeded"
    assert [e.state for e in acts.endings] == ["cancelled", "succeeded", "succeeded", "succeeded"]
