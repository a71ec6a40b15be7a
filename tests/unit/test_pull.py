"""Getting images: what is asked of whom, how often, and why an image is not available."""

from __future__ import annotations

from typing import Any

import pytest

from infra import pull as image_pull


class Registry:
    """Answers pulls: an error for each source that has one, else the bytes of a layer."""

    def __init__(self, errors: dict[str, list[str]]) -> None:
        self.errors, self.pulled, self.tagged = errors, list[str](), list[tuple[str, str, str]]()

    def pull(self, source: str, **_: Any) -> Any:
        self.pulled.append(source)
        waiting = self.errors.get(source, [])
        if waiting:
            yield {"error": waiting.pop(0)}
            return
        yield {"id": "l", "status": "Downloading", "progressDetail": {"current": 5, "total": 10}}
        yield {"id": "l", "status": "Pull complete", "progressDetail": {}}

    def tag(self, *words: str) -> None:
        self.tagged.append((words[0], words[1], words[2]))


def pulled(registry: Registry, reference: str, monkeypatch: pytest.MonkeyPatch) -> image_pull.Pull:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    pull = image_pull.Pull(reference)
    image_pull._one(registry, pull, ["m.io"])
    return pull


def test_bytes_of_a_pull_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    pull = pulled(Registry({}), "a/b:1", monkeypatch)
    assert (pull.state, pull.detail) == ("ready", "10 B of 10 B")


def test_a_rate_limit_is_waited_out_and_then_a_mirror_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = Registry({"a/b:1": ["toomanyrequests: slow down"] * 3})
    pull = pulled(registry, "a/b:1", monkeypatch)
    assert registry.pulled == ["a/b:1"] * 3 + ["m.io/a/b:1"]
    assert registry.tagged == [("m.io/a/b:1", "a/b", "1")]
    assert pull.state == "ready"


def test_rate_limited_everywhere_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = {source: ["You have reached your pull rate limit"] * 3 for source in ("a/b:1", "m.io/a/b:1")}
    pull = pulled(Registry(limits), "a/b:1", monkeypatch)
    assert pull.error is not None
    assert pull.error.what == "rate limited: a/b:1"


@pytest.mark.parametrize(
    ("text", "code", "status"),
    [
        ("manifest for a/b:1 not found: manifest unknown", "IMAGE_UNAVAILABLE", 7),
        ("pull access denied for a/b, repository does not exist", "IMAGE_UNAVAILABLE", 7),
        ("dial tcp: lookup registry-1.docker.io: no such host", "REGISTRY_UNREACHABLE", 5),
        ("connection refused", "REGISTRY_UNREACHABLE", 5),
    ],
)
def test_why_an_image_cannot_be_had(monkeypatch: pytest.MonkeyPatch, text: str, code: str, status: int) -> None:
    registry = Registry({"a/b:1": [text]})
    pull = pulled(registry, "a/b:1", monkeypatch)
    assert pull.error is not None
    assert (pull.error.code, pull.error.exit, pull.error.why) == (code, status, text)
    assert registry.pulled == ["a/b:1"], "what is no rate limit is not tried again"


def test_an_answer_that_may_be_better_next_time_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = Registry({"a/b:1": ["received unexpected HTTP status: 503 Service Unavailable"]})
    assert pulled(registry, "a/b:1", monkeypatch).state == "ready"
    assert registry.pulled == ["a/b:1"] * 2
    registry = Registry({source: ["502 Bad Gateway"] * 3 for source in ("a/b:1", "m.io/a/b:1")})
    pull = pulled(registry, "a/b:1", monkeypatch)
    assert pull.error is not None
    assert pull.error.code == "REGISTRY_UNREACHABLE"


def test_a_locked_image_is_pulled_by_its_digest_and_named_by_its_tag(monkeypatch: pytest.MonkeyPatch) -> None:
    digest = "sha256:" + "a" * 64
    monkeypatch.setattr("time.sleep", lambda _seconds: None)
    registry = Registry({f"docker.io/a/b@{digest}": ["toomanyrequests"] * 3})
    pull = image_pull.Pull("a/b:1", digest)
    image_pull._one(registry, pull, ["m.io"])
    assert registry.pulled == [f"docker.io/a/b@{digest}"] * 3 + [f"m.io/a/b@{digest}"]
    assert registry.tagged == [(f"m.io/a/b@{digest}", "a/b", "1")]


def test_an_image_that_is_not_available_is_told_with_its_own_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    pull = image_pull.Pull("a/b:1", setting="MINIO_IMAGE")
    image_pull._one(Registry({"a/b:1": ["manifest unknown"]}), pull, [])
    assert pull.error is not None
    assert any("MINIO_IMAGE" in step for step in pull.error.steps)
