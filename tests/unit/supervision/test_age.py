"""What runs with older code than that of the checkout, by a real process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from infra import outdated
from infra.supervision import age, client, process
from infra.supervision.client import Spec
from tests.unit.helpers import context_of

NAME = "training-worker"


@pytest.fixture
def running() -> Iterator[process.Identity]:
    """A process that stands for a worker and for its supervisor."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        found = process.identify(child.pid)
        assert found is not None
        yield found
        child.kill()


def noted(home: Path, identity: process.Identity, argv: list[str]) -> None:
    """Write down what runs, as a supervisor does."""
    home.mkdir(parents=True)
    spec = Spec(NAME, argv, str(home), str(home / "log"))
    entry = {"pid": identity.pid, "create_time": identity.create_time}
    (home / client.DESIRED).write_text(json.dumps({"services": [asdict(spec)]}))
    (home / client.STATE).write_text(json.dumps({"supervisor": entry, "services": {NAME: {"state": "ready", **entry}}}))


def code(root: Path, package: str, seconds: float) -> None:
    """A package of the checkout that was changed so long after now."""
    path = root / package / "worker.py"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    os.utime(path, (time.time() + seconds,) * 2)


@pytest.mark.parametrize(
    ("training", "supervision", "wanted"),
    [(-60, -60, []), (60, -60, [NAME]), (-60, 60, [age.SUPERVISOR]), (60, 60, [age.SUPERVISOR, NAME])],
)
def test_what_started_before_its_code_changed(
    tmp_path: Path, running: process.Identity, training: float, supervision: float, wanted: list[str]
) -> None:
    noted(tmp_path / "state" / "training", running, ["python", "-m", "infra.training.worker"])
    code(tmp_path, "infra/training", training)
    code(tmp_path, "infra/supervision", supervision)
    assert age.outdated(tmp_path / "state", tmp_path) == wanted


def test_another_program_has_no_code_of_ours(tmp_path: Path, running: process.Identity) -> None:
    noted(tmp_path / "state" / "native", running, ["postgres", "-D", "data"])
    code(tmp_path, "infra/training", 60)
    assert age.outdated(tmp_path / "state", tmp_path) == []
    assert age.package(["python", "-m", "apps.backend"]) == "apps.backend"
    assert age.package(["python", "-m"]) == ""


def test_what_has_ended_is_not_old(tmp_path: Path, running: process.Identity) -> None:
    gone = process.Identity(running.pid, running.create_time - 1000)
    noted(tmp_path / "state" / "training", gone, ["python", "-m", "infra.training.worker"])
    code(tmp_path, "infra/training", 60)
    assert age.outdated(tmp_path / "state", tmp_path) == []


def test_doctor_says_what_to_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = context_of(tmp_path)
    assert outdated.programs(context) == []
    monkeypatch.setattr(age, "outdated", lambda home, root: [NAME])
    (check,) = outdated.programs(context)
    assert (check.status, NAME in check.text, "invoke down, then invoke up" in check.remedy) == ("warn", True, True)
