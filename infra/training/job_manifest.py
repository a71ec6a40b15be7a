"""A training as a Kubernetes Job."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from infra import catalog
from infra.errors import PlatformError
from infra.training import gang
from infra.training.job_verdict import GANG_PATIENCE
from infra.training.orders import VALID
from infra.training.request import Request

CONTAINER = "training"
ATTEMPT = "training/attempt"
"""Annotation with the number of the try, where the worker has claimed it."""
BACKOFF_LIMIT = 6
"""Pods of one training that may end before their time; the pauses between them grow from 10 s to 6 min."""
KEPT = VALID + 86_400
"""Seconds after its end that a Job and its logs stay: a worker that was away still finds the outcome, and the order of
one that has ended cannot be run again."""
GRACE = 15
NODE_PATIENCE = 30
"""Seconds that a pod waits for a node that does not answer, before another one takes its place."""
GPU = "nvidia.com/gpu"
PINNED = {"karpenter.sh/do-not-disrupt": "true", "cluster-autoscaler.kubernetes.io/safe-to-evict": "false"}
"""Annotations that keep those who tidy up nodes away from a training: its work since the last checkpoint is lost."""
QUEUE, PRIORITY = "kueue.x-k8s.io/queue-name", "kueue.x-k8s.io/priority-class"
"""Labels by which Kueue takes a Job; priorities are the WorkloadPriorityClasses `training-low` and so on."""
INDEX = "batch.kubernetes.io/job-completion-index"
"""Annotation and label of a pod with the number of the worker that it is."""
PORT = 29500
"""Port of the first worker: torchrun's default, in a network of each pod's own."""
RESTARTS = 6
"""Times that all workers begin again because one has failed; a disruption does not count."""
_SET = "w"
"""Short, since names of pods are hosts' names: at most 63 characters with the training's."""
_LONGEST = 49
_USUAL = {"HOME": "/tmp", "PYTHONUNBUFFERED": "1"}
_RESOURCES = {"requests": {"cpu": "250m", "memory": "256Mi"}, "limits": {"cpu": "2", "memory": "1Gi"}}


@dataclass(frozen=True)
class Pod:
    """The demands of a cluster on a training's pod; the names are those of the JSON in TRAINING_POD.

    Selector and tolerations are for trainings with GPUs; `shared_memory` is the size of /dev/shm, which counts as
    memory of the pod ('': the container engine's 64 MiB); `ca_config_map` holds the authority of PostgreSQL's
    certificate.
    """

    gpu_resource: str = GPU
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: Sequence[Mapping[str, Any]] = ()
    shared_memory: str = ""
    priority_class: str = ""
    ca_config_map: str = ""


@dataclass(frozen=True)
class Shape:
    """The common parts of all Jobs of a worker; the names are those of the chart helm/platform.

    `signing` is a Secret of the namespace `application`, which trainings do not get.
    """

    namespace: str = catalog.TRAINING_NAMESPACE
    image: str = catalog.BACKEND_IMAGE
    service_account: str = "platform-training"
    config_map: str = "platform-env"
    secret: str = "platform-env"
    signing: str = "platform-signing"
    application: str = "platform"
    resources: Mapping[str, Any] = field(default_factory=lambda: _RESOURCES)
    gpus: int = 0
    pod: Pod = field(default_factory=lambda: Pod())
    user: int = 1000
    patience: float = GANG_PATIENCE

    @property
    def memory(self) -> str:
        """The limit of memory, in words."""
        return str(self.resources.get("limits", {}).get("memory", "none of its own, but its node has one"))


def shape(environ: Mapping[str, str]) -> Shape:
    """Read it from the worker's environment: TRAINING_NAMESPACE, TRAINING_IMAGE and so on; all have defaults.

    Raises:
        PlatformError: USAGE when TRAINING_RESOURCES or TRAINING_POD is no fitting JSON, or TRAINING_GPUS or
            TRAINING_PATIENCE (seconds) no number.
    """
    plain = Shape()
    try:
        resources = json.loads(environ.get("TRAINING_RESOURCES") or "{}")
        gpus = int(environ.get("TRAINING_GPUS") or "0")
        patience = float(environ.get("TRAINING_PATIENCE") or plain.patience)
        pod = Pod(**json.loads(environ.get("TRAINING_POD") or "{}"))
    except (ValueError, TypeError) as error:
        what = "TRAINING_RESOURCES, TRAINING_POD, TRAINING_GPUS or TRAINING_PATIENCE cannot be used"
        raise PlatformError("USAGE", what, why=str(error)) from error
    return Shape(
        namespace=environ.get("TRAINING_NAMESPACE") or plain.namespace,
        image=environ.get("TRAINING_IMAGE") or plain.image,
        service_account=environ.get("TRAINING_SERVICE_ACCOUNT") or plain.service_account,
        config_map=environ.get("TRAINING_CONFIG_MAP") or plain.config_map,
        secret=environ.get("TRAINING_SECRET") or plain.secret,
        resources=resources or plain.resources,
        gpus=gpus,
        pod=pod,
        patience=patience,
    )


def worker(pods: Sequence[dict[str, Any]], rank: int) -> list[dict[str, Any]]:
    """Return the pods of one worker; a pod without a number is the only one."""
    return [pod for pod in pods if pod["metadata"].get("labels", {}).get(INDEX, str(rank)) == str(rank)]


def name(job: str) -> str:
    """Return the Job's name, derived from the training's id: a worker that takes over finds the same Job."""
    whole = f"training-{job}"
    if len(whole) <= _LONGEST:
        return whole
    return f"{whole[: _LONGEST - 9].rstrip('-')}-{hashlib.sha256(job.encode()).hexdigest()[:8]}"


def variables_of(job: str) -> str:
    """Return the name of the Secret with the variables that people gave to a training."""
    return f"{name(job)}-env"


def manifest(request: Request, shape: Shape, attempt: int, env: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return the Job of a training, of several workers the JobSet.

    Args:
        request: the training.
        shape: what all Jobs have in common.
        attempt: the number of its try, 0 where each pod claims its own.
        env: further variables for its program.
    """
    labels = {
        "app.kubernetes.io/name": "training",
        "app.kubernetes.io/instance": request.job,
        "app.kubernetes.io/component": "training",
        "app.kubernetes.io/managed-by": "training-worker",
    }
    queued = {QUEUE: request.queue} if request.queue else {}
    queued |= {PRIORITY: f"training-{request.priority}"} if request.priority else {}
    about = {"name": name(request.job), "namespace": shape.namespace, "labels": {**labels, **queued}}
    meta = {**about, "annotations": {ATTEMPT: str(attempt)}}
    pod = {
        "metadata": {"labels": labels, "annotations": dict(PINNED)},
        "spec": _pod(request, shape, attempt, env or {}),
    }
    if request.workers > 1:
        return _gang(request.workers, meta, pod)
    # A drained node, an eviction or a preemption is no failure of the training's.
    spec = {"backoffLimit": BACKOFF_LIMIT, "podFailurePolicy": _on_disruption("Ignore"), "template": pod}
    whole = {**spec, "ttlSecondsAfterFinished": KEPT}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": meta, "spec": whole}


def _gang(workers: int, meta: dict[str, Any], pod: dict[str, Any]) -> dict[str, Any]:
    """Return a JobSet whose workers begin again together: a Job alone would replace one, and the rest would wait."""
    spec = {
        "completionMode": "Indexed",
        "parallelism": workers,
        "completions": workers,
        "backoffLimit": 0,
        "podFailurePolicy": _on_disruption("FailJob"),
        "template": pod,
    }
    disrupted = {"name": "disrupted", "action": "RestartJobSetAndIgnoreMaxRestarts"}
    rule = {**disrupted, "onJobFailureReasons": ["PodFailurePolicy"]}
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": meta,
        "spec": {
            "replicatedJobs": [{"name": _SET, "replicas": 1, "template": {"spec": spec}}],
            "network": {"enableDNSHostnames": True, "publishNotReadyAddresses": True},
            "failurePolicy": {"maxRestarts": RESTARTS, "rules": [rule]},
            "ttlSecondsAfterFinished": KEPT,
        },
    }


def _on_disruption(action: str) -> dict[str, Any]:
    return {"rules": [{"action": action, "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}]}


def _pod(request: Request, shape: Shape, attempt: int, env: Mapping[str, str]) -> dict[str, Any]:
    gone = [{"key": f"node.kubernetes.io/{key}", "operator": "Exists"} for key in ("not-ready", "unreachable")]
    wanted, gpus = shape.pod, request.gpus or shape.gpus
    found = {
        "restartPolicy": "Never",
        "serviceAccountName": shape.service_account,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": GRACE,
        "tolerations": [
            *({**t, "effect": "NoExecute", "tolerationSeconds": NODE_PATIENCE} for t in gone),
            *(wanted.tolerations if gpus else ()),
        ],
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": shape.user,
            "runAsGroup": shape.user,
            "fsGroup": shape.user,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(request, shape, attempt, env)],
        "volumes": [volume for volume, _ in _volumes(wanted)],
    }
    found |= {"nodeSelector": dict(wanted.node_selector)} if gpus and wanted.node_selector else {}
    return found | ({"priorityClassName": wanted.priority_class} if wanted.priority_class else {})


def _volumes(wanted: Pod) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """List each volume with its mount."""
    found: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({"name": "tmp", "emptyDir": {}}, {"name": "tmp", "mountPath": "/tmp"})
    ]
    if wanted.shared_memory:  # what several processes of one program exchange their data by
        size = {"medium": "Memory", "sizeLimit": wanted.shared_memory}
        found.append(({"name": "shm", "emptyDir": size}, {"name": "shm", "mountPath": "/dev/shm"}))
    if wanted.ca_config_map:
        mount = {"name": "postgresql-ca", "mountPath": "/etc/postgresql-ca", "readOnly": True}
        found.append(({"name": "postgresql-ca", "configMap": {"name": wanted.ca_config_map}}, mount))
    return found


def _container(request: Request, shape: Shape, attempt: int, env: Mapping[str, str]) -> dict[str, Any]:
    return {
        "name": CONTAINER,
        "image": request.image or shape.image,
        "imagePullPolicy": "IfNotPresent",
        "command": list(request.command) or _built_in(request),
        "envFrom": [{"configMapRef": {"name": shape.config_map}}, {"secretRef": {"name": shape.secret}}],
        "env": _variables(request, shape, attempt, env),
        "resources": _resources(request.gpus or shape.gpus, shape.resources, shape.pod.gpu_resource),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [mount for _, mount in _volumes(shape.pod)],
    }


def _variables(request: Request, shape: Shape, attempt: int, env: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the variables beside the contract; those that people gave are taken from their Secret, by name."""
    fixed = {"TRAINING_JOB_ID": request.job} | ({"TRAINING_ATTEMPT": str(attempt)} if attempt else {})
    ours = _rank(request, shape) + _plain(fixed)
    taken = {entry["name"] for entry in ours}
    given = [name for name in request.env_names if name not in taken]
    usual = {name: value for name, value in {**_USUAL, **env}.items() if name not in given}
    return [*ours, *(_given(name, variables_of(request.job)) for name in given), *_plain(usual)]


def _plain(found: Mapping[str, str]) -> list[dict[str, Any]]:
    return [{"name": name, "value": value} for name, value in found.items()]


def _given(name: str, secret: str) -> dict[str, Any]:
    return {"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": name}}}


def _rank(request: Request, shape: Shape) -> list[dict[str, Any]]:
    """Return the variables by which a worker finds the others; of the number itself, Kubernetes fills in the value."""
    if request.workers == 1:
        return []
    whole = name(request.job)
    host = f"{whole}-{_SET}-0-0.{whole}"
    found = gang.rendezvous("$(RANK)", request.workers, host, PORT, request.gpus or shape.gpus)
    place = {"fieldRef": {"fieldPath": f"metadata.annotations['{INDEX}']"}}
    first = {"name": "RANK", "valueFrom": place}
    return [first, *_plain({key: value for key, value in found.items() if key != "RANK"})]


def _built_in(request: Request) -> list[str]:
    options = {"job": request.job, "dataset": request.dataset, "epochs": request.epochs}
    words = [word for option, value in options.items() for word in (f"--{option}", str(value))]
    program = "trainer" if request.workers == 1 else "parallel"
    return ["python3", "-u", "-m", f"infra.training.{program}", *words]


def _resources(gpus: int, base: Mapping[str, Any], resource: str) -> dict[str, Any]:
    # Extended resources are limits that are requests at the same time.
    limits = {**base.get("limits", {}), **({resource: str(gpus)} if gpus else {})}
    return {**base, **({"limits": limits} if limits else {})}
