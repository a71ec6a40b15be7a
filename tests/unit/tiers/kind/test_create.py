"""The configuration for kind, and how its failures are reported."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra import shell
from infra.errors import PlatformError
from infra.kube.tools import KubeProgram
from infra.settings import ROOT
from infra.shell import Result
from infra.tiers.kind import create
from infra.tiers.kind.cluster import MARK, KindCluster
from infra.tiers.kind.tools import Tools
from tests.unit.tiers.kind.fakes import Engine, cluster_of, node

TOOLS = Tools(
    KubeProgram("kind", "kind", (0, 33)),
    KubeProgram("kubectl", "kubectl", (1, 34)),
    KubeProgram("helm", "helm", (4, 3)),
)
SLOW = f"ERROR: failed to create cluster: {create.SLOW_BOOT} that matches"


class Kind:
    """Runs of kind that end as told; each leaves a node."""

    def __init__(self, cluster: KindCluster, *ends: Result) -> None:
        self.cluster, self.ends, self.runs = cluster, list(ends), list[list[str]]()

    def spawn(self, argv: Sequence[str], *, env: Mapping[str, str] | None = None) -> Any:
        """Instead of `shell.spawn`."""
        assert isinstance(self.cluster.docker, Engine)
        self.runs.append(list(argv))
        self.cluster.docker.there[:] = [node(self.cluster.home)]
        self.cluster.kubeconfig.write_text("")
        return _Ended(self.ends.pop(0))


class _Ended:
    def __init__(self, end: Result) -> None:
        self.end, self.last_line = end, end.last_line

    def result(self) -> Result:
        return self.end

    def stop(self) -> None:
        pass


def making(root: Path, monkeypatch: pytest.MonkeyPatch, *ends: Result, **settings: str) -> tuple[KindCluster, Kind]:
    (root / "kind").mkdir()
    shutil.copyfile(ROOT / "kind" / "cluster.yaml", root / "kind" / "cluster.yaml")
    own = {"KIND_NODE_IMAGE": "mirror.example/node:v1.36.4", **settings}
    cluster = cluster_of(root, answers=None, **own)
    monkeypatch.setattr(Engine, "image_id", lambda self, reference: "here")
    kind = Kind(cluster, *ends)
    monkeypatch.setattr(shell, "spawn", kind.spawn)
    return cluster, kind


def test_kind_gets_the_file_with_our_name_image_and_mounts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster, kind = making(tmp_path, monkeypatch, Result(0, "", ""))
    create.create(cluster, TOOLS, None)
    [argv] = kind.runs
    assert argv[:3] == ["kind", "create", "cluster"]
    body = yaml.safe_load(Path(argv[argv.index("--config") + 1]).read_text())
    assert body["name"] == "platform"
    assert body["nodes"][0]["image"] == "mirror.example/node:v1.36.4"
    assert MARK in [m["containerPath"] for m in body["nodes"][0]["extraMounts"]]
    assert argv[argv.index("--kubeconfig") + 1] == str(cluster.kubeconfig)
    assert cluster.record["complete"] is True


def test_until_kind_is_done_it_counts_as_half_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster, _ = making(tmp_path, monkeypatch, Result(1, "", "creating\nERROR: failed: no room\nsee its log"))
    with pytest.raises(PlatformError) as caught:
        create.create(cluster, TOOLS, None)
    assert caught.value.why == "ERROR: failed: no room"
    assert cluster.record["complete"] is False
    assert cluster.nodes(), "it stays, to be looked at"


def test_a_node_that_boots_slowly_gets_a_second_try(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster, kind = making(tmp_path, monkeypatch, Result(1, "", SLOW), Result(0, "", ""))
    create.create(cluster, TOOLS, None)
    assert len(kind.runs) == 2
    assert isinstance(cluster.docker, Engine)
    assert ("rm", "platform-control-plane") in cluster.docker.asked


def test_but_not_a_third(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster, kind = making(tmp_path, monkeypatch, Result(1, "", SLOW), Result(1, "", SLOW))
    with pytest.raises(PlatformError):
        create.create(cluster, TOOLS, None)
    assert len(kind.runs) == 2


def test_an_authority_is_given_to_the_nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.write_text("-----BEGIN CERTIFICATE-----\n")
    cluster, _ = making(tmp_path, monkeypatch, Result(0, "", ""), PLATFORM_CA_BUNDLE=str(bundle))
    create.create(cluster, TOOLS, None)
    assert str(bundle) in (cluster.home / "cluster.yaml").read_text()
    assert isinstance(cluster.docker, Engine)
    assert ("exec", "platform-control-plane", "update-ca-certificates") in cluster.docker.asked


def test_an_authority_that_is_not_there_is_refused_before_kind_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster, kind = making(tmp_path, monkeypatch, PLATFORM_CA_BUNDLE=str(tmp_path / "none.pem"))
    with pytest.raises(PlatformError) as caught:
        create.create(cluster, TOOLS, None)
    assert caught.value.code == "SETTING_INVALID"
    assert kind.runs == []
