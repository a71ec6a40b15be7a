"""Is what was applied ready, on its way, or hopeless: workloads as on kind, and the objects of operators."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from infra.kube import verdict
from infra.kube.snapshot import WORKLOADS, Snapshot, selects
from infra.kube.verdict import FAILED, READY, STARTING, Verdict
from infra.prod.cluster import Object, key
from infra.prod.rules.base import title

Live = Mapping[tuple[str, str, str], Object]


def judge(objects: Sequence[Object], found: Snapshot, live: Live) -> Verdict:
    """Judge one wave: the first thing that has failed, else the first that is not ready, else ready.

    Args:
        objects: what was applied.
        found: what the cluster says of workloads and pods.
        live: those of the objects that belong to operators, as they are now.
    """
    named = {
        (o["kind"], o["metadata"]["namespace"], o["metadata"]["name"])
        for o in objects
        if o["kind"] in (*WORKLOADS, "Job")
    }
    seen = [_workloads(named, found), *(_of_operator(o, live) for o in objects if operated(o))]
    for state in (FAILED, STARTING):
        for one in seen:
            if one.state == state:
                return one
    return Verdict(READY)


def _workloads(named: set[tuple[str, str, str]], found: Snapshot) -> Verdict:
    if not named:
        return Verdict(READY)
    mine = found.of_names(named)
    if failed := _failed_job(mine):
        return failed
    judged = verdict.judge(mine)
    there = len(mine.workloads) + len(mine.jobs)
    if judged.state == READY and there < len(named):
        return Verdict(STARTING, f"{len(named) - there} of {len(named)} workloads are not there yet")
    return judged


def _failed_job(found: Snapshot) -> Verdict | None:
    """Say which Job has failed as often as a server may crash: Kubernetes tries it again for ten minutes more."""
    for job in found.jobs:
        status, about = job.get("status") or {}, job["metadata"]
        pods = [p for p in found.pods if selects(job, p) and (p.get("status") or {}).get("phase") == "Failed"]
        if status.get("failed", 0) < verdict.CRASHES or status.get("succeeded"):
            continue
        why = f"the Job {about['name']} has failed {status['failed']} times"
        if not pods:
            return Verdict(FAILED, why, about["namespace"])
        last = max(pods, key=lambda p: str(p["metadata"].get("creationTimestamp", "")))
        container = last["spec"]["containers"][0]["name"]
        return Verdict(FAILED, why, about["namespace"], last["metadata"]["name"], container)
    return None


def migrating(objects: Sequence[Object], found: Snapshot) -> bool:
    """Tell whether a Job of the wave is at work: it may take as long as it needs."""
    named = {(o["kind"], o["metadata"]["namespace"], o["metadata"]["name"]) for o in objects if o["kind"] == "Job"}
    return any((j.get("status") or {}).get("active") for j in found.of_names(named).jobs)


def operated(thing: Object) -> bool:
    """Tell whether an object has a state that its operator writes."""
    return _kind(thing) in OPERATED


def _kind(thing: Object) -> str:
    return f"{thing['kind']}.{str(thing['apiVersion']).rpartition('/')[0]}"


def _of_operator(thing: Object, live: Live) -> Verdict:
    now = live.get(key(thing))
    if now is None:
        return Verdict(STARTING, f"{title(thing)} is not there yet")
    why = OPERATED[_kind(thing)](now)
    return Verdict(STARTING, f"{title(thing)}: {why}") if why else Verdict(READY)


def _cluster(now: Object) -> str:
    """Describe what a PostgreSQL cluster lacks; '' when it is as specified."""
    status = now.get("status") or {}
    wanted, ready = int(now["spec"].get("instances", 1)), int(status.get("readyInstances", 0))
    if ready < wanted:
        return f"{ready} of {wanted} instances are ready ({status.get('phase', 'no word of the operator yet')})"
    healthy = {c["type"]: c["status"] for c in status.get("conditions") or []}
    return "" if healthy.get("Ready") == "True" else str(status.get("phase", "not ready"))


def _applied(now: Object) -> str:
    """Describe what keeps a database or role from being created; '' when it is there."""
    status = now.get("status") or {}
    current = status.get("observedGeneration", 0) >= now["metadata"].get("generation", 0)
    if status.get("applied") and current:
        return ""
    return str(status.get("message") or "not made yet")


def _condition(kind: str) -> Callable[[Object], str]:
    def asked(now: Object) -> str:
        found: Any = next((c for c in (now.get("status") or {}).get("conditions") or [] if c["type"] == kind), None)
        if found is None:
            return "no word of its controller yet"
        return "" if found["status"] == "True" else str(found.get("message") or found.get("reason"))

    return asked


OPERATED: Mapping[str, Callable[[Object], str]] = {
    "Cluster.postgresql.cnpg.io": _cluster,
    "Database.postgresql.cnpg.io": _applied,
    "DatabaseRole.postgresql.cnpg.io": _applied,
    "CustomResourceDefinition.apiextensions.k8s.io": _condition("Established"),
    "ExternalSecret.external-secrets.io": _condition("Ready"),
}
"""Kinds that have a state of their own -> what it lacks, '' when it is ready."""
