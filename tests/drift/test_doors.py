"""Each way to another program has one owner: no second client of Kubernetes or Docker, no second signer for S3."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping

import pytest

from tests.drift.repo import modules

OWNERS: Mapping[str, tuple[str, set[str]]] = {
    "Docker's SDK or socket": (r"docker\.(APIClient|DockerClient|from_env)\(|AF_UNIX", {"infra.docker_engine"}),
    "a login to Kubernetes": (r"load_cert_chain|client-certificate-data", {"infra.kube.kubeconfig"}),
    "the package kubernetes": (r"^\s*(import|from) kubernetes\b", set()),
    "a TLS client": (r"ssl\.create_default_context\(", {"infra.kube.kubeconfig", "infra.sigv4"}),
    "HTTP without a package": (
        r"http\.client\.HTTPS?Connection\(",
        {
            "infra.docker_engine",  # the engine's socket
            "infra.kube.api",  # the API server
            "infra.probes",  # health pages
            "infra.sigv4",  # S3, signed
        },
    ),
}
"""A way to others -> the pattern of its code, and the modules that may hold it."""
PROGRAMS: Mapping[str, set[str]] = {
    "docker": {"infra.docker_engine"},
    "docker-compose": {"infra.tiers.compose.cli"},  # only to say that version 1 is not enough
    "kubectl": set(),  # by the path that infra.kube.tools has found
    "helm": set(),
    "kind": set(),
}
"""A program -> the modules that may begin a command line with its name."""


@pytest.mark.parametrize("way", OWNERS)
def test_each_way_to_others_has_one_owner(way: str) -> None:
    pattern, owners = OWNERS[way]
    found = {name for name, path in modules().items() if re.search(pattern, path.read_text("utf-8"), re.MULTILINE)}
    assert found == owners


def heads(name: str) -> Iterator[str]:
    """Yield the first words of command lines in a module, and the programs that it looks for on PATH."""
    yield from first_words(modules()[name].read_text("utf-8"))


def first_words(source: str) -> Iterator[str]:
    """Yield the same of a source: of lists, and of tuples behind which options or further words follow."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.List) or (isinstance(node, ast.Tuple) and _is_command(node)):
            first = node.elts[0] if len(node.elts) > 1 else None
            yield from [str(first.value)] if isinstance(first, ast.Constant) else []
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("shell.find", "shutil.which"):
            yield from (str(word.value) for word in node.args if isinstance(word, ast.Constant))


def _is_command(node: ast.Tuple) -> bool:
    """Tell whether a tuple is a command line, and not e.g. a row of names: one of its words is an option or spread."""
    later = [word.value if isinstance(word, ast.Constant) else "" for word in node.elts[1:]]
    return any(isinstance(w, ast.Starred) for w in node.elts) or any(str(w).startswith("-") for w in later)


def test_a_command_line_is_seen_as_list_and_as_tuple() -> None:
    assert list(first_words("run(['docker', 'ps'])")) == ["docker"]
    assert list(first_words("run(('docker', 'ps', '--all'))")) == ["docker"]
    assert list(first_words("argv = ('kubectl', *words)")) == ["kubectl"]
    assert list(first_words("shutil.which('helm')")) == ["helm"]
    assert list(first_words("names = ('docker', 'podman')")) == []


@pytest.mark.parametrize("program", PROGRAMS)
def test_each_program_has_one_owner(program: str) -> None:
    assert {name for name in modules() if program in heads(name)} == PROGRAMS[program]
