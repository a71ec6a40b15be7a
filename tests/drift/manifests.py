"""What the tests of charts and manifests read: objects rendered by helm and kubectl, their pods, images of compose."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra import catalog
from infra.prod import check
from infra.settings import ROOT

Object = Mapping[str, Any]
CHARTS = tuple(chart.release for chart in catalog.CHARTS)
VALUES = ("values.yaml", "values-kind.yaml", "values-production.yaml")
OVERLAYS = ("overlays/kind", "overlays/nodeports", "overlays/production")
FOLDERS = ("namespaces", "platform", "platform/services", "observability", "temporal", *OVERLAYS)
VERSIONS = ("1.34", "1.35", "1.36")
"""Of Kubernetes: those that CloudNativePG's operator supports, and kind/cluster.yaml names one of."""

REQUIRED: Mapping[str, tuple[str, ...]] = {
    "postgresql": ("cloudnativepg.backup.destinationPath=s3://backups/platform",),
    "minio": ("external.endpoint=https://s3.example.com",),
    "platform": (
        "backend.image.tag=1.2.3",
        "frontend.image.tag=1.2.3",
        "ingress.host=platform.example.com",
        "storage.externalEndpoint=https://s3.example.com",
        "storage.internalEndpoint=https://s3.example.com",
    ),
}
"""What values-production.yaml leaves to its user, since only the user can know."""

ENGINES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("postgresql", ("engine=external", "external.host=db.example.com", "auth.password=x")),
    ("postgresql", ("engine=external", "external.host=10.0.0.7", "auth.existingSecret=mine")),
    ("postgresql", ("engine=external", "external.host=db.x", "external.caConfigMap=ca", "auth.existingSecret=mine")),
    ("postgresql", ("engine=cloudnativepg", "cloudnativepg.instances=3", "cloudnativepg.recovery.server=postgresql")),
    ("postgresql", ("engine=cloudnativepg", "cloudnativepg.walSize=1Gi", "service.type=NodePort")),
    ("postgresql", ("persistence.enabled=false", "networkPolicy.enabled=true")),
    ("redis", ("engine=external", "external.host=cache.example.com", "auth.enabled=false")),
    ("redis", ("auth.existingSecret=mine", "persistence.existingClaim=mine", "networkPolicy.enabled=true")),
    ("minio", ("server=rustfs", "image.repository=rustfs/rustfs", "image.tag=1.0.1", "region=eu-central-1")),
    ("minio", ("networkPolicy.enabled=true", "buckets.image.ref=curlimages/curl:8.16.0")),
    ("temporal", ("engine=dev",)),
    ("temporal", ("engine=external", "external.host=temporal.example.com", "external.port=443")),
    ("temporal", ("replicas=2", "networkPolicy.enabled=true", "ui.enabled=false")),
    ("temporal", ("database.tls=true", "database.caConfigMap=ca")),
    ("mlflow", ("database.existingSecret=mine", "artifacts.existingSecret=mine", "networkPolicy.enabled=true")),
    ("mlflow", ("artifacts.identity.role=mine", "database.caConfigMap=mine", "database.sslmode=verify-full")),
    ("observability", ("networkPolicy.enabled=true", "operator.enabled=true", "grafana.auth.existingSecret=mine")),
    ("platform", ("frontend.enabled=false", "worker.enabled=false", "existingSecret=mine")),
    ("platform", ("networkPolicy.enabled=true", "ingress.enabled=true", "ingress.host=x.example.com")),
)
"""Further ways to run a chart: its name and the values that say so."""


@cache
def helm() -> str:
    """Helm's path: PLATFORM_KIND_BIN, PATH, or what the rig has built. The test is skipped when it is nowhere."""
    rig = Path(os.environ.get("PLATFORM_RIG_CACHE") or Path.home() / ".cache" / "platform-infra-rig")
    # os.walk passes over what a build removes meanwhile.
    built = (folder for folder, _, _ in os.walk(rig / "parts") if folder.endswith(f"{os.sep}bin"))
    places = [os.environ.get("PLATFORM_KIND_BIN", ""), os.environ.get("PATH", "")]
    found = shutil.which("helm", path=os.pathsep.join(p for p in places if p))
    return found or shutil.which("helm", path=os.pathsep.join(built)) or ""


def kubectl() -> str:
    """Kubectl's path, found as helm is."""
    places = [os.environ.get("PLATFORM_KIND_BIN", ""), os.environ.get("PATH", "")]
    return shutil.which("kubectl", path=os.pathsep.join(p for p in places if p)) or ""


def run_helm(*words: str) -> subprocess.CompletedProcess[str]:
    """Run helm in the folder of the charts; it asks no cluster."""
    if not helm():
        pytest.skip("helm is not installed: charts cannot be rendered")
    env = {**os.environ, "KUBECONFIG": os.devnull}
    return subprocess.run(
        [helm(), *words], cwd=ROOT / "helm", capture_output=True, encoding="utf-8", env=env, timeout=60
    )


@cache
def rendered(chart: str, values: str = "values.yaml", sets: tuple[str, ...] = ()) -> tuple[Object, ...]:
    """The objects of a chart, hooks included; what production leaves to the user is filled in."""
    entry = next(c for c in catalog.CHARTS if c.release == chart)
    given = (*sets, *(REQUIRED.get(chart, ()) if values == "values-production.yaml" else ()))
    words = [word for text in given for word in ("--set", text)]
    done = run_helm("template", chart, chart, "-n", entry.namespace, "-f", f"{chart}/{values}", *words)
    assert done.returncode == 0, done.stderr
    return tuple(found for found in yaml.safe_load_all(done.stdout) if found)


@cache
def kustomized(folder: str) -> tuple[Object, ...]:
    """The objects of a folder below k8s/."""
    if not kubectl():
        pytest.skip("kubectl is not installed: kustomizations cannot be rendered")
    argv = [kubectl(), "kustomize", f"k8s/{folder}"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, encoding="utf-8", timeout=60)
    assert done.returncode == 0, done.stderr
    return tuple(found for found in yaml.safe_load_all(done.stdout) if found)


def load(path: str) -> Any:
    """A YAML file of the checkout."""
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


def name(thing: Object) -> str:
    """Kind and name, for messages."""
    return f"{thing['kind']}/{thing['metadata']['name']}"


def of_kind(objects: Sequence[Object], *kinds: str) -> list[Object]:
    """The objects of some kinds."""
    return [found for found in objects if found["kind"] in kinds]


def pods(objects: Sequence[Object]) -> Iterator[tuple[Object, Object]]:
    """Every pod, or template of one, as its owner and the pod itself (metadata and spec)."""
    for found in objects:
        if found["kind"] == "Pod":
            yield found, found
        elif "template" in found.get("spec", {}) and found["apiVersion"] in ("apps/v1", "batch/v1"):
            yield found, found["spec"]["template"]


def containers(objects: Sequence[Object]) -> Iterator[tuple[Object, Object]]:
    """Every container, as the owner of its pod and itself."""
    for owner, pod in pods(objects):
        for found in (*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]):
            yield owner, found


def invalid(thing: Object, version: str) -> str:
    """What its schema finds wrong with an object, unknown keys included; '' for nothing.

    Those of Kubernetes are of that version; those of operators are in infra/prod/schemas.
    """
    return _invalid(json.dumps(thing, sort_keys=True, default=str), version)


@cache
def _invalid(text: str, version: str) -> str:
    thing = json.loads(text)
    assert check.unchecked([thing], version) == []
    return "; ".join(f"{found.object}: {found.text}" for found in check.schemas([thing], version))


def texts(value: Any) -> Iterator[str]:
    """Every text inside an object."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from texts(inner)


def development_logins(objects: Sequence[Object]) -> list[str]:
    """Objects that contain a password of the development platform."""
    known = re.compile(r"devpass|minioadmin|prom-operator")
    return [f"{name(found)}: {text[:60]}" for found in objects for text in texts(found) if known.search(text)]


def unpinned(image: str) -> bool:
    """Whether an image reference may mean another image tomorrow."""
    last = image.rpartition("/")[2]
    tag = last.partition(":")[2]
    return "@sha256:" not in image and (not tag or tag in ("latest", "dev", "main", "edge"))


def not_restricted(objects: Sequence[Object]) -> list[str]:
    """What keeps pods from Kubernetes' standard `restricted`, or lets them write to their image."""
    found = []
    for owner, pod in pods(objects):
        spec, context = pod["spec"], pod["spec"].get("securityContext", {})
        if not context.get("runAsNonRoot") or not context.get("runAsUser"):
            found.append(f"{name(owner)} may run as root")
        if context.get("seccompProfile") != {"type": "RuntimeDefault"}:
            found.append(f"{name(owner)} has no seccomp profile")
        if any(spec.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")):
            found.append(f"{name(owner)} uses a namespace of the node")
    for owner, container in containers(objects):
        context = container.get("securityContext", {})
        if context.get("privileged") or context.get("allowPrivilegeEscalation") is not False:
            found.append(f"{name(owner)}: {container['name']} may gain privileges")
        if context.get("readOnlyRootFilesystem") is not True:
            found.append(f"{name(owner)}: {container['name']} can write to its image")
        if context.get("capabilities") != {"drop": ["ALL"]}:
            found.append(f"{name(owner)}: {container['name']} keeps capabilities")
    return found


def unlimited(objects: Sequence[Object]) -> list[str]:
    """Containers without a request or limit of CPU or memory."""
    kinds = [(part, amount) for part in ("requests", "limits") for amount in ("cpu", "memory")]
    return [
        f"{name(owner)}: {container['name']} has no {part}.{amount}"
        for owner, container in containers(objects)
        for part, amount in kinds
        if not container.get("resources", {}).get(part, {}).get(amount)
    ]


def unasked(objects: Sequence[Object]) -> list[str]:
    """Containers that listen and are not asked whether they are started, ready and alive."""
    probes = ("startupProbe", "readinessProbe", "livenessProbe")
    return [
        f"{name(owner)}: {container['name']} has no {probe}"
        for owner, container in containers(objects)
        for probe in probes
        if container.get("ports") and not container.get(probe)
    ]


def node_ports(objects: Sequence[Object]) -> dict[int, tuple[str, str, int]]:
    """NodePort -> Service, namespace and port."""
    found: dict[int, tuple[str, str, int]] = {}
    for service in of_kind(objects, "Service"):
        for port in service["spec"].get("ports", []):
            if port.get("nodePort"):
                where = (service["metadata"]["name"], service["metadata"].get("namespace", ""), port["port"])
                assert port["nodePort"] not in found, f"{where} and {found.get(port['nodePort'])} want the same port"
                found[port["nodePort"]] = where
    return found


def compose_images() -> dict[str, str]:
    """Setting -> image that the compose files use where it is not set."""
    pattern = re.compile(r"\$\{([A-Z_]+_IMAGE):-([^${}]+)\}")
    files = (ROOT / "compose").glob("docker-compose*.yml")
    return dict(match for file in files for match in pattern.findall(file.read_text(encoding="utf-8")))
