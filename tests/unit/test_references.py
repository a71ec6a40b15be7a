"""Image references as files, engines, nodes and registries write them."""

from __future__ import annotations

import pytest

from infra import references, registry


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("postgres:18.6", "docker.io/library/postgres:18.6"),
        ("postgres", "docker.io/library/postgres:latest"),
        ("grafana/loki:3.7", "docker.io/grafana/loki:3.7"),
        ("ghcr.io/mlflow/mlflow:v3", "ghcr.io/mlflow/mlflow:v3"),
        ("localhost/a:1", "localhost/a:1"),
        ("registry:5000/a", "registry:5000/a:latest"),
        ("postgres@sha256:ab", "docker.io/library/postgres@sha256:ab"),
    ],
)
def test_names_as_nodes_have_them(text: str, full: str) -> None:
    assert references.full(text) == full


@pytest.mark.parametrize(
    ("reference", "plain"),
    [
        ("docker.io/library/postgres:18.6", "postgres:18.6"),
        ("postgres", "postgres:latest"),
        ("ghcr.io/mlflow/mlflow:v3", "ghcr.io/mlflow/mlflow:v3"),
        ("localhost:5000/a", "localhost:5000/a:latest"),
        ("postgres:18.6@sha256:ab", "postgres@sha256:ab"),
    ],
)
def test_references_are_compared_in_one_form(reference: str, plain: str) -> None:
    assert references.short(reference) == plain


def test_mirrors_hold_images_of_docker_hub_only() -> None:
    assert references.mirrored("postgres:18.6", ["m.io"]) == ["m.io/library/postgres:18.6"]
    assert references.mirrored("grafana/loki:3", ["m.io"]) == ["m.io/grafana/loki:3"]
    assert references.mirrored("ghcr.io/mlflow/mlflow:v3", ["m.io"]) == []


def test_what_is_locked_is_asked_of_a_mirror_by_its_digest() -> None:
    assert references.mirrored("postgres:18.6", ["m.io"], "sha256:ab") == ["m.io/library/postgres@sha256:ab"]
    assert references.mirrored("postgres@sha256:ab", ["m.io"]) == []


@pytest.mark.parametrize(
    ("text", "host", "repository", "version"),
    [
        ("postgres:18.6", registry.HUB, "library/postgres", "18.6"),
        ("docker.io/grafana/loki:3", registry.HUB, "grafana/loki", "3"),
        ("127.0.0.1:5000/a/b@sha256:ab", "127.0.0.1:5000", "a/b", "sha256:ab"),
    ],
)
def test_what_a_registry_is_asked_for(text: str, host: str, repository: str, version: str) -> None:
    assert registry.parse(text) == registry.RegistryReference(host, repository, version)
