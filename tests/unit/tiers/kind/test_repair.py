"""Whatever is there becomes a cluster that runs, and nothing that may hold data is thrown away."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from infra import shell
from infra.errors import PlatformError
from infra.kube.tools import KubeProgram
from infra.shell import Result
from infra.tiers.kind import create, life, repair
from infra.tiers.kind.cluster import KindCluster
from infra.tiers.kind.tools import Tools
from tests.unit.helpers import Said
from tests.unit.tiers.kind.fakes import Engine, cluster_of, node

TOOLS = Tools(
    KubeProgram("kind", "kind", (0, 33)),
    KubeProgram("kubectl", "kubectl", (1, 34)),
    KubeProgram("helm", "helm", (4, 3)),
)
FULL = {"ls": Result(0, "platform-data-postgresql\n", "")}


class Stage:
    """A cluster whose programs are replaced, and what was done."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch, *states: str, works: bool, **answers: Result):
        home = root / "state" / "kind"
        self.cluster = cluster_of(root, *(node(home, state=s) for s in states), answers=answers)
        self.done: list[str] = []
        monkeypatch.setattr(repair, "_await_other_kind", lambda cluster: None)
        monkeypatch.setattr(repair, "_say_when_changed", lambda cluster: None)
        monkeypatch.setattr(create, "create", lambda *_: self.done.append("create"))
        monkeypatch.setattr(create, "adopt", lambda *_: self.done.append("adopt"))
        monkeypatch.setattr(life, "start", lambda *_: self.done.append("start"))
        monkeypatch.setattr(life, "wait_for_api", lambda *_: self.done.append("wait"))
        monkeypatch.setattr(life, "works_soon", lambda cluster, limit: works)
        monkeypatch.setattr(shell, "run", self._run)

    def _run(self, argv: Sequence[str], **_: Any) -> Result:
        self.done.append(" ".join(argv[1:3]))
        return Result(0, "", "")

    def complete(self) -> Stage:
        """As if it had been made to its end."""
        self.cluster.remember(name="platform", complete=True)
        self.cluster.kubeconfig.write_text("")
        return self

    def ensure(self) -> bool:
        """What is tested."""
        return repair.ensure(self.cluster, TOOLS, None)

    @property
    def asked(self) -> list[tuple[str, ...]]:
        """What the engine was asked to do."""
        assert isinstance(self.cluster.docker, Engine)
        return self.cluster.docker.asked

    @property
    def said(self) -> str:
        """What the user read."""
        assert isinstance(self.cluster.context.console, Said)
        return self.cluster.context.console.err


def test_without_one_it_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(tmp_path, monkeypatch, works=True)
    assert stage.ensure() is True
    assert stage.done == ["create"]


def test_one_that_runs_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(tmp_path, monkeypatch, "running", works=True).complete()
    assert stage.ensure() is False
    assert (stage.done, stage.asked) == (["wait"], [])


def test_a_stopped_one_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(tmp_path, monkeypatch, "exited", works=True).complete()
    assert stage.ensure() is True
    assert stage.done == ["start", "wait"]


def test_one_that_was_made_but_not_recorded_is_taken_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(tmp_path, monkeypatch, "running", works=True)
    stage.ensure()
    assert stage.done == ["export kubeconfig", "adopt", "wait"]
    assert not [words for words in stage.asked if words[0] == "rm"]


def test_one_that_does_not_work_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(tmp_path, monkeypatch, "exited", works=False)
    assert stage.ensure() is True
    assert stage.asked == [("start", "platform-control-plane"), ("rm", "platform-control-plane")]
    assert stage.done == ["export kubeconfig", "create"]
    assert "incomplete" in stage.said


def test_one_with_volumes_inside_is_never_thrown_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KindCluster, "kept", property(lambda self: False))
    stage = Stage(tmp_path, monkeypatch, "running", works=False, **FULL)
    with pytest.raises(PlatformError) as caught:
        stage.ensure()
    assert caught.value.code == "DATA_INCOMPATIBLE"
    assert not [words for words in stage.asked if words[0] == "rm"]
    assert "create" not in stage.done


def test_one_that_was_whole_gets_more_time_than_a_half_made_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits: list[float] = []

    def works(cluster: KindCluster, limit: float) -> bool:
        limits.append(limit)
        return True

    for whole in (False, True):
        root = tmp_path / str(whole)
        stage = Stage(root, monkeypatch, "running", works=True)
        if whole:
            stage.complete().cluster.kubeconfig.unlink()
        monkeypatch.setattr(life, "works_soon", works)
        stage.ensure()
    assert limits == [repair.HALF_MADE_PATIENCE, life.API_BUDGET]
