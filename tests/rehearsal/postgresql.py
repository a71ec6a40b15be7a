"""PostgreSQL of the rehearsal, as it is seen from this machine."""

from __future__ import annotations

import base64
import socket
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from tests.faults.kind.cluster import run, until
from tests.rehearsal.stage import Stage

SERVICE, PORT = "rehearsal-postgresql", 30543
INSTANCES = 3


def url(stage: Stage, cluster: str = "", port: int = PORT) -> str:
    """The address of the primary, by a port of the control plane, which none of the faults touches."""
    selector = {"cnpg.io/cluster": cluster or stage.server, "cnpg.io/instanceRole": "primary"}
    ports = [{"port": 5432, "nodePort": port}]
    about = {"name": f"{SERVICE}-{port}", "namespace": "platform"}
    spec = {"type": "NodePort", "selector": selector, "ports": ports}
    stage.cluster.apply({"apiVersion": "v1", "kind": "Service", "metadata": about, "spec": spec})
    host = address(stage)
    until("the Service answers", lambda: _accepts(host, port), 60)
    return f"postgresql://platform:{quote(password(stage), safe='')}@{host}:{port}/platform?sslmode=require"


def _accepts(host: str, port: int) -> bool:
    with socket.create_connection((host, port), 2):
        return True


def password(stage: Stage) -> str:
    """The password of the role `platform`."""
    found = stage.cluster.get("secret", "postgresql-platform", "-n", "platform")
    return base64.b64decode(found["data"]["password"]).decode()


def address(stage: Stage) -> str:
    """The address of the control plane in the engine's network."""
    form = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
    return run(["docker", "inspect", "--format", form, stage.cluster.control_plane])


def primary(stage: Stage, cluster: str = "") -> dict[str, Any]:
    """The pod of the primary."""
    name = stage.cluster.get("clusters.postgresql.cnpg.io", cluster or stage.server, "-n", "platform")["status"][
        "currentPrimary"
    ]
    return dict(stage.cluster.get("pod", name, "-n", "platform"))


def healthy(stage: Stage, cluster: str = "") -> bool:
    """Whether all instances are ready."""
    status = stage.cluster.get("clusters.postgresql.cnpg.io", cluster or stage.server, "-n", "platform")["status"]
    return int(status.get("readyInstances", 0)) == INSTANCES and status["phase"] == "Cluster in healthy state"


def until_healthy(stage: Stage, cluster: str = "", seconds: float = 240) -> None:
    """Wait until all instances are ready."""
    until(f"{cluster or stage.server} has all its instances", lambda: healthy(stage, cluster), seconds)


def until_another(stage: Stage, before: str, seconds: float = 180) -> None:
    """Wait for another primary than before."""
    look: Callable[[], bool] = lambda: primary(stage)["metadata"]["name"] != before  # noqa: E731
    until(f"another primary than {before}", look, seconds)
