"""An application for clusters of tests: it serves a file from a volume, through a Service with a NodePort."""

from __future__ import annotations

import http.client

from tests.faults.kind.cluster import READY_SECONDS, START_SECONDS, Cluster, until
from tests.rig.kind import node

NODE_PORT, WORD = 30080, "kept on a volume"


def deploy(on: Cluster) -> None:
    """A server of files from a volume, which is filled by its first start alone."""
    labels = {"app": "files"}
    script = f"[ -e /data/index.html ] || echo '{WORD}' > /data/index.html; exec httpd -f -p 8080 -h /data"
    container = {
        "name": "files",
        "image": node.SYSTEM.full_name,
        "imagePullPolicy": "Never",
        "command": ["sh", "-c", script],
        "readinessProbe": {"httpGet": {"path": "/index.html", "port": 8080}, "periodSeconds": 1},
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
        "resources": {"limits": {"memory": "64Mi"}},
    }
    volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": "files"}}]
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "16Mi"}}}
    ports = [{"port": 80, "targetPort": 8080, "nodePort": NODE_PORT}]
    on.apply(
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "files"}, "spec": claim},
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "files"},
            "spec": {
                "selector": {"matchLabels": labels},
                "template": {
                    "metadata": {"labels": labels},
                    "spec": {"containers": [container], "volumes": volumes, "terminationGracePeriodSeconds": 1},
                },
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "files"},
            "spec": {"type": "NodePort", "selector": labels, "ports": ports},
        },
    )
    until("the application is ready", lambda: deployed(on), READY_SECONDS)


def deployed(on: Cluster) -> bool:
    """Whether the application is ready."""
    return bool(on.get("deployment", "files")["status"].get("readyReplicas"))


def answer(port: int) -> str:
    """What the application answers through its NodePort."""
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        link.request("GET", "/index.html")
        return link.getresponse().read().decode().strip()
    except http.client.HTTPException as error:
        raise OSError(str(error)) from error
    finally:
        link.close()


def until_it_answers(port: int) -> None:
    """Wait until the application answers with what its volume holds."""
    until("the NodePort answers", lambda: answer(port) == WORD, START_SECONDS)
