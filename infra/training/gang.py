"""The workers of one training that runs as several processes: how they find each other, which GPUs each of them gets.

Every worker is a node of its own to torchrun, here as in a cluster, so that the same command runs in both. Names:
torchrun's (docs.pytorch.org/docs/stable/elastic/run.html, PET_* are its arguments), and those of Kubeflow Trainer for
JAX, which itself reads only JAX_COORDINATOR_ADDRESS.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

from infra import setting_rules, shell
from infra.errors import PlatformError

DEVICES = "CUDA_VISIBLE_DEVICES"
HOST = "127.0.0.1"
_NONE = ("-1", "NoDevFiles")
"""Values of CUDA_VISIBLE_DEVICES that hide all GPUs."""
_PATIENCE = 5.0
"""Seconds for nvidia-smi: shorter than a heartbeat may be late."""


def rendezvous(rank: int | str, workers: int, host: str, port: int, gpus: int) -> dict[str, str]:
    """Return the variables by which a worker finds the others; `host` and `port` are those of the first worker."""
    number, count, place = str(rank), str(workers), {"ADDR": host, "PORT": str(port)}
    return {
        **{f"MASTER_{name}": value for name, value in place.items()},
        **{"WORLD_SIZE": count, "RANK": number, "NODE_RANK": number, "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"},
        **{f"PET_MASTER_{name}": value for name, value in place.items()},
        **{"PET_NNODES": count, "PET_NODE_RANK": number, "PET_NPROC_PER_NODE": str(max(1, gpus))},
        "JAX_COORDINATOR_ADDRESS": f"{host}:{port}",
        **{"JAX_NUM_PROCESSES": count, "JAX_PROCESS_ID": number},
    }


def free_port() -> int:
    """Return a port of this machine that nobody uses now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def devices(environ: Mapping[str, str]) -> list[str]:
    """Return the NVIDIA GPUs that a program with this environment may use: all of the machine, or those it names."""
    if DEVICES in environ:
        named = list(setting_rules.words(environ[DEVICES]))
        ends = [index for index, name in enumerate(named) if name in _NONE]
        return named[: ends[0]] if ends else named
    program = shell.find("nvidia-smi")
    if program is None:
        return []
    found = shell.run([program, "--query-gpu=uuid", "--format=csv,noheader"], limit=_PATIENCE, check=False)
    return [line.strip() for line in found.out.splitlines() if line.strip()] if found.code == 0 else []


def shares(found: Sequence[str], workers: int, gpus: int) -> list[list[str]]:
    """Return the GPUs of each worker: `gpus` of them, or (0) as many as there are for each; a scarce one is shared.

    Raises:
        PlatformError: USAGE where there are not enough.
    """
    if gpus * workers > len(found):
        wanted = f"{workers} x {gpus}" if workers > 1 else gpus
        what = f"{wanted} GPUs are wanted, and this machine has {len(found)}"
        steps = (
            "fewer --workers or --gpus, or add --or-cpu",
            "invoke doctor says which there are, and what is missing",
        )
        raise PlatformError("USAGE", what, steps=steps)
    each = gpus or len(found) // workers
    if not each:
        return [[found[rank % len(found)]] if found else [] for rank in range(workers)]
    return [list(found[rank * each : (rank + 1) * each]) for rank in range(workers)]


def environments(
    environ: Mapping[str, str], workers: int, gpus: int, port: int, held: Sequence[str] = ()
) -> list[dict[str, str]]:
    """Return the variables of each worker of this machine, beside those that all have.

    `held` are the GPUs that the training has for itself; without them all of the machine are shared out.

    Raises:
        PlatformError: USAGE where there are not enough GPUs.
    """
    if workers == 1 and not gpus:
        return [{}]
    split = shares(held or devices(environ), workers, gpus)
    mine = [{DEVICES: ",".join(share)} if share else {} for share in split]
    if workers == 1:
        return mine
    bound = {"JAX_COORDINATOR_BIND_ADDRESS": f"{HOST}:{port}"}  # by default it listens on all interfaces
    return [{**rendezvous(n, workers, HOST, port, len(split[n])), **bound, **mine[n]} for n in range(workers)]


def log_of(log: Path, rank: int) -> Path:
    """Return the log of a worker, by that of the first."""
    return log.with_suffix(f".rank{rank}.log") if rank else log
