"""Tell where a training stands in the queue of its cluster, from what Kueue says of its Workload."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Object = Mapping[str, Any]


def note(workload: Object | None) -> str:
    """Return what a training that is suspended waits for, with Kueue's reason."""
    if workload is None:
        return "queued: Kueue has not seen it yet"
    conditions = {c["type"]: c for c in workload.get("status", {}).get("conditions", [])}
    if _true(conditions, "Admitted"):
        return "admitted"
    said = _message(conditions.get("QuotaReserved", {}))
    if _true(conditions, "Evicted"):
        evicted = conditions["Evicted"]
        what = "preempted" if evicted.get("reason") == "Preempted" else "put back in the queue"
        return f"{what}: {said or _message(evicted)}".rstrip(": ")
    return f"queued: {said}".rstrip(": ")


def _true(conditions: Mapping[str, Object], kind: str) -> bool:
    return bool(conditions.get(kind, {}).get("status") == "True")


def _message(condition: Object) -> str:
    return str(condition.get("message", "")) if condition.get("status") != "True" or "reason" in condition else ""
