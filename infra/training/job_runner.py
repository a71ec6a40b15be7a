"""A training as a Kubernetes Job: made or found again, followed to its end, taken away when it is cancelled."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeVar

from infra import private
from infra.stack import read_json, write_atomic
from infra.training import job_manifest, job_queue, job_verdict
from infra.training.cluster import JOB_SETS, JOB_UID, JOBS, MOST_LOG, Away, JobCluster, Object, Refused
from infra.training.job_manifest import ATTEMPT, Shape
from infra.training.job_queue import Standing
from infra.training.job_verdict import RUNNING, JobVerdict
from infra.training.request import Request

T = TypeVar("T")

POLL = 1.0
"""Seconds between two checks of the Job."""
QUEUED_POLL = 3.0
"""The same for one that waits in a queue."""
RETOLD = 5.0
"""Seconds between two reports of what a training waits for, such as its position, while its state stays the same."""
BEAT = 0.25
"""Seconds between two heartbeats."""
PATIENCE = 600.0
"""Seconds for which the API server may be unreachable before the training is handed over to another worker."""
REFUSAL_PATIENCE = 30.0
"""Seconds for our rights to be known: an API server that has just started refuses everybody for a moment."""
FLOOD = MOST_LOG // 4
"""Characters of an answer that may have been cut: there are at most four bytes to one."""
REMOVAL = 60.0
"""Seconds for the pods of a cancelled training to end."""


class Vanished(Exception):
    """Somebody has deleted the Job."""


class JobRunner:
    """One training's Job.

    Raises (every method):
        Away: the API server was away for `PATIENCE` seconds.
        Refused: it said no.
        Exception: what `beat` raises, e.g. because the training was cancelled; the Job is untouched then.
    """

    def __init__(self, cluster: JobCluster, shape: Shape, request: Request, beat: Callable[[], None]) -> None:
        self._cluster, self._shape, self._request, self._beat = cluster, shape, request, beat
        self.job, self.name = request.job, job_manifest.name(request.job)
        self._kind = JOBS if request.workers == 1 else JOB_SETS

    def adopted(self) -> int | None:
        """Return the number of the attempt that an existing Job was made for; None when there is no Job."""
        found = self._patiently(lambda: self._cluster.job(self.name, self._kind))
        while found is not None and found["metadata"].get("deletionTimestamp"):
            self._pause(POLL)
            found = self._patiently(lambda: self._cluster.job(self.name, self._kind))
        return int(found["metadata"].get("annotations", {}).get(ATTEMPT, "0")) if found is not None else None

    def create(self, attempt: int, env: Mapping[str, str] | None = None) -> None:
        """Make the Job, with further variables for its program."""
        manifest = job_manifest.manifest(self._request, self._shape, attempt, env)
        self._patiently(lambda: self._cluster.create(manifest, self._kind))

    def follow(
        self, log: JobLog, on_line: Callable[[str], object], on_change: Callable[[JobVerdict], bool]
    ) -> JobVerdict:
        """Follow the Job to its end, which is returned; each line that it prints goes to the log and to `on_line`.

        Args:
            log: where the lines go.
            on_line: gets each line.
            on_change: gets a verdict that differs from the last; where it returns False, it gets it again.

        Raises:
            Vanished: it was deleted meanwhile.
        """
        told, at = None, 0.0
        while True:
            verdict, pods = self._patiently(self._look)
            for line in self._patiently(lambda pods=pods: log.news(self._cluster, pods)):  # type: ignore[misc]
                on_line(line)
            if verdict.state != RUNNING:
                return verdict
            due = told is None or verdict.standing != told.standing or time.monotonic() > at + RETOLD
            if verdict != told and due and on_change(verdict):
                told, at = verdict, time.monotonic()
            self._pause(QUEUED_POLL if verdict.standing in job_queue.WAITING else POLL)

    def _look(self) -> tuple[JobVerdict, list[Object]]:
        found = self._cluster.job(self.name, self._kind)
        if found is None or found["metadata"].get("deletionTimestamp"):
            raise Vanished(f"the Job {self.name} was deleted")
        pods = self._cluster.pods(self.name, self._kind)
        shape, workers = self._shape, self._request.workers
        verdict = job_verdict.judge(
            found, pods, shape.memory, workers=workers, queue=self._standing(found), patience=shape.patience
        )
        return verdict, job_manifest.worker(pods, 0)

    def _standing(self, job: Object) -> Standing | None:
        """Return where a Job with a queue stands in it; a worker without the right to ask says as much."""
        if not self._request.queue:
            return None
        if not job.get("spec", {}).get("suspend"):
            return Standing(job_queue.ADMITTED)
        try:
            every, uid = self._cluster.workloads(), job["metadata"].get("uid")
            own = next((w for w in every if (w["metadata"].get("labels") or {}).get(JOB_UID) == uid), None)
            return job_queue.standing(own, every)
        except Refused as error:
            return Standing(job_queue.QUEUED, f"Kueue cannot be asked: {error}")

    def ended(self) -> bool:
        """Return whether the Job has ended, or is not there."""
        found = self._cluster.job(self.name, self._kind)
        return found is None or job_verdict.has_ended(found)

    def remove(self) -> bool:
        """Delete the Job and its pods; whether all were gone in time (a node that is away keeps its pod)."""
        end = time.monotonic() + REMOVAL
        self._cluster_deletes(end)
        while time.monotonic() < end:
            with contextlib.suppress(Away):
                if self._cluster.job(self.name, self._kind) is None and not self._cluster.pods(self.name, self._kind):
                    return True
            self._rest(BEAT)
        return False

    def _cluster_deletes(self, end: float) -> None:
        while True:
            try:
                self._cluster.delete(self.name, self._kind)
                return
            except Away:
                if time.monotonic() > end:
                    raise
            self._rest(POLL)

    def _patiently(self, call: Callable[[], T]) -> T:
        began = time.monotonic()
        while True:
            # A slow answer must not make the pauses between two beats add up.
            self._beat()
            try:
                return call()
            except Away:
                if time.monotonic() > began + PATIENCE:
                    raise
            except Refused as error:
                if error.status not in (401, 403) or time.monotonic() > began + REFUSAL_PATIENCE:
                    raise
            self._pause(POLL)

    def _pause(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._beat()
            time.sleep(BEAT)

    def _rest(self, seconds: float) -> None:
        # The reason to stop is known; now the beat only has to show that we are alive.
        with contextlib.suppress(Exception):
            self._beat()
        time.sleep(seconds)


def remove_left(cluster: JobCluster, request: Request) -> bool:
    """Remove the Secret of a training that has ended, and its Job if that has not; False where a pod stays.

    Raises:
        Away, Refused: as the cluster answers.
    """
    runner = JobRunner(cluster, Shape(), request, lambda: None)
    gone = runner.ended() or runner.remove()
    if request.env_names:
        cluster.delete_secret(job_manifest.variables_of(request.job))
    return gone


class JobLog:
    """The log of a training: what its pods print, each line once, also when another worker (or try) goes on."""

    _writing = threading.Lock()
    """An attempt that was considered lost may still run in this process next to its successor."""

    def __init__(self, path: Path) -> None:
        self._path, self._place = path, path.with_suffix(".since.json")

    def news(self, cluster: JobCluster, pods: list[Object]) -> list[str]:
        """Return new lines of all pods, appended to the file."""
        since = self._since()
        # The server takes whole seconds; what was seen before is left out below.
        texts = [cluster.log(pod["metadata"]["name"], since[:19] + "Z" if since else "") for pod in pods]
        with self._writing:
            # The last entry is empty, or cut off.
            lines = self._append([entry for text in texts for entry in text.split("\n")[:-1]])
            flood = next((text for text in texts if len(text) >= FLOOD), "")
            if flood and not lines:
                self._pass_over(flood[:19])
            return lines

    def _pass_over(self, second: str) -> None:
        """Go on a second later: more was printed within one than is read at once."""
        later = datetime.fromisoformat(f"{second}+00:00") + timedelta(seconds=1)
        with private.appending(self._path) as file:
            file.write(f"== the rest of what was printed at {second}Z is left out: it is too much\n".encode())
        write_atomic(self._place, json.dumps({"since": f"{later:%Y-%m-%dT%H:%M:%S}Z"}), sync=False)

    def _since(self) -> str:
        return str((read_json(self._place) or {}).get("since", ""))

    def _append(self, entries: list[str]) -> list[str]:
        lines, since = [], self._since()
        for entry in entries:
            stamp, _, line = entry.partition(" ")
            if _nanoseconds(stamp) > _nanoseconds(since):
                since = stamp
                lines.append(line)
        if lines:
            with private.appending(self._path) as file:
                file.write("".join(f"{line}\n" for line in lines).encode("utf-8", "replace"))
            write_atomic(self._place, json.dumps({"since": since}), sync=False)
        return lines


def _nanoseconds(stamp: str) -> tuple[str, str]:
    """Return a timestamp as something to compare: containers cut the zeros at the end of the fraction off."""
    whole, _, fraction = stamp.removesuffix("Z").partition(".")
    return whole, fraction.ljust(9, "0")
