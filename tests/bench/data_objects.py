"""Object backups against other tools on the same server, as whole processes, in turn: `figures(rounds, work)`.

`python -m tests.bench.data_objects [--rounds N]` measures them alone. minio-client is taken from
PATH (`mc`; `go install github.com/minio/mc@latest` builds it), else rclone is what small objects are compared with.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import psutil

from infra.data.objects.login import StoreLogin
from infra.settings import ROOT
from tests.bench.figures import Figure, invoke
from tests.bench.run import report, staged
from tests.rig import engines

SMALL, SMALL_SIZE = 5_000, 4_096
LARGE, LARGE_SIZE = 4, 256 << 20
BUCKET = "training-datasets"
LARGE_BUCKET = "bench-large"


@dataclass(frozen=True)
class Ran:
    """A process and what it started: seconds, and the most memory in MB (resident, all of them together)."""

    seconds: float
    memory: float


def ran(argv: Sequence[str], env: Mapping[str, str]) -> Ran:
    """Run a program to its end and watch it. Raises subprocess.CalledProcessError."""
    began, most = time.perf_counter(), 0.0
    with subprocess.Popen(argv, cwd=ROOT, env=dict(env), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as child:
        while child.poll() is None:
            most = max(most, _resident(child.pid))
            time.sleep(0.05)
    if child.returncode:
        raise subprocess.CalledProcessError(child.returncode, argv)
    return Ran(time.perf_counter() - began, most)


def _resident(pid: int) -> float:
    try:
        first = psutil.Process(pid)
        return sum(p.memory_info().rss for p in [first, *first.children(recursive=True)]) / 1e6
    except psutil.Error:
        return 0.0


def task(env: Mapping[str, str], *words: str) -> Ran:
    """One of our tasks."""
    return ran([sys.executable, "-m", "invoke", *words], env)


def figures(rounds: int, work: Path) -> list[Figure]:
    """All figures; a platform of its own runs meanwhile."""
    env = staged(work / "objects")
    invoke(env, "up")
    try:
        login = StoreLogin("minio-datasets", "127.0.0.1", int(env["MINIO_DATASETS_PORT"]), "minioadmin", "minioadmin")
        found = [*_small(rounds, work, env, login), *_large(rounds, work, env, login)]
    finally:
        invoke(env, "down")
    return found


def _small(rounds: int, work: Path, env: Mapping[str, str], login: StoreLogin) -> list[Figure]:
    fill(login, BUCKET, SMALL, SMALL_SIZE)
    name, other = _other(login, work)
    first, again, memory = [], [], []
    for number in range(rounds):
        theirs = ran([*other, str(work / f"theirs-{number}")], env)
        target = str(work / f"ours-{number}")
        ours = task(env, "minio.backup", "--to", target, "--bucket", BUCKET)
        second = task(env, "minio.backup", "--to", target, "--bucket", BUCKET)
        bare = ran([sys.executable, "-m", "tests.bench.data_objects", "--list", str(login.port)], env)
        first.append(ours.seconds / theirs.seconds)
        again.append(second.seconds / bare.seconds)
        memory.append(ours.memory)
        shutil.rmtree(target)
    return [
        Figure(f"minio.backup, {SMALL} x 4 KiB", statistics.median(first), "x", name, 1.3),
        Figure("minio.backup again, nothing changed", statistics.median(again), "x", "a boto3 listing", 1.5),
        Figure("memory of minio.backup, small objects", max(memory), "MB", "with its helpers", 150.0),
    ]


def _large(rounds: int, work: Path, env: Mapping[str, str], login: StoreLogin) -> list[Figure]:
    fill(login, LARGE_BUCKET, LARGE, LARGE_SIZE)
    ratios, memory = [], []
    for number in range(rounds):
        copy, target = work / f"copy-{number}", work / f"large-{number}"
        theirs = ran([*_rclone(login, LARGE_BUCKET), str(copy)], env)
        ours = task(env, "minio.backup", "--to", str(target), "--bucket", LARGE_BUCKET)
        ratios.append(ours.seconds / theirs.seconds)
        memory.append(ours.memory)
        shutil.rmtree(copy)
        shutil.rmtree(target)
    return [
        Figure("minio.backup, 4 x 256 MiB", statistics.median(ratios), "x", "rclone copy", 2.0),
        Figure("memory of minio.backup, large objects", max(memory), "MB", "", 150.0),
    ]


def fill(login: StoreLogin, bucket: str, count: int, size: int) -> None:
    """Objects of a seeded generator: no two alike."""
    client = engines.boto(login)
    with contextlib.suppress(client.exceptions.BucketAlreadyOwnedByYou, client.exceptions.BucketAlreadyExists):
        client.create_bucket(Bucket=bucket)

    def put(number: int) -> None:
        body = random.Random(number).randbytes(min(size, 1 << 20)) * max(1, size >> 20)
        client.put_object(Bucket=bucket, Key=f"{number % 50:02}/{number:06}", Body=body)

    with ThreadPoolExecutor(8 if size < 1 << 20 else 1) as pool:
        list(pool.map(put, range(count)))


def _rclone(login: StoreLogin, bucket: str) -> list[str]:
    keys = f"access_key_id={login.access_key},secret_access_key={login.secret_key}"
    remote = f":s3,provider=Other,{keys},endpoint='http://{login.host}:{login.port}':{bucket}"
    return [str(Path(sys.executable).with_name("rclone")), "copy", "--config", os.devnull, remote]


def _other(login: StoreLogin, work: Path) -> tuple[str, list[str]]:
    """The tool that small objects are compared with, and its command line without the directory."""
    client = shutil.which("mc")
    if client is None:
        return "rclone copy", _rclone(login, BUCKET)
    config = work / "mc"
    url = f"http://{login.host}:{login.port}"
    alias = [client, "--config-dir", str(config), "alias", "set", "bench", url, login.access_key, login.secret_key]
    subprocess.run(alias, check=True, stdout=subprocess.DEVNULL)
    return "minio-client's mirror", [client, "--config-dir", str(config), "mirror", "--quiet", f"bench/{BUCKET}"]


def listing(login: StoreLogin) -> int:
    """A bare listing with boto3."""
    pages = engines.boto(login).get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
    return sum(len(page.get("Contents", [])) for page in pages)


def main() -> int:
    """Measure the objects alone; or be one of the processes that are measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--list", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.list:
        print(listing(StoreLogin("minio-datasets", "127.0.0.1", options.list, "minioadmin", "minioadmin")))
        return 0
    work = Path(tempfile.mkdtemp(prefix="platform-bench-"))
    work.chmod(0o755)
    try:
        report(figures(options.rounds, work))
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
