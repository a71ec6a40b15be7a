"""What a node has under a name, and which pods run something else."""

from __future__ import annotations

import json
from typing import Any

import pytest

from infra.shell import Result
from infra.tiers.kind import node_images
from infra.tiers.kind.node_images import NodeImages
from infra.tiers.kind.nodes import Docker
from tests.unit.kube import objects as o
from tests.unit.tiers.kind.test_loading import table

NAME, OLD, NEW = "docker.io/library/backend:dev", "sha256:01d", "sha256:2e3"
IMPORTED = "docker.io/library/import-2026-11-30"


class Node(Docker):
    """A node in which an image was replaced: `ids` by reference are what its runtime answers."""

    def __init__(self, **ids: str) -> None:
        self.ids, self.asked = {"backend:dev": "sha256:new-id", **ids}, list[str]()

    def execute(self, node: str, *words: str, limit: float = 60.0, check: bool = True) -> Result:
        self.asked.append(words[0])
        if words[0] == "ctr":
            images = {NAME: NEW, f"{IMPORTED}@{NEW}": NEW, "sha256:new-id": NEW, f"{IMPORTED}@{OLD}": OLD}
            return Result(0, table(images), "")
        found = self.ids.get(words[2])
        return Result(0, json.dumps({"status": {"id": found}}), "") if found else Result(1, "", "no such image")


def pod(running: str, image: str = "backend:dev", **about: Any) -> dict[str, Any]:
    spec = {"nodeName": "node", "containers": [{"name": "server", "image": image}]}
    return o.pod(container={"imageID": running}, spec=spec, about=about)


def test_an_image_is_known_by_its_manifest_and_by_its_configuration() -> None:
    found = NodeImages(Node()).of("node")
    assert found[NAME] == {NEW, "sha256:new-id"}
    assert node_images.listed("") == {}


@pytest.mark.parametrize("running", [f"{IMPORTED}@{NEW}", NEW, "sha256:new-id"])
def test_a_pod_that_runs_what_the_node_has_is_left_alone(running: str) -> None:
    node = Node()
    assert NodeImages(node).earlier(pod(running)) == ""
    assert node.asked == ["ctr"]


@pytest.mark.parametrize("running", [f"{IMPORTED}@{OLD}", "sha256:old-id"])
def test_a_pod_of_an_earlier_build_is_named_by_its_image(running: str) -> None:
    assert NodeImages(Node()).earlier(pod(running)) == "backend:dev"
    assert NodeImages(Node(**{running: "sha256:old-id"})).earlier(pod(running)) == "backend:dev"


def test_the_same_build_with_other_manifests_is_no_earlier_one() -> None:
    running = f"{IMPORTED}@{OLD}"
    assert NodeImages(Node(**{running: "sha256:new-id"})).earlier(pod(running)) == ""


@pytest.mark.parametrize(
    "one",
    [
        pod(f"{IMPORTED}@{OLD}", image="pulled@sha256:abc"),
        pod(""),
        pod(f"{IMPORTED}@{OLD}", ownerReferences=[{"kind": "Job", "uid": "j"}]),
        o.pod(container={"imageID": OLD}),
    ],
)
def test_what_is_no_image_of_the_node_does_not_run_yet_or_ends_by_itself_is_left_alone(one: dict[str, Any]) -> None:
    assert NodeImages(Node()).earlier(one) == ""


def test_a_runtime_that_says_nothing_gives_no_reason_to_replace() -> None:
    assert NodeImages(Node(**{"backend:dev": ""})).earlier(pod(f"{IMPORTED}@{OLD}")) == ""
