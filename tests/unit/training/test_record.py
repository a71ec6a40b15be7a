"""What is recorded with a training, from a real Git repository and a real Python."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from infra.tasks import train_order, train_show
from infra.training import record

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="there is no git on this machine")
OPTIONS = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=work")


def git(place: Path, *words: str) -> str:
    """Run git in a directory."""
    argv = ["git", *OPTIONS, *words]
    return subprocess.run(argv, cwd=place, capture_output=True, encoding="utf-8", check=True).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with one commit, in a directory with a blank and other letters."""
    place = tmp_path / "my ünusual 프로젝트"
    place.mkdir()
    git(place, "init", "--quiet")
    (place / "train.py").write_text("rate = 0.1\n")
    git(place, "add", ".")
    git(place, "commit", "--quiet", "-m", "one")
    return place


def test_a_clean_commit(repository: Path) -> None:
    assert record.state_of(repository) == {"commit": git(repository, "rev-parse", "HEAD"), "branch": "work"}


def test_changes_that_are_not_committed(repository: Path) -> None:
    (repository / "train.py").write_text("rate = 0.2\n")
    (repository / "new.py").touch()
    found = record.state_of(repository)
    assert "+rate = 0.2" in found["diff"]
    assert found["untracked"] == ["new.py"]


def test_a_huge_diff_is_cut_and_its_digest_is_that_of_the_whole(repository: Path) -> None:
    found = []
    for end in ("a", "b"):
        (repository / "train.py").write_text("x\n" * record.LARGEST_DIFF + end)
        found.append(record.state_of(repository))
    assert len(found[0]["diff"]) == record.LARGEST_DIFF
    assert found[0]["diff_sha256"] != found[1]["diff_sha256"]


def test_no_repository_no_git_and_no_python_leave_their_part_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert record.state_of(tmp_path) == {}
    assert record.packages_of("/bin/sh", {}) == {}
    assert record.packages_of(str(tmp_path / "python"), {}) == {}
    monkeypatch.setenv("PATH", "/nowhere")
    assert record.state_of(tmp_path) == {}


def test_packages_are_those_of_the_programs_python(tmp_path: Path) -> None:
    (tmp_path / "mine-1.2.dist-info").mkdir()
    (tmp_path / "mine-1.2.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.2\n")
    found = record.packages_of(sys.executable, {"PYTHONPATH": str(tmp_path)})
    assert found["packages"]["mine"] == "1.2"
    assert "mine" not in record.packages_of(sys.executable, {})["packages"]


def test_an_order_carries_its_record(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(repository)
    order = train_order.order(15, "", f"'{sys.executable}' train.py", {}, located=True)
    assert order.record["git"]["commit"] == git(repository, "rev-parse", "HEAD")
    assert "psycopg" in order.record["packages"]
    assert order.record["cpus"] == os.cpu_count()


def test_differences_name_what_changed() -> None:
    one = {"git": {"commit": "a", "branch": "x"}, "packages": {"torch": "1", "same": "1", "gone": "3"}}
    other = {"git": {"commit": "b", "branch": "x", "diff_sha256": "f" * 64}, "packages": {"torch": "2", "same": "1"}}
    assert record.differences(one, other) == [
        ("commit", "a", "b"),
        ("package gone", "3", ""),
        ("package torch", "1", "2"),
        ("uncommitted changes", "", "f" * 12),
    ]
    assert record.differences(one, one) == []


@pytest.mark.parametrize(
    ("metrics", "wanted", "best"),
    [
        ({}, "", ()),
        ({"loss": (0.1, 2.0), "val_acc": (0.3, 0.9)}, "", ("val_acc", 0.9)),
        ({"loss": (0.1, 2.0)}, "", ("loss", 0.1)),
        ({"loss": (0.1, 2.0), "val_acc": (0.3, 0.9)}, "loss", ("loss", 0.1)),
        ({"loss": (0.1, 2.0)}, "f1", ()),
    ],
)
def test_the_best_of_a_metric(metrics: dict[str, tuple[float, float]], wanted: str, best: object) -> None:
    assert train_show.best(metrics, wanted) == best
