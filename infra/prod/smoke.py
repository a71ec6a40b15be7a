"""The contract of a deployed site, tried by a pod inside its cluster, with its names, TLS, logins and policies."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from infra.errors import PlatformError
from infra.prod import network
from infra.prod.cluster import Cluster, Object
from infra.prod.rules.base import of_kind

NAMESPACE, SERVER = "platform", "platform-backend"
BUDGET = 600.0
"""Seconds for the pod to come, to ask everything and to end."""
_LEFT_OUT = ("ports", "startupProbe", "readinessProbe", "livenessProbe", "lifecycle")
"""Parts of a server that a pod which ends does not have."""


@dataclass(frozen=True)
class SmokeCheck:
    """One question: its name, whether it went well, why not."""

    check: str
    ok: bool
    why: str


def run(
    cluster: Cluster,
    objects: Sequence[Object],
    with_training: bool,
    budget: float = BUDGET,
    sleep: Callable[[float], None] = time.sleep,
) -> list[SmokeCheck]:
    """Ask everything from a pod of its own, which is removed again.

    Args:
        objects: the site as it is rendered.
        with_training: also run a training of one epoch, which stays in the lists of trainings.

    Raises:
        PlatformError: NOT_FOUND for a site without a backend; WAIT_TIMEOUT; SERVICE_FAILED when the pod says nothing.
    """
    job = made(objects, f"platform-smoke-{datetime.now(UTC):%Y%m%d%H%M%S}", with_training)
    cluster.run("create", "-f", "-", stdin=json.dumps(job))
    name = job["metadata"]["name"]
    try:
        _ended(cluster, name, budget, sleep)
        return read(cluster.run("logs", "-n", NAMESPACE, f"job/{name}", check=False).out, name)
    finally:
        cluster.run("delete", "job", name, "-n", NAMESPACE, "--ignore-not-found", "--wait=false")


def made(objects: Sequence[Object], name: str, with_training: bool) -> Object:
    """Return the Job: the backend's own pod, with questions instead of a server. Raises PlatformError NOT_FOUND."""
    servers = [thing for thing in of_kind(objects, "Deployment") if thing["metadata"]["name"] == SERVER]
    if not servers:
        raise PlatformError("NOT_FOUND", f"the site has no {SERVER}")
    template = servers[0]["spec"]["template"]
    (server,) = template["spec"]["containers"]
    script = Path(__file__).with_name("smoke_checks.py").read_text(encoding="utf-8")
    container = {key: value for key, value in server.items() if key not in _LEFT_OUT}
    container |= {"name": "smoke", "command": ["python3", "-c", script]}
    container |= {"args": ["--training"]} if with_training else {}
    spec = {key: value for key, value in template["spec"].items() if key != "topologySpreadConstraints"}
    labels = {**template["metadata"]["labels"], **dict(network.SMOKE.labels)}
    pod = {"metadata": {"labels": labels}, "spec": {**spec, "restartPolicy": "Never", "containers": [container]}}
    about = {"name": name, "namespace": NAMESPACE, "labels": labels}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": about, "spec": {"backoffLimit": 0, "template": pod}}


def _ended(cluster: Cluster, name: str, budget: float, sleep: Callable[[float], None]) -> None:
    end, state = time.monotonic() + budget, dict[str, Any]()
    while not (state.get("succeeded") or state.get("failed")):
        if time.monotonic() > end:
            steps = (f"kubectl --context {cluster.context} describe pods -n {NAMESPACE} -l job-name={name}",)
            raise PlatformError("WAIT_TIMEOUT", f"the pod of {name} did not end within {budget:.0f} s", steps=steps)
        sleep(1.0)
        state = (cluster.one("job", name, NAMESPACE) or {}).get("status") or {}


def read(text: str, name: str) -> list[SmokeCheck]:
    """Read what the pod printed. Raises PlatformError SERVICE_FAILED when it holds no answer."""
    lines = [line for line in text.splitlines() if line.startswith('{"check"')]
    if not lines:
        why = next((line for line in reversed(text.splitlines()) if line.strip()), "it printed nothing")
        raise PlatformError("SERVICE_FAILED", f"{name} could not ask anything", why=why)
    return [SmokeCheck(**json.loads(line)) for line in lines]
