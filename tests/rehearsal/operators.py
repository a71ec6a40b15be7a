"""The operators of the rehearsal, from the manifests of their own modules with the rig's images in them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.faults.kind.cluster import Cluster, run, until
from tests.rig import cache, operators
from tests.rig.recipes import Recipe

Object = dict[str, Any]
WITHOUT = ("Certificate", "Issuer", "ServiceMonitor", "PodMonitor")
"""Kinds of cert-manager and Prometheus, which the rehearsal does not have."""
READY_SECONDS = 240
RECIPES = {recipe.name: recipe for recipe in operators.OPERATORS}
SOON = [
    {"key": f"node.kubernetes.io/{state}", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 20}
    for state in ("not-ready", "unreachable")
]
"""An operator leaves a lost node sooner than the five minutes that Kubernetes gives everything."""


def install(cluster: Cluster, home: Path) -> None:
    """Apply CloudNativePG and its backup plugin, and wait until they answer."""
    log = cache.folder("logs") / "rehearsal.log"
    postgresql = _documents(operators.manifests("cnpg-operator", log) / "releases/cnpg-1.30.0.yaml")
    _apply(cluster, [_with_image(thing, RECIPES["cnpg-operator"]) for thing in postgresql])
    plugin = _documents(operators.manifests("barman-plugin", log) / "manifest.yaml")
    _apply(cluster, [*_certificates(home), *(_with_image(thing, RECIPES["barman-plugin"]) for thing in plugin)])
    for name in ("cnpg-controller-manager", "barman-cloud"):
        cluster.kubectl("rollout", "status", f"deployment/{name}", "-n", "cnpg-system", f"--timeout={READY_SECONDS}s")
    until("the operator's webhook answers", lambda: _answers(cluster), READY_SECONDS)


def _documents(path: Path) -> list[Object]:
    found = yaml.safe_load_all(path.read_text(encoding="utf-8"))
    return [thing for thing in found if thing and thing["kind"] not in WITHOUT]


def _apply(cluster: Cluster, things: list[Object]) -> None:
    text = yaml.safe_dump_all(things)
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=text)


def _with_image(thing: Object, recipe: Recipe) -> Object:
    """Put the rig's image in, two replicas on two nodes, and leave a lost node soon."""
    if thing["kind"] != "Deployment":
        return thing
    thing["spec"]["replicas"] = 2 if recipe.name == "cnpg-operator" else 1
    pod = thing["spec"]["template"]["spec"]
    pod["tolerations"] = SOON
    labels = thing["spec"]["selector"]["matchLabels"]
    term = {"labelSelector": {"matchLabels": labels}, "topologyKey": "kubernetes.io/hostname"}
    pod["affinity"] = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    for container in pod["containers"]:
        container |= {"image": recipe.reference, "imagePullPolicy": "IfNotPresent"}
        container["resources"] = {"requests": {"cpu": "20m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}}
        for entry in container.get("env") or []:
            if entry["name"] in ("OPERATOR_IMAGE_NAME", "SIDECAR_IMAGE"):
                entry.pop("valueFrom", None)
                entry["value"] = recipe.reference
    return thing


def _certificates(home: Path) -> Iterator[Object]:
    """Make the two self-signed certificates by which operator and plugin know each other, as cert-manager would."""
    for side in ("client", "server"):
        key, certificate = home / f"{side}.key", home / f"{side}.crt"
        usage = "extendedKeyUsage=serverAuth,clientAuth"
        argv = [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "30",
            "-subj",
            f"/CN=barman-{side}",
        ]
        added = ["-addext", "subjectAltName=DNS:barman-cloud", "-addext", usage]
        run([*argv, *added, "-keyout", str(key), "-out", str(certificate)])
        about = {"name": f"barman-cloud-{side}-tls", "namespace": "cnpg-system"}
        data = {"tls.crt": certificate.read_text(), "tls.key": key.read_text()}
        key.unlink()
        yield {"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": about, "stringData": data}


def _answers(cluster: Cluster) -> bool:
    """Whether an object of the operator passes its webhooks."""
    probe = {
        "apiVersion": "postgresql.cnpg.io/v1",
        "kind": "Cluster",
        "metadata": {"name": "probe", "namespace": "default"},
        "spec": {"instances": 1, "storage": {"size": "1Gi"}},
    }
    cluster.kubectl("apply", "--dry-run=server", "-f", "-", stdin=yaml.safe_dump(probe))
    return True
