"""Locks of GPUs, by real files and a real process that dies."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest
from temporalio import activity
from temporalio.exceptions import ApplicationError

from infra import catalog
from infra.settings import ROOT
from infra.training import gang, gpus
from infra.training.activities import Activities
from infra.training.contract import Contract
from infra.training.orders import Orders
from infra.training.recorder import Heart, Stop
from infra.training.request import Request

DEVICES = ["GPU-a", "GPU-b", "1/2"]


class Busy(Exception):
    """Too few are free."""


def refuse() -> None:
    raise Busy


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "PAUSE", 0.01)


def test_two_trainings_never_have_the_same_device(tmp_path: Path) -> None:
    with gpus.held(DEVICES, 2, tmp_path, refuse) as one, gpus.held(DEVICES, 1, tmp_path, refuse) as other:
        assert (one, other) == (["GPU-a", "GPU-b"], ["1/2"])
    with gpus.held(DEVICES, 3, tmp_path, refuse) as mine:
        assert mine == DEVICES, "they are free again"


def test_what_does_not_suffice_is_not_kept_from_others(tmp_path: Path) -> None:
    with gpus.held(DEVICES, 2, tmp_path, refuse):
        with pytest.raises(Busy), gpus.held(DEVICES, 2, tmp_path, refuse):
            pass
        with gpus.held(DEVICES, 1, tmp_path, refuse) as third:
            assert third == ["1/2"]


def test_one_that_waits_keeps_nothing_that_another_could_use(tmp_path: Path) -> None:
    found: list[list[str]] = []

    def another() -> None:
        """While the first one waits for two, another one gets the only free device."""
        with gpus.held(DEVICES, 1, tmp_path, refuse) as mine:
            found.append(mine)
        raise Busy

    with gpus.held(DEVICES, 2, tmp_path, refuse), pytest.raises(Busy), gpus.held(DEVICES, 2, tmp_path, another):
        pass
    assert found == [["1/2"]]


def test_one_that_waits_goes_on_when_another_ends(tmp_path: Path) -> None:
    asked = threading.Event()
    got: list[str] = []

    def second() -> None:
        with gpus.held(["0"], 1, tmp_path, asked.set) as mine:
            got.extend(mine)

    thread = threading.Thread(target=second)
    with gpus.held(["0"], 1, tmp_path, refuse):
        thread.start()
        assert asked.wait(30)
        assert got == []
    thread.join(30)
    assert got == ["0"]


def test_a_process_that_dies_frees_its_devices(tmp_path: Path) -> None:
    code = "from pathlib import Path; from infra.training import gpus; import sys\n"
    code += "with gpus.held(['0'], 1, Path(sys.argv[1]), print): print('held', flush=True); input()"
    argv = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline().strip() == b"held"
        with pytest.raises(Busy), gpus.held(["0"], 1, tmp_path, refuse):
            pass
        child.kill()
        child.wait()
    with gpus.held(["0"], 1, tmp_path, refuse) as mine:
        assert mine == ["0"]


class Beating(Heart):
    def __init__(self) -> None:
        super().__init__()
        self.beats = 0

    def beat(self) -> None:
        self.beats += 1
        raise Stop("the worker is stopping")


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Activities:
    """Activities of a machine with one GPU."""
    monkeypatch.setattr(activity, "is_cancelled", lambda: False)
    found = Activities(Contract(dict.fromkeys(catalog.CONTRACT_NAMES, "")), tmp_path / "jobs", Orders(b""))
    monkeypatch.setattr(found, "_environment", lambda _: {gang.DEVICES: "7"})
    return found


def test_a_training_waits_with_signs_of_life_and_says_so_in_its_log(work: Activities, tmp_path: Path) -> None:
    request, heart = Request("mine-1", command=["x"], gpus=1), Beating()
    with work._gpus(request, Heart()) as mine:
        assert mine == ["7"]
        assert gang.environments({}, 1, 1, 1, mine) == [{gang.DEVICES: "7"}]
        with pytest.raises(ApplicationError, match="stopping"), work._gpus(request, heart):
            pass
    assert heart.beats == 1
    assert "waiting for 1 of 1 GPUs" in (tmp_path / "jobs" / "mine-1.log").read_text()


def test_too_few_devices_are_a_final_refusal(work: Activities) -> None:
    request = Request("mine-1", command=["x"], gpus=2)
    with pytest.raises(ApplicationError, match="this machine has 1") as caught, work._gpus(request, Heart()):
        pass
    assert caught.value.non_retryable


def test_a_program_sees_only_the_devices_that_its_training_holds(
    work: Activities, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "_environment", lambda _: {gang.DEVICES: "6,7"})
    steps = work._steps(Request("mine-1", command=["x"], gpus=1), 1, ["7"])
    assert [step.env[gang.DEVICES] for step in steps] == ["7"]


def test_a_training_that_asks_for_none_locks_none(work: Activities, tmp_path: Path) -> None:
    with work._gpus(Request("mine-1", command=["x"]), Heart()) as mine:
        assert mine == []
    assert not (tmp_path / "gpus").exists()
