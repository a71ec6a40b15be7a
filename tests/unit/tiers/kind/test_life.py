"""The end of a cluster, its services' first answers, and what a user has set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from infra import endpoints, health, shell
from infra.kube.tools import KubeProgram
from infra.probes import Finding
from infra.shell import Result
from infra.tiers import answering
from infra.tiers.cluster import overrides as cluster_overrides
from infra.tiers.kind import life
from infra.tiers.kind.tools import Tools
from tests.unit.helpers import settings_of
from tests.unit.tiers.kind.fakes import Engine, cluster_of, node

TOOLS = Tools(
    KubeProgram("kind", "kind", (0, 33)),
    KubeProgram("kubectl", "kubectl", (1, 34)),
    KubeProgram("helm", "helm", (4, 3)),
)


def test_only_nodes_that_run_are_stopped(tmp_path: Path) -> None:
    home = tmp_path / "state" / "kind"
    made = cluster_of(tmp_path, node(home), node(home, role="worker", state="exited"))
    assert life.stop(made) is True
    assert isinstance(made.docker, Engine)
    assert made.docker.asked == [("stop", "platform-control-plane")]
    assert life.stop(cluster_of(tmp_path / "other")) is False


def test_a_deleted_cluster_leaves_its_volumes_and_no_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Sequence[str]] = []

    def run(argv: Sequence[str], **_: Any) -> Result:
        calls.append(argv)
        return Result(1, "", "kind does not want to")

    monkeypatch.setattr(shell, "run", run)
    made = cluster_of(tmp_path, node(tmp_path / "state" / "kind"))
    made.remember(name="platform", complete=True)
    (made.volumes / "platform-data-postgresql").mkdir(parents=True)
    assert life.tear_down(made, TOOLS) is True
    assert calls[0][:3] == ["kind", "delete", "cluster"]
    assert made.nodes() == [], "what kind leaves goes by the engine"
    assert made.record == {}
    assert (made.volumes / "platform-data-postgresql").is_dir()


def replies(monkeypatch: pytest.MonkeyPatch, *turns: Mapping[str, Finding]) -> list[list[str]]:
    """Services that answer as told, turn by turn; who was asked."""
    asked: list[list[str]] = []

    def ask(questions: Mapping[str, Any], limit: float) -> dict[str, Finding]:
        asked.append(sorted(questions))
        turn = turns[min(len(asked), len(turns)) - 1]
        return {name: turn.get(name, Finding(True)) for name in questions}

    monkeypatch.setattr(health, "ask", ask)
    return asked


def wait(root: Path, *services: str, times: Sequence[float] = (0.0,), said: list[str] | None = None) -> list[str]:
    clock = iter(times)
    ends = endpoints.build(settings_of(root), ("postgres", "redis"))
    say = (said if said is not None else []).append
    return answering.wait(ends, services, Path("psql"), say, clock=lambda: next(clock, times[-1]), sleep=lambda _: None)


def test_who_does_not_answer_yet_is_asked_again_and_nobody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = replies(monkeypatch, {"redis": Finding(False, "it closed the connection")}, {})
    assert wait(tmp_path, "postgres", "redis", "mlflow") == []
    assert asked == [["postgres", "redis"], ["redis"]]


def test_a_refused_login_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = replies(monkeypatch, {"redis": Finding(False, "wrong password", fatal=True)})
    assert wait(tmp_path, "redis") == []
    assert len(asked) == 1


def test_the_wait_ends_and_says_who_is_silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replies(monkeypatch, {"redis": Finding(False, "connection reset")})
    said: list[str] = []
    assert wait(tmp_path, "redis", times=(0.0, 16.0, answering.PATIENCE + 1), said=said) == ["redis"]
    assert said == ["  still waiting for redis to answer: connection reset"]


def test_what_was_set_is_kept_when_it_works_and_forgotten_when_it_does_not(tmp_path: Path) -> None:
    made = cluster_of(tmp_path)
    with cluster_overrides.trying(made, "redis", ["a=1"]):
        pass

    def broken() -> None:
        with cluster_overrides.trying(made, "redis", ["a=2", "b=3"]):
            assert cluster_overrides.overrides(made) == {"redis": ["a=2", "b=3"]}
            raise RuntimeError

    with pytest.raises(RuntimeError):
        broken()
    assert cluster_overrides.overrides(made) == {"redis": ["a=1"]}


def test_without_anything_set_what_is_kept_stays(tmp_path: Path) -> None:
    made = cluster_of(tmp_path)
    cluster_overrides.override(made, "redis", ["a=1"])
    with cluster_overrides.trying(made, "redis", []):
        assert cluster_overrides.overrides(made) == {"redis": ["a=1"]}
    assert cluster_overrides.overrides(made) == {"redis": ["a=1"]}
