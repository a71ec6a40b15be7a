"""The few questions and orders that a worker has for the API server of Kubernetes: Jobs, their pods, their logs.

Source: https://kubernetes.io/docs/reference/kubernetes-api/ (batch/v1 Job, core/v1 Pod).
"""

from __future__ import annotations

import base64
import contextlib
import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from infra.errors import PlatformError
from infra.kube import kubeconfig
from infra.kube.api import Api, NoAnswer
from infra.kube.kubeconfig import Access

LIMIT = 4.0
"""Seconds for one answer: shorter than a heartbeat may be late."""
LISTED = 1.0
"""Seconds for which a list of what waits in queues is good enough."""
JOB_UID = "kueue.x-k8s.io/job-uid"
"""Label of a Workload with the uid of its Job."""
MOST_LOG = 4_000_000
"""Bytes of a log that are read at once."""
ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Directory of a pod's token (kubernetes.io/docs/tasks/run-application/access-api-from-pod)."""

Object = dict[str, Any]


@dataclass(frozen=True)
class ApiResource:
    """A kind that trainings are: its API, its plural, and the label by which its pods name it."""

    api: str
    plural: str
    label: str


JOBS = ApiResource("/apis/batch/v1", "jobs", "job-name")
JOB_SETS = ApiResource("/apis/jobset.x-k8s.io/v1alpha2", "jobsets", "jobset.sigs.k8s.io/jobset-name")
"""Source: the API of JobSet 0.12, https://jobset.sigs.k8s.io/docs/reference/jobset.v1alpha2/."""
WORKLOADS = ApiResource("/apis/kueue.x-k8s.io/v1beta2", "workloads", "")
"""Source: the API of Kueue 0.19, https://kueue.sigs.k8s.io/docs/reference/kueue.v1beta2/."""


class Away(Exception):
    """The API server does not answer, or says that it cannot now."""


class Refused(Exception):
    """The API server said no; `status` is the HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def from_pod(environ: Mapping[str, str], account: Path = ACCOUNT) -> Access:
    """Return the cluster that this process runs in, as its ServiceAccount.

    Raises:
        PlatformError: USAGE when this is no pod, or one without a token.
    """
    host, port = environ.get("KUBERNETES_SERVICE_HOST", ""), environ.get("KUBERNETES_SERVICE_PORT", "443")
    if not host or not (account / "token").exists():
        raise PlatformError(
            "USAGE",
            "running trainings as Jobs requires a cluster",
            why="TRAINING_KUBECONFIG is not set, and this process has no pod ServiceAccount",
        )
    authority = (account / "ca.crt").read_text(encoding="ascii")
    # Read each time: the kubelet renews it.
    token = account / "token"
    return Access(host, int(port), authority=authority, token=lambda: token.read_text(encoding="ascii").strip())


def from_kubeconfig(path: Path) -> Access:
    """Return the cluster of a kubeconfig's current context, with a client certificate or a token.

    Raises:
        PlatformError: NOT_RUNNING when it cannot be read or used.
    """
    try:
        return kubeconfig.load(path)
    except (OSError, ValueError) as error:
        raise PlatformError(
            "NOT_RUNNING", f"{path} does not point to a cluster", why=str(error), steps=("invoke up --tier kind",)
        ) from error


class JobCluster:
    """Jobs and pods of one namespace.

    Raises (every method):
        Away: no answer within `LIMIT` seconds, or an answer that means "not now".
        Refused: it said no.
    """

    def __init__(self, access: Access, namespace: str) -> None:
        self._access, self.namespace = access, namespace
        self._lock, self._listed, self._workloads = threading.Lock(), 0.0, list[Object]()

    def knows(self, kind: ApiResource) -> bool:
        """Return whether the cluster has that kind."""
        found = self._found("GET", kind.api) or {}
        return any(entry.get("name") == kind.plural for entry in found.get("resources", []))

    def job(self, name: str, kind: ApiResource = JOBS) -> Object | None:
        """Return a Job, or None."""
        return self._found("GET", f"{self._all(kind)}/{quote(name)}")

    def workloads(self) -> list[Object]:
        """Return what Kueue knew of all trainings within the last second; [] where it is not there."""
        with self._lock:  # hundreds of trainings may wait, and each of them wants its position
            if time.monotonic() > self._listed + LISTED:
                self._workloads = list((self._found("GET", self._all(WORKLOADS)) or {}).get("items", []))
                self._listed = time.monotonic()
            return self._workloads

    def create(self, manifest: Mapping[str, Any], kind: ApiResource = JOBS) -> None:
        """Create a Job; one of that name that is there already stays."""
        try:
            self._ask("POST", self._all(kind), body=json.dumps(manifest))
        except Refused as error:
            if error.status != 409:
                raise

    def delete(self, name: str, kind: ApiResource = JOBS) -> None:
        """Delete a Job and its pods; nothing happens when there is none."""
        self._found("DELETE", f"{self._all(kind)}/{quote(name)}", propagationPolicy="Background")

    def pods(self, job: str, kind: ApiResource = JOBS) -> list[Object]:
        """Return the pods of a Job, oldest first."""
        found = json.loads(self._ask("GET", self._pods, labelSelector=f"{kind.label}={job}"))["items"]
        return sorted(found, key=lambda pod: str(pod["metadata"].get("creationTimestamp")))

    def log(self, pod: str, since: str) -> str:
        """Return the log of a pod with a timestamp (RFC 3339) before each line, from second `since` on ('': all)."""
        query = {"timestamps": "true", "limitBytes": str(MOST_LOG)} | ({"sinceTime": since} if since else {})
        try:
            return self._ask("GET", f"{self._pods}/{quote(pod)}/log", **query).decode("utf-8", "replace")
        except Refused as error:
            # There is no log before the container has started, nor after its pod has gone.
            if error.status in (400, 404):
                return ""
            raise

    def allocatable(self, resource: str) -> list[int]:
        """Return how much of an extended resource each node offers, e.g. of `nvidia.com/gpu`."""
        nodes = json.loads(self._ask("GET", "/api/v1/nodes"))["items"]
        return [int((node.get("status") or {}).get("allocatable", {}).get(resource) or 0) for node in nodes]

    def config_map(self, name: str) -> Object | None:
        """Return a ConfigMap, or None."""
        return self._found("GET", f"{self._core}/configmaps/{quote(name)}")

    def secret(self, name: str, key: str, namespace: str = "") -> bytes | None:
        """Return a value of a Secret, also of another namespace, or None."""
        found = self._found("GET", f"/api/v1/namespaces/{namespace or self.namespace}/secrets/{quote(name)}") or {}
        value = (found.get("data") or {}).get(key)
        return base64.b64decode(value) if value is not None else None

    def secrets(self, labels: Mapping[str, str]) -> list[Object]:
        """Return the Secrets with these labels."""
        selector = ",".join(f"{name}={value}" for name, value in labels.items())
        return list(json.loads(self._ask("GET", f"{self._core}/secrets", labelSelector=selector)).get("items") or [])

    def create_secret(self, manifest: Mapping[str, Any]) -> None:
        """Create a Secret; one of that name that is there already is refused."""
        self._ask("POST", f"{self._core}/secrets", body=json.dumps(manifest))

    def delete_secret(self, name: str) -> None:
        """Delete a Secret; nothing happens when there is none."""
        self._found("DELETE", f"{self._core}/secrets/{quote(name)}")

    def _all(self, kind: ApiResource) -> str:
        return f"{kind.api}/namespaces/{self.namespace}/{kind.plural}"

    @property
    def _core(self) -> str:
        return f"/api/v1/namespaces/{self.namespace}"

    @property
    def _pods(self) -> str:
        return f"{self._core}/pods"

    def _found(self, method: str, path: str, **query: str) -> Object | None:
        try:
            found: Object = json.loads(self._ask(method, path, **query))
        except Refused as error:
            if error.status == 404:
                return None
            raise
        return found

    def _ask(self, method: str, path: str, body: str | None = None, **query: str) -> bytes:
        # A connection for each: activities ask at the same time, from threads of their own.
        with contextlib.closing(Api(self._access, LIMIT)) as api:
            try:
                return api.send(method, path, body, **query)
            except NoAnswer as error:
                if not error.status:
                    raise Away(str(error)) from error
                if error.status in (429, 500, 502, 503, 504):
                    raise Away(f"the API server answered with {error.status}: {error}") from error
                raise Refused(error.status, str(error)) from error
