"""How images get into nodes: in which streams, and what happens to those that a node does not take."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from infra import pipes, shell
from infra.console import Console
from infra.errors import PlatformError
from infra.kube import releases
from infra.kube.helm_cli import Helm
from infra.kube.tools import KubeProgram
from infra.settings import ROOT
from infra.shell import Result
from infra.tiers.kind import loading
from infra.tiers.kind.cluster import PROFILE
from infra.tiers.kind.images import Supply
from infra.tiers.kind.loading import Streams
from infra.tiers.kind.nodes import Docker, Node
from infra.tiers.kind.tools import Tools
from tests.unit.helpers import settings_of

SIZES = {"small:1": 10, "large:1": 100, "middle:1": 60, "tiny:1": 30}


def test_streams_are_of_about_the_same_size_and_keep_the_order() -> None:
    assert loading.lanes(SIZES, 2) == [["large:1"], ["small:1", "middle:1", "tiny:1"]]


@pytest.mark.parametrize(("count", "expected"), [(0, 1), (1, 1), (3, 3), (9, 4)])
def test_there_are_no_more_streams_than_images(count: int, expected: int) -> None:
    groups = loading.lanes(SIZES, count)
    assert len(groups) == expected
    assert sorted(image for group in groups for image in group) == sorted(SIZES)


def test_images_whose_size_is_unknown_are_spread_as_well() -> None:
    assert sorted(map(len, loading.lanes(dict.fromkeys("abcd", 0), 2))) == [2, 2]


@pytest.mark.parametrize(
    ("configuration", "snapshotter"),
    [
        ('[plugins]\n    snapshotter = "fuse-overlayfs"\n', "fuse-overlayfs"),
        ("    snapshotter = 'native'\n", "native"),
        ("", "overlayfs"),
    ],
)
def test_a_node_unpacks_as_its_configuration_says(configuration: str, snapshotter: str) -> None:
    assert loading.named(configuration) == snapshotter


class Engine(Docker):
    """An engine with some images, and nodes that have none."""

    def image_ids(self) -> dict[str, str]:
        return {"a:1": "sha256:1", "b:1": "sha256:2"}

    def image_sizes(self, references: Sequence[str]) -> dict[str, int]:
        return dict.fromkeys(references, 1)

    def execute(self, node: str, *words: str, limit: float = 60.0, check: bool = True) -> Result:
        return Result(0, "", "")


class Ended:
    """Two programs that have ended."""

    def __init__(self, code: int) -> None:
        self.code, self.stopped = code, False

    def result(self, limit: float) -> Result:
        return Result(self.code, "", "ctr: content digest not found" if self.code else "")

    def stop(self) -> None:
        self.stopped = True


def supply(tmp_path: Path) -> Supply:
    kind = KubeProgram("kind", "kind", (0, 33))
    node = Node("platform-control-plane", "id", "running")
    tools = Tools(kind, KubeProgram("kubectl", "kubectl", (1, 34)), KubeProgram("helm", "helm", (4, 3)))
    return Supply(Engine(), tools, "platform", [node], tmp_path / "images.json", tmp_path / "kubeconfig", Console())


def loaded_by_kind(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    calls: list[list[str]] = []

    def run(argv: Sequence[str], **_: Any) -> Result:
        calls.append(list(argv))
        return Result(0, "", "")

    monkeypatch.setattr(shell, "run", run)
    return calls


def test_kind_is_not_asked_where_the_streams_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = loaded_by_kind(monkeypatch)
    monkeypatch.setattr(pipes, "start", lambda *_, **__: Ended(0))
    way = supply(tmp_path)
    assert way.bring(["a:1", "b:1"]) == ["a:1", "b:1"]
    assert calls == []


def test_what_a_node_does_not_take_is_left_to_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = loaded_by_kind(monkeypatch)

    def stream(source: Sequence[str], target: Sequence[str], **_: object) -> Ended:
        return Ended(1 if "b:1" in source else 0)

    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(pipes, "start", stream)
    supply(tmp_path).bring(["a:1", "b:1"])
    assert calls == [["kind", "load", "docker-image", "b:1", "--name", "platform"]]


SCHEMA = """Error: values don't meet the specifications of the schema(s) in the following chart(s):
redis:
- at '/persistence/enabled': got string, want boolean
"""


@pytest.mark.parametrize(("said", "code"), [(SCHEMA, "USAGE"), ("Error: no such template", "PROGRAM_FAILED")])
def test_a_chart_that_cannot_be_rendered_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, code: str
) -> None:
    wanted = releases.wanted(releases.chart("redis"), settings_of(ROOT), profile=PROFILE)
    monkeypatch.setattr(shell, "run", lambda *_, **__: Result(1, "", said))
    with pytest.raises(PlatformError) as caught:
        supply(tmp_path).needed([wanted], Helm("helm", 4, tmp_path))
    assert caught.value.code == code
    assert ("want boolean" in caught.value.why) == (code == "USAGE")


def test_the_engine_gives_and_the_node_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[list[str], list[str]]] = []

    def stream(source: Sequence[str], target: Sequence[str], **_: object) -> Ended:
        seen.append((list(source), list(target)))
        return Ended(0)

    monkeypatch.setattr(pipes, "start", stream)
    assert loading.into(Engine(), "node", ["a:1"], Streams()) == []
    [(source, target)] = seen
    assert source == ["docker", "save", "a:1"]
    assert target[:4] == ["docker", "exec", "--interactive", "node"]
    assert target[-1] == "-"


def test_once_ended_nothing_begins_and_kind_is_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = loaded_by_kind(monkeypatch)
    load = supply(tmp_path).plan(["a:1", "b:1"])

    def stream(source: Sequence[str], target: Sequence[str], **_: object) -> Ended:
        load.streams.end()
        return Ended(137)

    monkeypatch.setattr(pipes, "start", stream)
    load.carry(["a:1"])
    load.carry(["b:1"])
    assert calls == []


def test_a_stream_that_cannot_begin_ends_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Ended] = []

    def stream(source: Sequence[str], target: Sequence[str], **_: object) -> Ended:
        made.append(Ended(0))
        if len(made) == 2:
            raise KeyboardInterrupt
        return made[-1]

    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(pipes, "start", stream)
    streams = Streams()
    with pytest.raises(KeyboardInterrupt):
        loading.into(Engine(), "node", ["a:1", "b:1"], streams)
    assert streams.ended
    assert made[0].stopped


# --- what has to be loaded


def table(images: Mapping[str, str]) -> str:
    """What `ctr images ls` prints of images: digests of their manifests by name."""
    rows = [
        f"{name} application/vnd.oci.image.manifest.v1+json {digest} 9.1 MiB linux/amd64 -"
        for name, digest in images.items()
    ]
    return "\n".join(["REF TYPE DIGEST SIZE PLATFORMS LABELS", *rows])


class Pulling(Engine):
    """An engine whose registry has everything, and a node with some images: digests by name."""

    def __init__(self, **in_node: str) -> None:
        self.in_node = {f"docker.io/library/{name}:1": digest for name, digest in in_node.items()}
        self.pulled, self.trouble = list[str](), ""

    def image_id(self, reference: str) -> str:
        return f"sha256:{reference}" if reference in self.pulled else ""

    def pull(self, source: str, **_: Any) -> Any:
        self.pulled.append(source)
        yield {"error": self.trouble} if self.trouble else {"status": "Pull complete"}

    def execute(self, node: str, *words: str, limit: float = 60.0, check: bool = True) -> Result:
        return Result(0, table(self.in_node), "")


def test_an_image_of_the_default_registry_is_found_by_its_short_name(tmp_path: Path) -> None:
    engine = Pulling()
    load = replace(supply(tmp_path), docker=engine).plan(["docker.io/library/a:1"])
    assert (load.missing, engine.pulled) == (["docker.io/library/a:1"], [])


def test_what_the_host_lacks_is_pulled_unless_the_nodes_have_it(tmp_path: Path) -> None:
    engine = Pulling(there="sha256:of somebody")
    load = replace(supply(tmp_path), docker=engine, client=lambda: engine).plan(["there:1", "new:1"])
    assert (load.missing, engine.pulled) == (["new:1"], ["new:1"])


def test_an_image_that_is_another_one_by_now_is_loaded_again(tmp_path: Path) -> None:
    way = replace(supply(tmp_path), docker=Pulling(a="sha256:1", b="sha256:of yesterday"))
    assert way.plan(["a:1", "b:1"]).missing == ["b:1"]


def test_an_image_is_the_same_by_the_digest_of_its_configuration(tmp_path: Path) -> None:
    engine = Pulling(a="sha256:manifest")
    engine.in_node["sha256:1"] = "sha256:manifest"
    assert replace(supply(tmp_path), docker=engine).plan(["a:1"]).missing == []


def test_what_was_noted_is_believed_only_as_long_as_the_node_says_the_same(tmp_path: Path) -> None:
    engine = Pulling(a="sha256:manifest", b="sha256:another")
    way = replace(supply(tmp_path), docker=engine)
    assert way.plan(["a:1"]).missing == ["a:1"], "nobody knows which image that is"
    way.note({"a:1": "sha256:1"})
    assert way.plan(["a:1"]).missing == []
    way.content.forget()
    engine.in_node["docker.io/library/a:1"] = "sha256:of somebody"
    assert way.plan(["a:1"]).missing == ["a:1"]


def test_a_note_is_of_one_image_of_the_host(tmp_path: Path) -> None:
    way = replace(supply(tmp_path), docker=Pulling(a="sha256:manifest"))
    way.note({"a:1": "sha256:of yesterday"})
    assert way.plan(["a:1"]).missing == ["a:1"]


def test_a_node_that_does_not_say_what_it_has_gets_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    way = replace(supply(tmp_path), docker=Pulling(a="sha256:1"))
    monkeypatch.setattr(
        Pulling, "execute", lambda *_, **__: Result(1, table({"docker.io/library/a:1": "sha256:1"}), "")
    )
    assert way.plan(["a:1"]).missing == ["a:1"]


def test_what_was_loaded_is_known_though_the_run_fails_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Pulling()
    way = replace(supply(tmp_path), docker=engine)
    loaded = {"docker.io/library/a:1": "sha256:manifest"}
    monkeypatch.setattr(Supply, "load", lambda *_: engine.in_node.update(loaded))
    way.plan(["a:1"]).carry(["a:1"])
    assert replace(supply(tmp_path), docker=engine).plan(["a:1"]).missing == []


def test_charts_that_were_rendered_are_known_whatever_else_is_deployed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    way, seen = supply(tmp_path), list[str]()

    def run(argv: Sequence[str], **_: Any) -> Result:
        seen.append(argv[2])
        return Result(0, "image: a:1\n", "")

    monkeypatch.setattr(shell, "run", run)
    one, other = (releases.wanted(releases.chart(n), settings_of(ROOT), profile=PROFILE) for n in ("redis", "minio"))
    for wanted in (one, other, one):
        assert way.needed([wanted], Helm("helm", 4, tmp_path)) == ["a:1"]
    assert seen == ["redis", "minio"]


def test_an_image_that_cannot_be_had_is_told_with_its_own_setting(tmp_path: Path) -> None:
    engine = Pulling()
    engine.trouble = "manifest unknown"
    way = replace(supply(tmp_path), docker=engine, client=lambda: engine, settings={"store:1": "MINIO_IMAGE"})
    with pytest.raises(PlatformError) as caught:
        way.plan(["store:1"])
    assert any("MINIO_IMAGE" in step for step in caught.value.steps)
