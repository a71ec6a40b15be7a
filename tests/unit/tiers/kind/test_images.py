from __future__ import annotations

from typing import Any

import pytest

from infra.errors import PlatformError
from infra.shell import Result
from infra.tiers.kind import images
from infra.tiers.kind.nodes import Docker


def test_images_of_rendered_manifests_each_once() -> None:
    text = """
      initContainers:
        - image: "repo/setup:1"
          name: image
      containers:
        - name: a
          image: repo/server:2
        - name: b
          image: 'repo/server:2'
          # image: no/comment:3
      note: image
    """
    assert images.named_in(text) == ["repo/setup:1", "repo/server:2"]


@pytest.mark.parametrize(
    ("short", "full"),
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
def test_names_as_nodes_have_them(short: str, full: str) -> None:
    assert images.canonical(short) == full


class Engine:
    """An engine whose registry answers as told."""

    def __init__(self, *answers: Result) -> None:
        self.answers, self.asked = list(answers), 0

    def pull(self, reference: str) -> Result:
        self.asked += 1
        return self.answers.pop(0)


def pulled(engine: Engine) -> list[float]:
    slept: list[float] = []
    given: Any = engine
    images.pull(given, "repo/a:1", slept.append)
    return slept


def test_a_registry_in_trouble_is_asked_again_after_a_while() -> None:
    engine = Engine(Result(1, "", "toomanyrequests: You have reached your limit"), Result(0, "", ""))
    assert pulled(engine) == [4.0]


def test_an_image_that_does_not_exist_is_not_asked_for_again() -> None:
    engine = Engine(Result(1, "", "Error: manifest for repo/a:1 not found"))
    with pytest.raises(PlatformError) as caught:
        pulled(engine)
    assert caught.value.code == "SERVICE_FAILED"
    assert "not found" in caught.value.why
    assert engine.asked == 1


def test_a_limit_that_lasts_is_named_as_such() -> None:
    engine = Engine(*[Result(1, "", "toomanyrequests: limit")] * 3)
    with pytest.raises(PlatformError) as caught:
        pulled(engine)
    assert "rate limit" in caught.value.why


def test_a_locked_image_is_pulled_by_its_digest_and_named_by_its_tag(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[tuple[str, ...]] = []

    def run(self: Docker, *words: str, limit: float = 60.0, check: bool = True) -> Result:
        called.append(words)
        return Result(0, "", "")

    monkeypatch.setattr(Docker, "_run", run)
    digest = "sha256:" + "a" * 64
    images.pull(Docker("docker"), "ghcr.io/mlflow/mlflow:v3", digest=digest)
    exact = f"ghcr.io/mlflow/mlflow@{digest}"
    assert called == [("pull", "--quiet", exact), ("tag", exact, "ghcr.io/mlflow/mlflow:v3")]
