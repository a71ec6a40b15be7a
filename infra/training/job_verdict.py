"""The state of a training's Job, from what the API server says of it and of its pods."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from infra.training import job_queue
from infra.training.job_queue import Standing
from infra.training.patience import EXIT_TEMPORARY

RUNNING, SUCCEEDED, FAILED = "running", "succeeded", "failed"
DONE = ("Complete", "Completed")
"""Conditions of a Job and of a JobSet that has succeeded."""
ENDS = (*DONE, "Failed")
GANG_PATIENCE = 600.0
"""Seconds for the last of several workers to get a node, since the others wait for it: time for a new node to come."""
PULL_PATIENCE = 15.0
"""Seconds for an image, once its first pull has failed."""
_AT_ONCE = ("InvalidImageName", "ErrImageNeverPull")
_STUCK = ("ErrImagePull", "ImagePullBackOff", "CreateContainerConfigError", "CreateContainerError", "RunContainerError")
# Signals by which others end a program: another pod may do better.
_OUTSIDE = {128 + int(getattr(signal, n, 0)) for n in ("SIGKILL", "SIGTERM", "SIGINT", "SIGHUP")} - {128}
RETRIED = _OUTSIDE | {EXIT_TEMPORARY}

Object = Mapping[str, Any]


@dataclass(frozen=True)
class JobVerdict:
    """running, succeeded or failed; why it failed, or (`note`) what it waits for.

    `standing` is the state of one that has not ended, `ended` whether its Job has: else it goes on.
    """

    state: str
    reason: str = ""
    note: str = ""
    standing: str = job_queue.RUNNING
    ended: bool = False


def judge(
    job: Object,
    pods: Sequence[Object],
    memory: str,
    now: datetime | None = None,
    *,
    workers: int = 1,
    queue: Standing | None = None,
    patience: float = GANG_PATIENCE,
) -> JobVerdict:
    """Return the verdict on a Job (or JobSet) and its pods, oldest first.

    Args:
        memory: limit of a pod, for the reason.
        workers: how many pods it has.
        queue: where it stands in its queue; None for one that waits in none.
        patience: seconds for each of several workers to get a node.
    """
    conditions = {c["type"]: c for c in job.get("status", {}).get("conditions", []) if c.get("status") == "True"}
    if any(done in conditions for done in DONE):
        return JobVerdict(SUCCEEDED, ended=True)
    if job.get("spec", {}).get("suspend") and "Failed" not in conditions:
        found = queue or Standing(job_queue.QUEUED, "it is suspended")
        return JobVerdict(RUNNING, note=found.note, standing=found.state)
    alone, at = workers == 1, now or datetime.now(UTC)
    reason = next((text for pod in pods if (text := _hopeless(pod, memory, at, alone))), "")
    reason = reason or ("" if alone else _unplaced(pods, workers, at, patience) or _all_failed(pods, workers))
    if reason:
        return JobVerdict(FAILED, reason, ended="Failed" in conditions)
    if "Failed" in conditions:
        return JobVerdict(FAILED, _given_up(conditions["Failed"], pods), ended=True)
    count = sum(pod.get("status", {}).get("phase") in ("Running", "Succeeded") for pod in pods)
    begun = job_queue.RUNNING if count or queue is None else job_queue.ADMITTED
    if not pods:
        return JobVerdict(RUNNING, note="waiting for its pod", standing=begun)
    return JobVerdict(RUNNING, note=_obstacle(pods[-1]) if alone else _missing(pods, count, workers), standing=begun)


def has_ended(job: Object) -> bool:
    """Return whether a Job (or JobSet) has come to its end."""
    conditions = job.get("status", {}).get("conditions", [])
    return any(c["type"] in ENDS and c.get("status") == "True" for c in conditions)


def _missing(pods: Sequence[Object], count: int, workers: int) -> str:
    """Return how many workers run, and what keeps one of the others; '' when all run."""
    waiting = next((text for pod in pods if (text := _obstacle(pod))), "")
    return "" if count >= workers else f"{count} of {workers} workers run: {waiting}".removesuffix(": ")


def _unplaced(pods: Sequence[Object], workers: int, now: datetime, patience: float) -> str:
    """Return which worker has waited too long for a node, and why there is none; '' for none."""
    for pod in pods:
        about, condition = pod.get("metadata", {}), _unscheduled(pod)
        if condition and _age(pod, now) > patience:
            which = f"{about.get('name', 'a pod')}, one of {workers} workers,"
            said = condition.get("message", "")
            return f"{which} could not be placed within {patience:.0f} s: {said}".removesuffix(": ")
    return ""


def _all_failed(pods: Sequence[Object], workers: int) -> str:
    """Return how the first worker ended, where each of them has failed of its own accord; '' otherwise.

    One that fails for want of another does so, too; but then the other one was killed, or is gone.
    """
    ends = [_own_failure(pod) for pod in pods]
    return _ending(ends[0]) if len(ends) == workers and all(ends) else ""


def _own_failure(pod: Object) -> Object:
    ends = (state["terminated"] for state in _states(pod) if "terminated" in state)
    return next((end for end in ends if _by_itself(end) and not _disrupted(pod)), {})


def _unscheduled(pod: Object) -> Object:
    conditions = pod.get("status", {}).get("conditions", [])
    return next((c for c in conditions if c["type"] == "PodScheduled" and c["status"] == "False"), {})


def _hopeless(pod: Object, memory: str, now: datetime, alone: bool) -> str:
    """Return why no further pod would do better; '' when one may.

    Of several workers, one that fails may do so for want of another: all begin again.
    """
    for state in _states(pod):
        ended, waiting = state.get("terminated"), state.get("waiting", {})
        if ended and ended.get("reason") == "OOMKilled":
            return f"the training was killed: out of memory, over its limit ({memory})"
        if alone and ended and _by_itself(ended) and not _disrupted(pod):
            return _ending(ended)
        if waiting.get("reason") in _AT_ONCE or (waiting.get("reason") in _STUCK and _age(pod, now) > PULL_PATIENCE):
            return f"the pod cannot start: {waiting['reason']}: {waiting.get('message', '')}".strip(": ")
    return ""


def _by_itself(ended: Object) -> bool:
    """Return whether the program has failed of its own accord."""
    # The reason given for a program that went down with its node; its own end is unknown (containerd, kubelet).
    lost = ended.get("reason") in ("Unknown", "ContainerStatusUnknown")
    return bool(ended["exitCode"]) and ended["exitCode"] not in RETRIED and not lost


def _states(pod: Object) -> Iterator[Object]:
    return (entry.get("state", {}) for entry in pod.get("status", {}).get("containerStatuses", []))


def _ending(ended: Object) -> str:
    reason = ended.get("reason", "")
    said = f": {reason} {ended.get('message', '')}".rstrip() if reason not in ("", "Error") else ""
    return f"the training ended with exit status {ended['exitCode']}{said}"


def _disrupted(pod: Object) -> bool:
    """Return whether others ended the pod: evicted, preempted, its node drained or gone."""
    status = pod.get("status", {})
    told = (c["type"] == "DisruptionTarget" and c["status"] == "True" for c in status.get("conditions", []))
    return status.get("reason") in ("Evicted", "NodeLost", "Shutdown") or any(told)


def _age(pod: Object, now: datetime) -> float:
    made = pod.get("metadata", {}).get("creationTimestamp")
    return (now - datetime.fromisoformat(made)).total_seconds() if made else 0.0


def _given_up(condition: Object, pods: Sequence[Object]) -> str:
    if condition.get("reason") != "BackoffLimitExceeded":
        return f"the Job failed: {condition.get('message') or condition.get('reason')}"
    last = next((_ending(s["terminated"]) for pod in reversed(pods) for s in _states(pod) if "terminated" in s), "")
    return f"{last or 'the training was ended'}, repeatedly; giving up"


def _obstacle(pod: Object) -> str:
    """Tell what keeps the newest pod from running; '' when it runs."""
    status = pod.get("status", {})
    if condition := _unscheduled(pod):
        return f"waiting for a node: {condition.get('message', '')}".strip(": ")
    waiting: Object = next((s["waiting"] for s in _states(pod) if "waiting" in s), {})
    if waiting:
        return f"its pod is starting: {waiting.get('reason', '')} {waiting.get('message', '')}".strip(": ")
    return "" if status.get("phase") == "Running" else "its pod is starting"
