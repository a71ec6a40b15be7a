"""The variables that people give to the program of a Kubernetes Job: a Secret of the training's own.

Who orders the training makes it, so that no value passes through Temporal, a worker or the Job; an order holds the
names only. The end of the training deletes it. It is not owned by the Job: one that is deleted by hand is made again.
"""

from __future__ import annotations

import base64
import contextlib
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from infra.errors import PlatformError
from infra.training import job_manifest
from infra.training.cluster import JOB_SETS, JOBS, Away, JobCluster, Object, Refused
from infra.training.orders import VALID

OF_ORDERS = {"app.kubernetes.io/managed-by": "training-order"}
MOST = 900_000
"""Bytes of names and values together: a Secret holds a million."""
_NAME = re.compile(r"[A-Za-z_.-][A-Za-z0-9_.-]{0,252}")


def checked(env: Mapping[str, str]) -> None:
    """Refuse what no pod can have as its environment.

    Raises:
        PlatformError: USAGE; no value is in it.
    """
    for name, value in env.items():
        if not _NAME.fullmatch(name) or set(name) == {"."}:
            steps = ("letters, digits, _, . and -, with no digit at the beginning",)
            raise PlatformError("USAGE", f"a Job cannot have a variable named {name!r}", steps=steps)
        if "\0" in value or not _is_text(value):
            raise PlatformError("USAGE", f"the value of {name} is not text that a Job can have: it must be UTF-8")
    if sum(len(name) + len(value.encode()) for name, value in env.items()) > MOST:
        what = f"the variables for the Job are larger than {MOST // 1000} kB together"
        raise PlatformError("USAGE", what, steps=("put large ones into an object of the results store",))


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def secret(job: str, env: Mapping[str, str], namespace: str, owner: Object | None) -> dict[str, Any]:
    """Return the Secret of a training.

    Args:
        owner: the ConfigMap of the application; without the application the Secret is of no use.
    """
    about: dict[str, Any] = {
        "name": job_manifest.variables_of(job),
        "namespace": namespace,
        "labels": {**OF_ORDERS, "app.kubernetes.io/instance": job},
    }
    if owner is not None:
        entry = {"apiVersion": "v1", "kind": "ConfigMap", "name": owner["metadata"]["name"]}
        about["ownerReferences"] = [{**entry, "uid": owner["metadata"]["uid"]}]
    data = {name: base64.b64encode(value.encode()).decode("ascii") for name, value in env.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": about, "immutable": True, "data": data}


@dataclass(frozen=True)
class JobVariables:
    """Keeps the variables of Jobs in a cluster; `config_map` is that of the application."""

    cluster: JobCluster
    config_map: str

    def put(self, job: str, env: Mapping[str, str]) -> None:
        """Make the Secret of a training, and delete those that no training can want any more.

        Raises:
            PlatformError: USAGE; UNREACHABLE, REQUEST_REFUSED of the cluster.
        """
        checked(env)
        try:
            owner = self.cluster.config_map(self.config_map)
            self.cluster.create_secret(secret(job, env, self.cluster.namespace, owner))
            for name in forgotten(self.cluster, time.time()):
                self.cluster.delete_secret(name)
        except Away as error:
            steps = ("invoke status",)
            raise PlatformError("UNREACHABLE", "the cluster does not answer", why=str(error), steps=steps) from error
        except Refused as error:
            what = f"the variables cannot be kept in the namespace {self.cluster.namespace} of the cluster"
            rights = ("ask for the right to create, list and delete Secrets there", "or order it without --env")
            raise PlatformError("REQUEST_REFUSED", what, why=str(error), steps=rights) from error

    def drop(self, job: str) -> None:
        """Delete the Secret of a training that has not begun; what fails here is found by a later `put`."""
        with contextlib.suppress(Away, Refused):
            self.cluster.delete_secret(job_manifest.variables_of(job))


def forgotten(cluster: JobCluster, now: float) -> Iterator[str]:
    """Yield the Secrets whose order may begin no more and has no Job: it was cut off, or its workflow terminated."""
    for found in cluster.secrets(OF_ORDERS):
        about = found["metadata"]
        age = now - datetime.fromisoformat(about["creationTimestamp"]).timestamp()
        name = job_manifest.name(about["labels"].get("app.kubernetes.io/instance", ""))
        if age > VALID and not any(cluster.job(name, kind) for kind in (JOBS, JOB_SETS)):
            yield about["name"]
