"""Images on the nodes of the rehearsal: by the names that the site asks for, with the digests of containerd."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence

from tests.faults.kind.cluster import Cluster, run
from tests.rig import operators, recipes

OWN = {recipe.name: recipe.reference for recipe in (*recipes.RECIPES, *operators.OPERATORS)}
STAND_INS = {
    "valkey/valkey": "valkey",
    "temporalio/server": "temporal-server",
    "temporalio/admin-tools": "temporal-admin-tools",
    "temporalio/ui": "temporal-ui",
    "ghcr.io/mlflow/mlflow": "mlflow",
    "pgsty/silo": "object-store",
    "cnpg-postgres": "cnpg-postgres",
}
"""Repository of a site's image -> the rig's image that stands for it; all others are this machine's own."""
OPERATORS = ("cnpg-operator", "barman-plugin", "object-store")
"""The rig's images that are no part of a site."""


def source(reference: str) -> str:
    """The image of this machine for a reference of the site."""
    name = STAND_INS.get(reference.rpartition(":")[0], "")
    return OWN[name] if name else reference


def load(cluster: Cluster, nodes: Sequence[str], references: Sequence[str]) -> dict[str, str]:
    """Put images on nodes; reference -> digest, by which they are there as well."""
    wanted = {reference: source(reference) for reference in references}
    sources = sorted({*wanted.values(), *(OWN[name] for name in OPERATORS)})
    put(nodes, sources)
    digests = _digests(nodes[0])
    found = {reference: digests[full(image)] for reference, image in wanted.items()}
    for reference, image in wanted.items():
        tag(nodes, image, f"{full(reference).rpartition(':')[0]}@{found[reference]}")
    return found


def put(nodes: Sequence[str], sources: Sequence[str]) -> None:
    """Put images of this machine on nodes, by their own names."""
    for node in nodes:
        _import(node, sources)


def tag(nodes: Sequence[str], reference: str, name: str) -> None:
    """Give an image of some nodes another name."""
    for node in nodes:
        _ctr(node, "images", "tag", "--force", full(reference), name)


def full(reference: str) -> str:
    """A reference as containerd writes it."""
    first, _, rest = reference.partition("/")
    if not rest:
        return f"docker.io/library/{reference}"
    return reference if "." in first or ":" in first else f"docker.io/{reference}"


def _import(node: str, sources: Sequence[str]) -> None:
    there = _digests(node)
    missing = [image for image in sources if full(image) not in there or _id_there(node, image) != _id_here(image)]
    if not missing:
        return
    with subprocess.Popen(["docker", "save", *missing], stdout=subprocess.PIPE) as saving:
        argv = ["docker", "exec", "-i", node, "ctr", "-n", "k8s.io", "images", "import", "-"]
        subprocess.run(argv, stdin=saving.stdout, check=True, stdout=subprocess.DEVNULL)
    assert saving.returncode == 0, f"docker save of {missing} failed"


def _id_here(image: str) -> str:
    return run(["docker", "inspect", "--format", "{{.Id}}", image])


def _id_there(node: str, image: str) -> str:
    """The id of an image on a node: one that was built again has the name of the earlier one."""
    return str(json.loads(run(["docker", "exec", node, "crictl", "inspecti", full(image)]))["status"]["id"])


def _digests(node: str) -> dict[str, str]:
    """The images of a node: digest by full name."""
    lines = [line.split() for line in _ctr(node, "images", "ls").splitlines()[1:]]
    return {words[0]: words[2] for words in lines}


def _ctr(node: str, *words: str) -> str:
    return run(["docker", "exec", node, "ctr", "-n", "k8s.io", *words])
