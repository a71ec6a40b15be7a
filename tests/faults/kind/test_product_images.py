"""Images that are built again under the same tag: nodes get the new one whatever was noted, and pods run it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.faults.kind.cluster import run
from tests.faults.kind.product import Product, product, said

pytestmark = pytest.mark.usefixtures("rig")

TAG = "platform-rig/rebuilt:dev"
POD = ("redis-0", "--namespace", "platform")
BROKEN = "RUN printf '#!/bin/sh\\nexit 3\\n' > /usr/local/bin/valkey-server"


def build(up: Product, line: str) -> None:
    """Build Redis's image again under the tag that the release names."""
    text = f"FROM {up.stage.env['BASE_OF_REBUILT']}\n{line}\n"
    run(["docker", "build", "--quiet", "--tag", TAG, "-"], stdin=text, env={"DOCKER_BUILDKIT": "0"})


def numbered(number: int) -> str:
    return f"RUN echo {number} > /number"


@pytest.fixture(scope="module")
def up(rig: dict[str, str]) -> Iterator[Product]:
    """A stack with Redis alone, whose image the tests build; the first of them with one that cannot run."""
    from tests.rig import env_file

    base = env_file.values().get("REDIS_IMAGE", "valkey/valkey:9.1.2-alpine")
    with product(REDIS_IMAGE=TAG, BASE_OF_REBUILT=base) as made:
        try:
            yield made
        finally:
            run(["docker", "image", "rm", "--force", TAG])


def redis(up: Product) -> dict[str, Any]:
    found: dict[str, Any] = up.cluster.get("pod", *POD)["metadata"]
    return found


def number(up: Product) -> str:
    """Which of the images the pod runs."""
    return up.cluster.kubectl("exec", *POD, "--", "cat", "/number")


def test_an_image_that_cannot_run_ends_every_run_with_its_reason(up: Product) -> None:
    build(up, BROKEN)
    for _ in range(2):
        found = up.error("kind.up", "-s", "redis", expect=7)
        assert found["code"] == "SERVICE_FAILED", "a release that is only watched is judged like one that is changed"
        assert "exit code 3" in said(found) or "crashed" in said(found)


def test_the_image_that_replaces_it_is_taken(up: Product) -> None:
    build(up, numbered(1))
    up.invoke("kind.up", "-s", "redis")
    assert number(up) == "1"


def test_an_image_built_again_after_a_success_is_noticed_once(up: Product) -> None:
    before = redis(up)["uid"]
    build(up, numbered(2))
    done = up.invoke("kind.up", "-s", "redis")
    assert f"runs an earlier build of {TAG}" in done.stderr
    assert (number(up), redis(up)["uid"] != before) == ("2", True)
    after = redis(up)["uid"]
    assert "earlier build" not in up.invoke("kind.up", "-s", "redis").stderr
    assert redis(up)["uid"] == after


def test_loading_it_by_hand_replaces_the_pods_too(up: Product) -> None:
    build(up, numbered(3))
    found = up.data("kind.load", "--image", TAG)
    assert (found["loaded"], found["renewed"]) == ([TAG], ["redis"])
    assert number(up) == "3"
    again = up.data("kind.load", "--image", TAG)
    assert (again["loaded"], again["renewed"]) == ([], [])


def test_what_somebody_else_changed_in_a_node_is_seen(up: Product) -> None:
    """The note says that the node has the image; the node says something else, and is believed."""
    ctr = "ctr --namespace k8s.io images"
    other = up.cluster.on_node(f"{ctr} ls -q name~=pause | head -1").strip()
    up.cluster.on_node(f"{ctr} tag --force {other} docker.io/{TAG}")
    assert up.data("kind.load", "--image", TAG)["loaded"] == [TAG]
    up.invoke("kind.up", "-s", "redis")
    assert number(up) == "3"
