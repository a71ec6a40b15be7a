"""Tell where a training stands in the queue of its cluster, from what Kueue says of its Workload.

Source: https://kueue.sigs.k8s.io/docs/concepts/workload/ and the order of the queue, by priority and then by age.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Object = Mapping[str, Any]
QUEUED, PREEMPTED, ADMITTED, RUNNING = "queued", "preempted", "admitted", "running"
"""States of a training in a cluster, as the database has them."""
WAITING = (QUEUED, PREEMPTED)


@dataclass(frozen=True)
class Standing:
    """A state of a training that waits, and what for; '' where Kueue gives no reason."""

    state: str
    note: str = ""


UNSEEN = Standing(QUEUED, "Kueue has not seen it yet")


def standing(workload: Object | None, others: Sequence[Object] = ()) -> Standing:
    """Return where a suspended training stands.

    Args:
        workload: its own; None where Kueue has made none yet.
        others: all Workloads of its namespace, for its position.
    """
    if workload is None:
        return UNSEEN
    conditions = _conditions(workload)
    if _true(conditions, "Admitted"):
        return Standing(ADMITTED)
    evicted = conditions.get("Evicted", {}) if _true(conditions, "Evicted") else {}
    said = _message(conditions.get("QuotaReserved", {})) or str(evicted.get("message", ""))
    note = ": ".join(part for part in (_position(workload, others), said) if part)
    return Standing(PREEMPTED if evicted.get("reason") == "Preempted" else QUEUED, note)


def _position(workload: Object, others: Sequence[Object]) -> str:
    """Return its place among those that wait in the same queue, e.g. `2 of 3`; '' where that is not known."""
    queue = workload.get("spec", {}).get("queueName")
    waiting = sorted((w for w in others if w.get("spec", {}).get("queueName") == queue and _waits(w)), key=_turn)
    uids = [w["metadata"].get("uid") for w in waiting]
    own = workload.get("metadata", {}).get("uid")
    return f"{uids.index(own) + 1} of {len(uids)}" if own in uids else ""


def _waits(workload: Object) -> bool:
    conditions = _conditions(workload)
    return workload["spec"].get("active", True) and not any(_true(conditions, c) for c in ("QuotaReserved", "Finished"))


def _turn(workload: Object) -> tuple[int, str]:
    return -int(workload["spec"].get("priority") or 0), str(workload["metadata"].get("creationTimestamp"))


def _conditions(workload: Object) -> dict[str, Object]:
    return {c["type"]: c for c in workload.get("status", {}).get("conditions", [])}


def _true(conditions: Mapping[str, Object], kind: str) -> bool:
    return bool(conditions.get(kind, {}).get("status") == "True")


def _message(condition: Object) -> str:
    return str(condition.get("message", "")) if condition.get("status") != "True" else ""
