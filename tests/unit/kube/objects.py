"""Objects as the Kubernetes API gives them, as short as they can be."""

from __future__ import annotations

from typing import Any

MADE = "2026-11-25T12:00:00Z"


def meta(name: str, namespace: str = "platform", **more: Any) -> dict[str, Any]:
    return {"name": name, "namespace": namespace, "uid": f"uid-{name}", "creationTimestamp": MADE, **more}


def released(release: str, **more: Any) -> dict[str, Any]:
    """Metadata of something that Helm has made."""
    return {"annotations": {"meta.helm.sh/release-name": release, **more}}


def workload(kind: str = "Deployment", release: str = "redis", ready: int = 1, **status: Any) -> dict[str, Any]:
    counts = {"readyReplicas": ready, "updatedReplicas": ready, "replicas": ready, "observedGeneration": 1}
    if kind == "DaemonSet":
        counts = {"numberReady": ready, "updatedNumberScheduled": ready, "desiredNumberScheduled": 1}
        counts["observedGeneration"] = 1
    labels = {"app": release}
    spec = {"replicas": 1, "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}}}
    about = meta(release, generation=1, **released(release))
    return {"kind": kind, "metadata": about, "spec": spec, "status": {**counts, **status}}


def pod(release: str = "redis", container: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """A pod whose one container is in some state; without one it runs and is ready."""
    state = {"name": "server", "ready": True, "restartCount": 0, "state": {"running": {}}, **(container or {})}
    ready = "True" if state["ready"] else "False"
    status = {"phase": "Running", "containerStatuses": [state], "conditions": [{"type": "Ready", "status": ready}]}
    labels = {"app": release, **more.pop("labels", {})}
    spec = {"containers": [{"name": "server", "resources": {"limits": {"memory": "64Mi"}}}], **more.pop("spec", {})}
    about = meta(f"{release}-0", labels=labels, **more.pop("about", {}))
    return {"metadata": about, "spec": spec, "status": {**status, **more}}


def waiting(why: str, message: str = "", restarts: int = 0, **last: Any) -> dict[str, Any]:
    """A container that does not run, and how it ended last."""
    ended = {"lastState": {"terminated": last}} if last else {}
    state = {"waiting": {"reason": why, "message": message}}
    return {"ready": False, "restartCount": restarts, "state": state, "image": "some/image:1", **ended}


def event(about: str, reason: str, message: str, kind: str = "Pod", count: int = 1) -> dict[str, Any]:
    target = {"kind": kind, "name": about, "namespace": "platform"}
    return {"involvedObject": target, "reason": reason, "message": message, "count": count, "type": "Warning"}


def claim(name: str = "data-redis", phase: str = "Bound", release: str = "redis", **spec: Any) -> dict[str, Any]:
    about = meta(name, labels={"app.kubernetes.io/instance": release})
    return {"metadata": about, "spec": spec, "status": {"phase": phase}}


def job(release: str = "redis", **status: Any) -> dict[str, Any]:
    labels = {"app.kubernetes.io/instance": release}
    spec = {"selector": {"matchLabels": {"app": release}}}
    return {"kind": "Job", "metadata": meta(f"{release}-job", labels=labels), "spec": spec, "status": status}


def failed_job(message: str) -> dict[str, Any]:
    return job(conditions=[{"type": "Failed", "status": "True", "message": message}])


def helm_secret(release: str, revision: int, status: str, **labels: str) -> dict[str, Any]:
    """The Secret in which Helm keeps a revision."""
    own = {"owner": "helm", "name": release, "version": str(revision), "status": status}
    name = f"sh.helm.release.v1.{release}.v{revision}"
    return {"metadata": meta(name, labels={**own, **labels})}
