"""The native tier's object store against MinIO, each as the tier runs it, in turn: `figures(rounds, work)`.

`python -m tests.bench.stores [--rounds N]` measures them alone. MinIO is taken from PATH or from the rig, which builds
it from its module; without it there are no figures.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

from infra import ports
from tests.bench import memory
from tests.bench.figures import Figure, printed
from tests.rig import engines

OURS, THEIRS = "weed", "minio"
SMALL, SMALL_SIZE, THREADS = 5_000, 4_096, 8
LARGE, LARGE_SIZE = 4, 256 << 20
BUCKET = "bench"
GOALS = {"small": 1.1, "download": 1.2, "upload": 2.0, "memory": 0.5}
TITLES = {
    "small": f"{SMALL} x 4 KiB put and read back",
    "download": f"download of {LARGE} x 256 MiB",
    "upload": f"upload of {LARGE} x 256 MiB",
    "memory": "memory of the store afterwards (PSS)",
}


def figures(rounds: int, work: Path) -> list[Figure]:
    """Return the ratios of SeaweedFS to MinIO, medians of rounds in turn; none where MinIO is not installed."""
    found = []
    for number in range(rounds):
        try:
            theirs = measured(THEIRS, work / f"{THEIRS}-{number}")
        except FileNotFoundError:
            print("the stores are left out: MinIO is neither on PATH nor in the rig")
            return []
        found.append((measured(OURS, work / f"{OURS}-{number}"), theirs))
    ratios = {what: statistics.median(a[what] / b[what] for a, b in found) for what in GOALS}
    return [Figure(f"object store: {TITLES[w]}", r, "x", "MinIO side by side", GOALS[w]) for w, r in ratios.items()]


def measured(name: str, home: Path) -> Mapping[str, float]:
    """Return seconds, and bytes of memory, of one engine that starts with nothing."""
    with engines.engine(name, home) as login:
        client = engines.boto(login)
        client.create_bucket(Bucket=BUCKET)
        body = bytes(range(256)) * (SMALL_SIZE // 256)
        began = time.perf_counter()
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(lambda n: client.put_object(Bucket=BUCKET, Key=f"s/{n:05}", Body=body), range(SMALL)))
            list(pool.map(lambda n: client.get_object(Bucket=BUCKET, Key=f"s/{n:05}")["Body"].read(), range(SMALL)))
        seconds = {"small": time.perf_counter() - began}
        seconds["upload"] = _timed(lambda n: client.upload_fileobj(BytesIO(_large(n)), BUCKET, f"l/{n}"))
        seconds["download"] = _timed(lambda n: client.download_fileobj(BUCKET, f"l/{n}", _Nowhere()))
        return {**seconds, "memory": _memory(login.port)}


def _large(number: int) -> bytes:
    return bytes([number]) * LARGE_SIZE


def _timed(call: Any) -> float:
    began = time.perf_counter()
    for number in range(LARGE):
        call(number)
    return time.perf_counter() - began


class _Nowhere(BytesIO):
    """A file that keeps nothing."""

    def write(self, data: Any) -> int:
        """Take the bytes."""
        return len(data)


def _memory(port: int) -> float:
    """Return the PSS of the process that listens on a port, in bytes (Linux; elsewhere USS)."""
    holder = ports.listeners().get(port)
    if holder is None or holder.pid is None:
        raise RuntimeError(f"nobody listens on {port}")
    return memory.pss(holder.pid)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    raise SystemExit(printed(lambda work: figures(rounds, work)))
