"""The file kind/cluster.yaml as written by hand, and what is made of it for one stack. Pure but for reading.

The file works alone; what is added here concerns this machine and this stack only: the cluster's name, mounts for the
volumes and for a private certificate authority, and a node image where the host needs another one.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.errors import PlatformError

VOLUMES = "/var/local-path-provisioner"
"""Directory of volumes in the node, by kind's storage class (kind pkg/build/nodeimage/const_storage.go)."""
CERTIFICATE = "/usr/local/share/ca-certificates/platform-ca.crt"
LAST_FOR_CGROUP_V1 = "kindest/node:v1.34.11@sha256:44e222ee2132dab25ff87301682f89eb82c7880ea3a1bf543bfe9708fd08d67d"
FIRST_WITHOUT_CGROUP_V1 = (1, 35)
"""From this version on the kubelet refuses to start on cgroup v1 (kubernetes#134298)."""


@dataclass(frozen=True)
class Mount:
    """A path of this machine and where it stands in the nodes."""

    host: Path
    node: str
    read_only: bool = False


def load(path: Path) -> dict[str, Any]:
    """Return the cluster file.

    Raises:
        PlatformError: SETTINGS_UNREADABLE with the place of the mistake.
    """
    import yaml

    try:
        body = yaml.safe_load(path.read_text(encoding="utf-8"))
        if not isinstance(body, dict) or not isinstance(body.get("nodes"), list):
            raise ValueError("it does not contain a list of nodes")
    except (OSError, ValueError, yaml.YAMLError) as error:
        steps = ("fix it, or restore it from the repository: git checkout -- kind/cluster.yaml",)
        raise PlatformError("SETTINGS_UNREADABLE", f"{path} cannot be used", why=str(error), steps=steps) from error
    return body


def node_ports(body: Mapping[str, Any]) -> list[int]:
    """Return the ports of this machine that the cluster takes."""
    mapped = [m for node in body["nodes"] for m in node.get("extraPortMappings") or []]
    return [int(m["hostPort"]) for m in mapped if m.get("hostPort")]


def node_image(body: Mapping[str, Any], chosen: str, cgroup: str) -> tuple[str, str]:
    """Return the node image to use ('' leaves it to the file and to kind) and a warning ('' for none).

    Args:
        chosen: the image of the settings, '' for none.
        cgroup: `1` or `2`, as `docker info` says; '' when it is unknown.
    """
    if chosen:
        return chosen, ""
    named = next((str(n["image"]) for n in body["nodes"] if n.get("image")), "")
    version = _minor(named)
    if cgroup == "1" and (not version or version >= FIRST_WITHOUT_CGROUP_V1):
        why = f"this host uses cgroup v1, which {named or 'the newest node image'} does not support: "
        return LAST_FOR_CGROUP_V1, f"{why}{LAST_FOR_CGROUP_V1.partition('@')[0]} is used instead"
    return "", ""


def _minor(image: str) -> tuple[int, ...]:
    found = re.search(r":v(\d+)\.(\d+)", image)
    return (int(found[1]), int(found[2])) if found else ()


def effective(body: Mapping[str, Any], name: str, image: str, mounts: Sequence[Mount]) -> dict[str, Any]:
    """Return the configuration for `kind create cluster`: the file with name, image and mounts of this stack."""
    added = [{"hostPath": str(m.host), "containerPath": m.node, "readOnly": m.read_only} for m in mounts]
    ours = {m.node for m in mounts}
    nodes = []
    for node in body["nodes"]:
        own = [m for m in node.get("extraMounts") or [] if m.get("containerPath") not in ours]
        nodes.append({**node, **({"image": image} if image else {}), "extraMounts": [*own, *added]})
    return {**body, "name": name, "nodes": nodes}


def fingerprint(body: Mapping[str, Any], image: str) -> str:
    """Fingerprint what a cluster was made from: comments, order of keys and name do not matter."""
    text = json.dumps({k: v for k, v in body.items() if k != "name"} | {"image": image}, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def text(body: Mapping[str, Any]) -> str:
    """Return a configuration as kind reads it."""
    import yaml

    return str(yaml.safe_dump(dict(body), sort_keys=False, allow_unicode=True))
