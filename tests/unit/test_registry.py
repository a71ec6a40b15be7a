from __future__ import annotations

from collections.abc import Iterator

import pytest

from infra import registry
from infra.registry import RegistryReference
from tests.unit.registry_server import INDEX, Registry, digest, running


@pytest.fixture
def server() -> Iterator[Registry]:
    with running() as started:
        yield started


class Pauses(list[float]):
    """Keeps how long would have been waited."""

    def __call__(self, seconds: float) -> None:
        self.append(seconds)


@pytest.mark.parametrize(
    ("text", "host", "repository", "version"),
    [
        ("postgres:18.6", registry.HUB, "library/postgres", "18.6"),
        ("docker.io/library/postgres:18.6", registry.HUB, "library/postgres", "18.6"),
        ("valkey/valkey:9.1.2", registry.HUB, "valkey/valkey", "9.1.2"),
        ("ghcr.io/mlflow/mlflow:v3.17.0-full", "ghcr.io", "mlflow/mlflow", "v3.17.0-full"),
        ("localhost:5000/mine", "localhost:5000", "mine", "latest"),
        ("localhost/mine:1", "localhost", "mine", "1"),
        ("postgres:18.6@sha256:abc", registry.HUB, "library/postgres", "sha256:abc"),
        ("mirror.example.com/team/valkey@sha256:abc", "mirror.example.com", "team/valkey", "sha256:abc"),
    ],
)
def test_a_reference_in_its_parts(text: str, host: str, repository: str, version: str) -> None:
    assert registry.parse(text) == RegistryReference(host, repository, version)


@pytest.mark.parametrize(
    ("host", "base"),
    [
        ("127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("localhost:5000", "http://localhost:5000"),
        ("ghcr.io", "https://ghcr.io"),
        ("127.0.0.1.example.com", "https://127.0.0.1.example.com"),
        ("localhost.example.com", "https://localhost.example.com"),
    ],
)
def test_plain_http_only_on_this_machine(host: str, base: str) -> None:
    assert RegistryReference(host, "x", "1").base == base


def test_the_digest_is_that_of_the_index(server: Registry) -> None:
    server.has = {"team/app:1.0"}
    found = registry.look_up(f"{server.host}/team/app:1.0")
    assert (found.state, found.digest, found.where) == (registry.THERE, digest(INDEX), server.host)
    assert "GET /v2/team/app/manifests/1.0" not in server.asked, "a GET counts as a pull at Docker Hub"


def test_a_registry_that_does_not_say_the_digest_is_asked_for_the_manifest(server: Registry) -> None:
    server.has, server.says_digest = {"app:1"}, False
    assert registry.look_up(f"{server.host}/app:1").digest == digest(INDEX)


def test_what_is_not_there_is_gone(server: Registry) -> None:
    found = registry.look_up(f"{server.host}/team/app:1.0")
    assert (found.state, found.digest) == (registry.GONE, "")
    assert "404" in found.why


def test_what_needs_a_login_is_refused(server: Registry) -> None:
    server.has, server.private = {"team/app:1.0"}, {"team/app"}
    assert registry.look_up(f"{server.host}/team/app:1.0").state == registry.REFUSED


def test_a_rate_limit_is_waited_for(server: Registry) -> None:
    server.has, server.limited = {"app:1"}, 2
    pauses = Pauses()
    assert registry.look_up(f"{server.host}/app:1", pause=pauses).state == registry.THERE
    assert pauses == [4.0, 8.0]


def test_a_rate_limit_that_stays_is_said(server: Registry) -> None:
    server.has, server.limited = {"app:1"}, 99
    pauses = Pauses()
    found = registry.look_up(f"{server.host}/app:1", ("mirror.example.com",), pause=pauses)
    assert (found.state, pauses) == ("rate limited", [4.0, 8.0])


def test_then_the_mirrors_of_docker_hub_are_asked(server: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "HUB", server.host)
    server.has, server.limited = {"library/postgres:18.6"}, 99
    with running() as empty, running() as mirror:
        mirror.has = {"library/postgres:18.6"}
        found = registry.look_up("postgres:18.6", (empty.host, mirror.host), pause=Pauses())
        assert (found.state, found.where) == (registry.THERE, mirror.host)
        assert empty.asked


def test_a_registry_that_is_not_there_is_unreachable() -> None:
    with running() as stopped:
        host = stopped.host
    found = registry.look_up(f"{host}/app:1", pause=Pauses(), limit=2)
    assert (found.state, found.why) == (registry.UNREACHABLE, "no connection")


def test_gone_at_docker_hub_is_not_looked_for_elsewhere(server: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "HUB", server.host)
    with running() as mirror:
        mirror.has = {"library/postgres:18.6"}
        assert registry.look_up("postgres:18.6", (mirror.host,), pause=Pauses()).state == registry.GONE
        assert mirror.asked == []
