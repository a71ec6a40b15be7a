"""The life of a training as a Temporal workflow: prepare, run, evaluate, and always a final state.

It runs in Temporal's sandbox: only temporalio, the standard library and plain data may be imported here.
"""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import (
    ActivityError,
    ApplicationError,
    CancelledError,
    ChildWorkflowError,
    is_cancelled_exception,
)

from infra.training.request import JOB, SUBPROCESS, Ending, Request, Sweep, workflow_id

QUEUE = "training"
# Programs have a queue of their own: many long trainings must not keep a short one from being marked as cancelled.
PROGRAM_QUEUE = "training-programs"
# Jobs too: a worker with access to a cluster need not have the machine and the directory that a program wants.
JOB_QUEUE = "training-jobs"
QUEUES = {SUBPROCESS: PROGRAM_QUEUE, JOB: JOB_QUEUE}

PREPARE, CLAIM_AND_RUN, EVALUATE = "training.prepare", "training.run", "training.evaluate"
SET_PREPARING, FINISH, TIDY = "training.set_preparing", "training.finish", "training.tidy"
BEGIN_SWEEP, FINISH_SWEEP = "training.begin_sweep", "training.finish_sweep"

HEARTBEAT = timedelta(seconds=10)
LONGEST = timedelta(days=30)
TRIES = RetryPolicy(
    initial_interval=timedelta(seconds=1), backoff_coefficient=2.0, maximum_interval=timedelta(seconds=15),
    maximum_attempts=20,
)  # fmt: skip
TIDYING = timedelta(minutes=10)
"""Time to remove what a training has left in the cluster; after it the training ends without."""
UNTIL_IT_WORKS = RetryPolicy(initial_interval=timedelta(seconds=0.5), maximum_interval=timedelta(seconds=5))


@workflow.defn(name="training")
class TrainingWorkflow:
    """One training; its id is `training-<job>`."""

    @workflow.run
    async def run(self, request: Request) -> str:
        """Take a training through its life; returns `succeeded`, or fails or is cancelled as the training was."""
        ending = Ending(request.job, "succeeded")
        try:
            await self._work(request)
        except (ActivityError, asyncio.CancelledError) as error:
            ending = judge(request.job, error)
        if leaves_something(request, ending) and workflow.patched(TIDY):
            await tidy(request)
        await finish(FINISH, ending)
        if ending.state == "failed":
            raise ApplicationError(ending.error, non_retryable=True)
        if ending.state == "cancelled":
            raise CancelledError("cancelled")
        return ending.state

    async def _work(self, request: Request) -> None:
        # On the queue of those who run it: until there is room for a program, the job stays queued.
        await workflow.execute_activity(
            SET_PREPARING,
            request,
            task_queue=queue(request),
            start_to_close_timeout=timedelta(minutes=2),
            retry_policy=UNTIL_IT_WORKS,
        )
        if request.built_in:
            await self._program(PREPARE, request, timedelta(minutes=30))
        await self._program(CLAIM_AND_RUN, request, LONGEST)
        if request.built_in:
            await self._program(EVALUATE, request, timedelta(minutes=30))

    async def _program(self, name: str, request: Request, limit: timedelta) -> None:
        # A program that ended well just before it was told to stop has swallowed the cancellation.
        if workflow.cancellation_reason() is not None:
            raise asyncio.CancelledError
        await workflow.execute_activity(
            name,
            request,
            task_queue=queue(request),
            start_to_close_timeout=limit,
            heartbeat_timeout=HEARTBEAT,
            retry_policy=TRIES,
            cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
        )


@workflow.defn(name="training-sweep")
class SweepWorkflow:
    """The trainings of a sweep, some at a time; its id is `training-<job>` too."""

    @workflow.run
    async def run(self, sweep: Sweep) -> str:
        """Take all trainings to their ends; returns `succeeded` where at least one of them has."""
        ending = Ending(sweep.job, "succeeded")
        try:
            await workflow.execute_activity(
                BEGIN_SWEEP, sweep.job, start_to_close_timeout=timedelta(minutes=2), retry_policy=UNTIL_IT_WORKS
            )
            if not any(await self._trials(sweep)):
                ending = Ending(sweep.job, "failed", f"none of its {len(sweep.requests)} trainings has succeeded")
        except (ActivityError, asyncio.CancelledError) as error:
            ending = judge(sweep.job, error)
        await finish(FINISH_SWEEP, ending)
        if ending.state == "cancelled":
            raise CancelledError("cancelled")
        return ending.state

    async def _trials(self, sweep: Sweep) -> list[bool]:
        room = asyncio.Semaphore(sweep.parallel)

        async def trial(request: Request) -> bool:
            async with room:
                return await _succeeds(request)

        # With `return_exceptions` it waits for all, also when it is cancelled: the end of this would end them hard.
        ended = await asyncio.gather(*(trial(request) for request in sweep.requests), return_exceptions=True)
        for failure in (one for one in ended if isinstance(one, BaseException)):
            raise failure
        return [one is True for one in ended]


async def _succeeds(request: Request) -> bool:
    try:
        await workflow.execute_child_workflow(
            TrainingWorkflow.run,
            request,
            id=workflow_id(request.job),
            cancellation_type=workflow.ChildWorkflowCancellationType.WAIT_CANCELLATION_COMPLETED,
        )
    except ChildWorkflowError:
        if workflow.cancellation_reason() is not None:
            raise asyncio.CancelledError from None
        return False  # one that fails, or is cancelled alone, is no reason to end the others
    return True


def leaves_something(request: Request, ending: Ending) -> bool:
    """Return whether something of a training may be left in the cluster: its Secret, or a Job that nobody follows."""
    return request.runner == JOB and (bool(request.env_names) or ending.state != "succeeded")


async def tidy(request: Request) -> None:
    """Remove what a training has left in the cluster, as far as the cluster answers."""
    removal = workflow.execute_activity(
        TIDY,
        request,
        task_queue=queue(request),
        start_to_close_timeout=timedelta(minutes=2),
        schedule_to_close_timeout=TIDYING,
        retry_policy=UNTIL_IT_WORKS,
    )
    with contextlib.suppress(ActivityError):
        await to_its_end(asyncio.create_task(removal))


async def finish(name: str, ending: Ending) -> None:
    """Mark the final state."""
    marking = workflow.execute_activity(
        name, ending, start_to_close_timeout=timedelta(minutes=2), retry_policy=UNTIL_IT_WORKS
    )
    await to_its_end(asyncio.create_task(marking))


async def to_its_end(work: asyncio.Task[Any]) -> None:
    """Wait for work, whatever happens meanwhile: a cancellation that comes now is too late."""
    while not work.done():
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError:
            continue


def queue(request: Request) -> str:
    """Return the task queue of the workers that can run the training."""
    return QUEUES[request.runner]


def judge(job: str, error: BaseException) -> Ending:
    """Return the ending that a failure of an activity stands for."""
    if is_cancelled_exception(error) or workflow.cancellation_reason() is not None:
        return Ending(job, "cancelled", "cancelled")
    cause = error.cause if isinstance(error, ActivityError) else error
    if isinstance(cause, ApplicationError):
        lines = [str(line) for line in (cause.details[0] if cause.details else [])]
        return Ending(job, "failed", cause.message, lines)
    return Ending(job, "failed", f"the training was lost repeatedly: {cause}")
