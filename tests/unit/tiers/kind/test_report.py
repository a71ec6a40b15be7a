"""The report about a cluster: what is not available is named, and no password is in it."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest

from infra.context import Context
from infra.errors import PlatformError
from infra.tiers.base import Check
from infra.tiers.kind import report
from tests.unit.helpers import console, context_of
from tests.unit.tiers.kind.fakes import cluster_of, node


class Tier:
    """A tier whose cluster does not run."""

    def __init__(self, root: Path, context: Context) -> None:
        self.cluster = cluster_of(root, node(root / "state" / "kind", state="exited"))
        self.home, self.context = self.cluster.home, context

    def selection(self, obs: bool, only: tuple[str, ...]) -> tuple[str, ...]:
        return ("postgres",)

    def preflight(self, names: tuple[str, ...]) -> list[Check]:
        return [Check("disk", "fail", "only 1 GB free", "free space")]

    @property
    def tools(self) -> Any:
        raise PlatformError("PROGRAM_MISSING", "helm is not installed")

    def require(self) -> Any:
        raise PlatformError("NOT_RUNNING", "the cluster is stopped", why="its containers have ended")


def written(tmp_path: Path, to: str = "", **settings: str) -> tuple[Path, dict[str, str]]:
    tier: Any = Tier(tmp_path, context_of(tmp_path, **settings))
    (tmp_path / "kind").mkdir()
    (tmp_path / "kind" / "cluster.yaml").write_text("kind: Cluster\nnodes: [{role: control-plane}]\n")
    path, parts = report.write(tier, to)
    return path, dict(parts)


def test_what_can_be_had_is_written_and_the_rest_says_why_not(tmp_path: Path) -> None:
    path, parts = written(tmp_path)
    assert parts["checks"] == parts["cluster"] == parts["trouble"] == "written"
    assert parts["nodes"] == "not available: helm is not installed"
    assert parts["status"] == "not available: the cluster is stopped; its containers have ended"
    assert "only 1 GB free" in (path / "checks.txt").read_text()


def test_it_is_private_and_where_it_was_wanted(tmp_path: Path) -> None:
    path, _ = written(tmp_path, to=str(tmp_path / "a report"))
    assert path == tmp_path / "a report"
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert stat.S_IMODE((path / "checks.txt").stat().st_mode) == 0o600
    assert report.size(path) > 0


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(PlatformError) as caught:
        written(tmp_path, to=str(tmp_path / "file" / "report"))
    assert caught.value.code == "USAGE"


def test_the_last_words_of_failed_releases_are_in_it_without_passwords(tmp_path: Path) -> None:
    context = context_of(tmp_path)
    hidden = Context(context.settings, context.stack, console(secrets=("hunter2-long-enough",)))
    tier: Any = Tier(tmp_path, hidden)
    (tier.home / "trouble").mkdir()
    (tier.home / "trouble" / "redis.txt").write_text("login with hunter2-long-enough failed\n")
    path, _ = report.write(tier, "")
    text = (path / "trouble-redis.txt").read_text()
    assert "login with" in text
    assert "hunter2" not in text
