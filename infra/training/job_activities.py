"""The activities of a worker whose trainings are Kubernetes Jobs; preparation and evaluation stay its programs."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from temporalio import activity
from temporalio.exceptions import ApplicationError, CancelledError

from infra import database
from infra.errors import PlatformError
from infra.training import program, temporal_client, workflow
from infra.training.activities import Activities, jobs_session, refusal, section
from infra.training.cluster import Away, JobCluster, Refused
from infra.training.contract import Contract
from infra.training.job_manifest import Shape
from infra.training.job_runner import JobLog, JobRunner, Vanished, remove_left
from infra.training.job_verdict import SUCCEEDED, JobVerdict
from infra.training.orders import OrderRefused, Orders, of_cluster
from infra.training.patience import Unavailable
from infra.training.progress import Progress
from infra.training.recorder import Recorder, Stop
from infra.training.request import JOB, Request

_log = logging.getLogger("training.worker")


class JobActivities(Activities):
    """The activities, bound to a platform, a directory for logs and a cluster."""

    runner = JOB

    def __init__(
        self, contract: Contract, logs: Path, orders: Orders | None, cluster: JobCluster, shape: Shape
    ) -> None:
        super().__init__(contract, logs, orders or Orders(b""))
        self._cluster, self._shape = cluster, shape
        self._knows_key = orders is not None

    @activity.defn(name=workflow.CLAIM_AND_RUN, no_thread_cancel_exception=True)
    def run(self, request: Request) -> None:
        """Run the training as a Job to its end; one that an earlier worker has made is taken over."""
        self._accept(request)
        with Recorder(self._contract, request, 0) as recorder:
            self._to_its_end(request, JobRunner(self._cluster, self._shape, request, recorder.beat), recorder)

    @property
    def long(self) -> list[Callable[..., object]]:
        """The activities of those who run trainings."""
        return [*super().long, self.tidy]

    @activity.defn(name=workflow.TIDY)
    def tidy(self, request: Request) -> None:
        """Remove what a training that has ended left in the cluster: its variables, and a Job that still runs.

        It does so when the worker was lost that followed the Job. A Job that has ended stays, with its logs.
        """
        self._accept(request)
        try:
            if not remove_left(self._cluster, request):
                _log.warning("an unreachable node still has a pod of %s", request.job)
        except (Away, Refused) as error:
            denied = isinstance(error, Refused) and error.status == 403
            _log.warning("what %s left in the cluster could not be removed: %s", request.job, error)
            raise ApplicationError(str(error), [], non_retryable=denied) from error

    def _to_its_end(self, request: Request, runner: JobRunner, recorder: Recorder) -> None:
        try:
            self._follow(request, runner, recorder)
        except Stop as reason:
            raise self._stopped(runner, str(reason)) from reason
        except (Away, Vanished) as error:
            raise ApplicationError(str(error)) from error
        except Refused as error:
            text = f"Kubernetes refused: {error}"
            raise ApplicationError(text, [], non_retryable=error.status not in (401, 409)) from error

    def _follow(self, request: Request, runner: JobRunner, recorder: Recorder) -> None:
        attempt = runner.adopted()
        path = self._logs / f"{request.job}.log"
        start = section(path, f"Job {runner.name}{' (taken over)' if attempt is not None else ''}")
        if attempt is None:
            self._begin(request)
            # Pods of the built-in training claim their own try: Kubernetes may start several.
            attempt = 0 if request.built_in else self._claim(request.job)
            runner.create(attempt, self._tracking(request, attempt, self._known(request)))
        recorder.attempt = attempt
        progress = Progress(self._contract, request.job)
        verdict = runner.follow(JobLog(path), recorder.line, lambda found: self._told(progress, request.job, found))
        if verdict.state != SUCCEEDED:
            self._release(request, runner, verdict)
            raise ApplicationError(verdict.reason, program.last_lines(path, start), non_retryable=True)

    def _known(self, request: Request) -> dict[str, str]:
        """Return the environment of a program as far as it is known here: of what people gave, the names."""
        return {**self._contract.values, **dict.fromkeys(request.env_names, "")}

    def _told(self, progress: Progress, job: str, found: JobVerdict) -> bool:
        """Tell the database and those who watch where a training stands; False while the database is away."""
        try:
            with jobs_session(self._contract, budget=3) as jobs:
                jobs.set_standing(job, found.standing, found.note)
        except Exception as error:
            if isinstance(error, Unavailable) or database.is_failure(error):
                return False
            raise
        progress.publish(state=found.standing)
        progress.publish(note=found.note)
        return True

    def _release(self, request: Request, runner: JobRunner, verdict: JobVerdict) -> None:
        """Remove what would go on in the cluster: other workers wait for one that never comes, or hold their quota."""
        if not verdict.ended and (request.workers > 1 or request.queue):
            try:
                runner.remove()
            except (Away, Refused) as error:
                raise ApplicationError(f"the Job {runner.name} could not be deleted: {error}") from error

    def _accept(self, request: Request) -> None:
        """Accept an order by the key of the cluster, which a worker outside reads from its Secret."""
        if not self._knows_key:
            try:
                self._orders = of_cluster(self._cluster, self._shape.signing, self._shape.application)
            except (Away, Refused, PlatformError) as error:
                raise ApplicationError(f"the key that orders are signed with is not available: {error}") from error
            self._knows_key = True
        super()._accept(request)

    def _begin(self, request: Request) -> None:
        try:
            self._orders.check_begins(request)
        except OrderRefused as error:
            raise refusal(request.job, error) from error

    def _stopped(self, runner: JobRunner, reason: str) -> BaseException:
        """Return what ends the activity: a cancelled training's Job is removed, another is left to the next attempt."""
        if not self._over(runner):
            return ApplicationError(reason)
        try:
            left = not runner.remove()
        except (Away, Refused) as error:
            return ApplicationError(f"the Job {runner.name} could not be deleted: {error}")
        return CancelledError(f"{reason}; an unreachable node still has a pod" if left else reason)

    def _over(self, runner: JobRunner) -> bool:
        """Return whether the training was cancelled or its workflow terminated, not just this attempt lost."""
        details = activity.cancellation_details()
        if not activity.is_cancelled() or details is None or details.timed_out:
            return False
        if not details.not_found:
            return True
        try:
            return temporal_client.status(self._contract, runner.job) != "RUNNING"
        except (Unavailable, PlatformError):
            return False
