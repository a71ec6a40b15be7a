"""The GPUs for `doctor`: whether a training of each tier can have one, and what is missing for it.

Only NVIDIA's are known. On native and compose a training is a program of this machine, on kind a pod, which gets a GPU
from the device plugin of its node.
"""

from __future__ import annotations

import contextlib
import http.client
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra import docker_engine, shell
from infra.errors import PlatformError
from infra.kube import api
from infra.tiers.base import Check, Tier
from infra.training import gang
from infra.training.job_manifest import GPU

GUIDE = "docs/training.md, GPUs"
VENDOR, DISPLAY = "0x10de", "0x03"
"""NVIDIA's number among PCI vendors, and the first byte of the class of displays."""
CDI = ("/etc/cdi", "/var/run/cdi")
"""Directories of CDI where the engine names none (github.com/cncf-tags/container-device-interface)."""
_LIMIT = 5.0


@dataclass(frozen=True)
class Gpus:
    """The GPUs of this machine: cards on its bus, the driver's version, what nvidia-smi lists or why it does not."""

    cards: int = 0
    driver: str = ""
    names: tuple[str, ...] = ()
    usable: int = 0
    trouble: str = ""

    @property
    def there(self) -> bool:
        """Return whether anything of NVIDIA's is on this machine."""
        return bool(self.cards or self.driver or self.names or self.usable)


def checks(tier: Tier, root: Path = Path("/")) -> list[Check]:
    """Return a finding for each tier; one for all where there is no GPU.

    Args:
        root: the directory that the paths of Linux lie below.
    """
    here, cluster = machine(root), _cluster(tier)
    if not here.there and not (cluster and cluster.status == "ok"):
        return [Check("gpu", "ok", "no NVIDIA GPU on this machine: trainings of every tier use the processor")]
    containers = _containers(root) if here.usable else "containers can have none either"
    compose = Check("gpu.compose", "ok", f"trainings run on this machine, as on native; {containers}")
    return [_own(here), compose, cluster or _no_cluster(here)]


def machine(root: Path = Path("/")) -> Gpus:
    """Look at bus, driver and nvidia-smi; never raises."""
    names, driver, trouble = _listed()
    usable = 0
    with contextlib.suppress(PlatformError):
        usable = len(gang.devices(os.environ)) if names else 0
    return Gpus(_cards(root), driver or _module(root), names, usable, trouble)


def _cards(root: Path) -> int:
    """Return how many display adapters of NVIDIA are on the bus (Linux)."""
    devices = (root / "sys/bus/pci/devices").glob("*")
    return sum(_word(d / "vendor") == VENDOR and _word(d / "class").startswith(DISPLAY) for d in devices)


def _word(path: Path) -> str:
    with contextlib.suppress(OSError, ValueError):
        return path.read_text(encoding="ascii").strip()
    return ""


def _module(root: Path) -> str:
    """Return the version of the loaded kernel module (Linux); '' for none."""
    words = _word(root / "proc/driver/nvidia/version").split("\n")[0].split()
    return next((word for word in words if word[:1].isdigit() and "." in word), "")


def _listed() -> tuple[tuple[str, ...], str, str]:
    """Return what nvidia-smi lists: names, the driver's version; or why it lists nothing."""
    program = shell.find("nvidia-smi")
    if program is None:
        return (), "", "nvidia-smi is not on PATH"
    argv = [program, "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        done = shell.run(argv, limit=_LIMIT, check=False)
    except PlatformError as error:
        return (), "", f"nvidia-smi does not answer: {error.what}"
    if done.code:
        said = (done.out.strip() or done.err.strip()).splitlines()
        return (), "", f"nvidia-smi ended with {done.code}: {said[0] if said else ''}".rstrip(": ")
    rows = [line.rpartition(",") for line in done.out.splitlines() if line.strip()]
    return tuple(row[0].strip() for row in rows), rows[0][2].strip() if rows else "", ""


def _own(here: Gpus) -> Check:
    """Return the finding about programs of this machine."""
    if not here.there:
        return Check("gpu.native", "ok", "no NVIDIA GPU on this machine: trainings use the processor")
    if here.usable:
        hidden = f"; {gang.DEVICES} names {here.usable}" if gang.DEVICES in os.environ else ""
        text = f"{len(here.names)} with driver {here.driver}: {_counted(here.names)}{hidden}"
        return Check("gpu.native", "ok", f"trainings can have GPUs: {text}")
    if here.names:
        return Check("gpu.native", "warn", f"{gang.DEVICES} hides all GPUs from trainings", f"unset {gang.DEVICES}")
    if not here.driver:
        text = f"{here.cards} NVIDIA cards, but no driver: trainings use the processor"
        return Check("gpu.native", "warn", text, "install NVIDIA's driver, restart, and try nvidia-smi")
    text = f"driver {here.driver} is loaded, but trainings use the processor: {here.trouble or 'it has no devices'}"
    return Check("gpu.native", "warn", text, "make nvidia-smi work: after an update of the driver, restart")


def _counted(names: tuple[str, ...]) -> str:
    return ", ".join(f"{names.count(name)} x {name}" for name in dict.fromkeys(names))


def _containers(root: Path) -> str:
    """Tell whether a container of this machine's engine can have a GPU."""
    try:
        info = docker_engine.ask(docker_engine.find().place, "/info")
    except (PlatformError, OSError, ValueError, http.client.HTTPException):
        return "no Docker answers, so there are no containers"
    if devices := cdi_files(info, root):
        return f"containers can have them, too (CDI: {devices[0]})"
    if "nvidia" in (info.get("Runtimes") or {}):
        return "containers can have them, too (--gpus all, NVIDIA's runtime)"
    if shell.find("nvidia-ctk") is None:
        return f"containers can have none: the NVIDIA Container Toolkit is not installed ({GUIDE})"
    return "containers can have none: sudo nvidia-ctk runtime configure, then restart Docker"


def cdi_files(info: Mapping[str, Any], root: Path) -> list[str]:
    """Return the CDI files that describe NVIDIA's GPUs, in the directories of an engine."""
    found = []
    for directory in info.get("CDISpecDirs") or CDI:
        for path in sorted((root / str(directory).lstrip("/")).glob("*.[yj]*")):
            with contextlib.suppress(OSError, UnicodeDecodeError):
                found += (
                    [f"/{path.relative_to(root).as_posix()}"] if "nvidia.com/gpu" in path.read_text("utf-8") else []
                )
    return found


def _cluster(tier: Tier) -> Check | None:
    """Return the finding about the cluster in which trainings run as Jobs; None where none answers."""
    path = tier.jobs_kubeconfig
    if path is None or not path.exists():
        return None
    with contextlib.suppress(PlatformError, api.NoAnswer):
        return offered(api.connect(path))
    return None


def offered(reader: api.Reader) -> Check:
    """Return the finding about a cluster. Raises NoAnswer."""
    nodes = [int((n.get("status") or {}).get("allocatable", {}).get(GPU) or 0) for n in reader.items("/api/v1/nodes")]
    if sum(nodes):
        return Check(
            "gpu.kind", "ok", f"Jobs can have GPUs: {sum(nodes)} on {sum(map(bool, nodes))} nodes of the cluster"
        )
    plugins = list(_plugins(reader.items("/apis/apps/v1/daemonsets")))
    if plugins:
        text = f"the device plugin {plugins[0]} runs, but no node of the cluster offers a GPU"
        return Check("gpu.kind", "warn", text, f"the node must see the devices of this machine: {GUIDE}")
    text = "Jobs can have no GPU: the cluster has no device plugin of NVIDIA"
    return Check("gpu.kind", "warn", text, f"let the node see the devices and install the plugin: {GUIDE}")


def _plugins(sets: list[dict[str, Any]]) -> Iterator[str]:
    for found in sets:
        name = str(found["metadata"]["name"])
        if "nvidia" in name and "device-plugin" in name:
            yield name


def _no_cluster(here: Gpus) -> Check:
    wanted = (
        "the Container Toolkit, its mount in kind/cluster.yaml and the device plugin" if here.usable else "a driver"
    )
    return Check("gpu.kind", "ok", f"no cluster was asked; Jobs can have a GPU with {wanted} ({GUIDE})")
