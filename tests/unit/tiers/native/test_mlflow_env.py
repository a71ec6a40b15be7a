from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from infra import shell
from infra.errors import PlatformError
from infra.shell import Result
from infra.tiers.native import mlflow_env
from tests.unit.helpers import console


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements" / "mlflow.txt").write_text("mlflow==1 --hash=sha256:0\n")
    return tmp_path


@pytest.fixture
def calls(root: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that would be run; the first one makes the interpreter."""
    made: list[list[str]] = []

    def run(argv: list[str], **_: Any) -> Result:
        made.append(argv)
        python = mlflow_env.python_of(root)
        python.parent.mkdir(parents=True, exist_ok=True)
        python.touch()
        return Result(0, "", "")

    monkeypatch.setattr(shell, "run", run)
    return made


@pytest.mark.parametrize("uv", [None, "/x/uv"])
def test_it_is_made_once_from_the_lock_file(
    root: Path, calls: list[list[str]], monkeypatch: pytest.MonkeyPatch, uv: str | None
) -> None:
    monkeypatch.setattr(shell, "find", lambda name: uv)
    said = console()
    assert not mlflow_env.ready(root)
    python = mlflow_env.ensure(root, said)
    venv, install = calls
    assert venv[0] == (uv or sys.executable)
    assert venv[-1] == str(root / ".venv-mlflow")
    assert {"--require-hashes", "--no-deps", str(root / "requirements" / "mlflow.txt")} <= set(install)
    assert mlflow_env.ensure(root, said) == python
    assert len(calls) == 2
    assert said.err.count("installing MLflow") == 1


def test_a_changed_lock_file_makes_it_anew(root: Path, calls: list[list[str]]) -> None:
    mlflow_env.ensure(root, console())
    (root / "requirements" / "mlflow.txt").write_text("mlflow==2\n")
    assert not mlflow_env.ready(root)
    mlflow_env.ensure(root, console())
    assert len(calls) == 4


def test_an_environment_that_was_moved_is_made_anew(root: Path, calls: list[list[str]]) -> None:
    """Scripts in it know its path."""
    mlflow_env.ensure(root, console())
    (root / ".venv-mlflow" / "stamp").write_text("of another path")
    assert not mlflow_env.ready(root)


def test_a_failed_installation_says_so_and_is_not_taken_for_ready(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(argv: list[str], **_: Any) -> Result:
        raise PlatformError("PROGRAM_FAILED", "uv ended with 1", why="no route to host", details={"log": ["x"]})

    monkeypatch.setattr(shell, "run", run)
    with pytest.raises(PlatformError) as caught:
        mlflow_env.ensure(root, console())
    assert caught.value.why == "no route to host"
    assert "core services are not affected" in caught.value.what
    assert not mlflow_env.ready(root)
