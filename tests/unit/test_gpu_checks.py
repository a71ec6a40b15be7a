"""What `doctor` says of GPUs: a machine as Linux shows it, an nvidia-smi that is a script, an engine, a cluster."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from infra import docker_engine, gpu_checks, shell
from infra.errors import PlatformError
from infra.gpu_checks import Gpus, checks, machine, offered
from infra.tiers.base import Check
from infra.training import gang
from infra.training.job_manifest import GPU
from tests.rig.fake_engine import fake_engine
from tests.unit.helpers import context_of, script
from tests.unit.test_lifecycle import FakeTier

pytestmark = pytest.mark.skipif(os.name == "nt", reason="nvidia-smi is played by a shell script, an engine by a socket")

TWO = """case "$1" in
    *uuid*) printf 'GPU-a\\nGPU-b\\n' ;;
    *) printf 'NVIDIA L4, 570.86.10\\nNVIDIA L4, 570.86.10\\n' ;;
esac"""


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without GPUs, Docker and nvidia-ctk; gives the directory of its programs."""
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere")
    monkeypatch.delenv(gang.DEVICES, raising=False)
    return programs


def with_card(root: Path, cls: str = "0x030000", vendor: str = "0x10de") -> Path:
    """A card on the bus, as the kernel shows it."""
    device = root / "sys/bus/pci/devices/0000:01:00.0"
    device.mkdir(parents=True)
    (device / "vendor").write_text(f"{vendor}\n")
    (device / "class").write_text(f"{cls}\n")
    return root


def with_driver(root: Path) -> Path:
    """The kernel's module, as it describes itself."""
    path = root / "proc/driver/nvidia/version"
    path.parent.mkdir(parents=True)
    path.write_text(
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.86.10  Thu Jan 23 12:00:00 UTC 2025\n"
        "GCC version:  gcc version 12.2.0 (Debian 12.2.0-14)\n"
    )
    return root


def by_id(root: Path) -> Mapping[str, Check]:
    """The findings."""
    tier = FakeTier().of(context_of(root))
    return {c.id: c for c in checks(tier, root)}


def test_a_machine_without_a_gpu_has_one_line(tmp_path: Path) -> None:
    found = by_id(tmp_path)
    assert [(c.id, c.status) for c in found.values()] == [("gpu", "ok")]
    assert "use the processor" in found["gpu"].text


@pytest.mark.parametrize(("cls", "vendor"), [("0x040300", "0x10de"), ("0x030000", "0x8086")])
def test_sound_of_the_same_maker_and_cards_of_others_are_no_gpu(tmp_path: Path, cls: str, vendor: str) -> None:
    assert not machine(with_card(tmp_path, cls, vendor)).there


def test_a_card_without_a_driver(tmp_path: Path) -> None:
    found = by_id(with_card(tmp_path))
    assert found["gpu.native"].status == "warn"
    assert "no driver" in found["gpu.native"].text
    assert "driver" in found["gpu.native"].remedy
    assert found["gpu.kind"].text.startswith("no cluster was asked; Jobs can have a GPU with a driver")


def test_a_driver_whose_program_fails(tmp_path: Path, alone: Path) -> None:
    script(alone / "nvidia-smi", "echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18")
    found = by_id(with_driver(with_card(tmp_path)))["gpu.native"]
    assert found.status == "warn"
    assert "driver 570.86.10 is loaded" in found.text
    assert "ended with 18: Failed to initialize NVML: Driver/library version mismatch" in found.text


def test_a_driver_without_its_program(tmp_path: Path) -> None:
    assert "nvidia-smi is not on PATH" in by_id(with_driver(tmp_path))["gpu.native"].text


def test_gpus_that_work_need_nothing_of_linux(tmp_path: Path, alone: Path) -> None:
    script(alone / "nvidia-smi", TWO)
    found = by_id(tmp_path)
    assert found["gpu.native"].status == "ok"
    assert found["gpu.native"].text == "trainings can have GPUs: 2 with driver 570.86.10: 2 x NVIDIA L4"
    assert "as on native; no Docker answers" in found["gpu.compose"].text
    assert "Container Toolkit" in found["gpu.kind"].text


@pytest.mark.parametrize(("value", "status", "text"), [("0", "ok", "names 1"), ("", "warn", "hides all GPUs")])
def test_a_variable_that_hides_gpus(
    tmp_path: Path, alone: Path, monkeypatch: pytest.MonkeyPatch, value: str, status: str, text: str
) -> None:
    script(alone / "nvidia-smi", TWO)
    monkeypatch.setenv(gang.DEVICES, value)
    found = by_id(tmp_path)["gpu.native"]
    assert (found.status, text in found.text) == (status, True)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Starts an engine that says this of itself; its socket's path must be short."""
    with tempfile.TemporaryDirectory(prefix="e", dir="/tmp") as made:

        def start(**info: object) -> Any:
            monkeypatch.setenv("DOCKER_HOST", f"unix://{made}/s")
            return fake_engine(Path(made) / "s", "28.3.0", "1.51", **info)

        yield start


def test_what_containers_need(tmp_path: Path, alone: Path, engine: Any) -> None:
    script(alone / "nvidia-smi", TWO)
    specs = tmp_path / "my/cdi"
    with engine(CDISpecDirs=["/my/cdi"], Runtimes={"runc": {}}):
        assert "Container Toolkit is not installed" in by_id(tmp_path)["gpu.compose"].text
        script(alone / "nvidia-ctk", "")
        assert "sudo nvidia-ctk runtime configure" in by_id(tmp_path)["gpu.compose"].text
        specs.mkdir(parents=True)
        (specs / "other.json").write_text('{"kind": "vendor.com/net"}')
        assert "can have none" in by_id(tmp_path)["gpu.compose"].text
        (specs / "nvidia.yaml").write_text("cdiVersion: 0.6.0\nkind: nvidia.com/gpu\n")
        assert "too (CDI: /my/cdi/nvidia.yaml)" in by_id(tmp_path)["gpu.compose"].text
    assert all(c.status == "ok" for c in by_id(tmp_path).values()), "a training can have one all the same"


def test_the_runtime_of_an_engine(tmp_path: Path, alone: Path, engine: Any) -> None:
    script(alone / "nvidia-smi", TWO)
    with engine(Runtimes={"nvidia": {}, "runc": {}}):
        assert docker_engine.find().version == "28.3.0"
        assert "NVIDIA's runtime" in by_id(tmp_path)["gpu.compose"].text


class Cluster:
    """A cluster that has these nodes and DaemonSets."""

    def __init__(self, gpus: list[str], plugins: list[str]) -> None:
        nodes: list[dict[str, Any]] = [{"status": {"allocatable": {"cpu": "4", GPU: n}}} for n in gpus] + [
            {"status": {}}
        ]
        self.lists: dict[str, list[dict[str, Any]]] = {"/api/v1/nodes": nodes}
        self.lists["/apis/apps/v1/daemonsets"] = [{"metadata": {"name": name}} for name in plugins]

    def get(self, path: str, **query: str) -> dict[str, Any]:
        return {"items": self.lists[path]}

    def items(self, path: str, **query: str) -> list[dict[str, Any]]:
        return self.lists[path]

    def text(self, path: str, **query: str) -> str:
        raise AssertionError(path)


@pytest.mark.parametrize(
    ("gpus", "plugins", "status", "text"),
    [
        (["2", "1"], [], "ok", "3 on 2 nodes"),
        (["0"], ["kindnet", "nvidia-device-plugin-daemonset"], "warn", "nvidia-device-plugin-daemonset runs, but no"),
        ([], ["kindnet", "nvidia-dcgm"], "warn", "has no device plugin"),
    ],
)
def test_what_a_cluster_offers(gpus: list[str], plugins: list[str], status: str, text: str) -> None:
    found = offered(Cluster(gpus, plugins))
    assert (found.status, text in found.text, bool(found.remedy)) == (status, True, status == "warn")


def test_a_cluster_far_away_may_have_what_this_machine_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_checks, "_cluster", lambda tier: offered(Cluster(["8"], [])))
    found = by_id(tmp_path)
    assert (found["gpu.kind"].status, found["gpu.native"].status) == ("ok", "ok")
    assert found["gpu.native"].text == "no NVIDIA GPU on this machine: trainings use the processor"


def test_an_nvidia_smi_that_hangs_is_said(tmp_path: Path, alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hangs(*_: object, **__: object) -> None:
        raise PlatformError("WAIT_TIMEOUT", "nvidia-smi did not end within 5 s")

    script(alone / "nvidia-smi", "")
    monkeypatch.setattr(shell, "run", hangs)
    assert machine(with_driver(tmp_path)) == Gpus(0, "570.86.10", (), 0, machine(tmp_path).trouble)
    assert "did not end" in machine(tmp_path).trouble
