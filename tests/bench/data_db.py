"""Backups and restores of databases against plain pg_dump and pg_restore, on one server, in turn.

`python -m tests.bench.data_db [--rounds N] [--scale F] [--zstd-clients DIR] [--only PART]`: scale 1 is 1.6 GB in three
databases.
The bundled pg_dump is built without zstd. What to compare with comes from client programs that have it, where a
directory with some is named (Debian 14's have). Else the plain dump is the bundled one through the program zstd, which
does the same work, and the archive that is restored by hand is not compressed, which spares pg_restore work.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psycopg

from infra import endpoints, settings
from infra.data import store
from infra.data.postgres import clients as postgres_clients
from infra.data.postgres import packing
from infra.data.postgres.clients import Server
from infra.endpoints import Endpoints
from infra.settings import ROOT
from tests.bench import run as bench
from tests.bench.figures import Figure, invoke, printed

ROWS = {"platform": 5_000_000, "users": 1_800_000, "labeler": 1_800_000}
# Seeded by the row's number: the same data in every run.
MAKE = {
    "platform": """
create table metrics (id bigint, job text, step int, loss double precision, at timestamptz);
insert into metrics select i, 'job-' || (i % 500), i % 1000, exp(-(i % 1000) / 300.0) + ((i * 7919) % 1000) / 10000.0,
  timestamptz '2026-01-01' + i * interval '1 second' from generate_series(1::bigint, {rows}) i;
alter table metrics add primary key (id)""",
    "users": """
create table accounts (id uuid, name text, mail text, active boolean, made timestamptz, note text);
insert into accounts select md5('u' || i)::uuid, 'User ' || i, 'user' || i || '@example.org', i % 7 <> 0,
  timestamptz '2025-01-01' + i * interval '1 minute', md5(i::text) || md5((i + 1)::text)
  from generate_series(1::bigint, {rows}) i;
alter table accounts add primary key (id);
create index on accounts (mail)""",
    "labeler": """
create table annotations (id uuid, image text, body jsonb, at timestamptz);
insert into annotations select md5('a' || i)::uuid, 'images/' || md5(i::text) || '.png',
  jsonb_build_object('label', (array['car', 'person', 'dog', 'tree'])[1 + i % 4],
    'score', ((i * 7919) % 10000) / 10000.0,
    'box', jsonb_build_array(i % 640, (i * 3) % 480, (i * 7) % 640, (i * 11) % 480), 'by', md5((i % 300)::text)),
  timestamptz '2026-01-01' + i * interval '1 second' from generate_series(1::bigint, {rows}) i;
alter table annotations add primary key (id);
create index on annotations (image)""",
}
STEP = "create table step (n bigint); insert into step values (0)"


@dataclass(frozen=True)
class Bench:
    """A running stack with large databases."""

    env: Mapping[str, str]
    work: Path
    server: Server
    zstd: Path | None

    @property
    def ends(self) -> Endpoints:
        """Where the server is."""
        return self.server.endpoints

    def invoke(self, *words: str) -> tuple[float, dict[str, Any]]:
        """Seconds that a task takes as a whole process, and its data."""
        began = time.perf_counter()
        argv = [sys.executable, "-m", "invoke", *words, "--json"]
        done = subprocess.run(argv, cwd=ROOT, env=dict(self.env), capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - began
        if done.returncode:
            raise RuntimeError(done.stderr)
        return seconds, json.loads(done.stdout)["data"]

    def plain(self, argv: list[str]) -> subprocess.Popen[bytes]:
        """Start a client program as it is."""
        return subprocess.Popen(argv, env=postgres_clients.login(self.server), stdout=subprocess.PIPE)

    def by_hand(self, program: str) -> str:
        """The client program that somebody without us would call."""
        return str((self.zstd or self.server.clients.directory) / program)

    def size(self) -> int:
        """Bytes of the three databases."""
        with postgres_clients.connected(self.ends) as link:
            row = link.execute(
                "select sum(pg_database_size(datname)) from pg_database where datname = any(%s)", (list(ROWS),)
            )
            return int((row.fetchone() or (0,))[0])


def fill(ends: Endpoints, scale: float) -> None:
    """Make the data, with a row to step in each database."""
    for name, text in MAKE.items():
        with psycopg.connect(ends.database_url(name), autocommit=True) as link:
            link.execute("set synchronous_commit to off; set maintenance_work_mem to '256MB'")
            link.execute((text.format(rows=int(ROWS[name] * scale)) + ";" + STEP).encode())
            link.execute("vacuum analyze")
            link.execute("checkpoint")


def plain_dumps(bench_: Bench, number: int) -> float:
    """Seconds for parallel plain dumps of the same databases, compressed by zstd:1."""
    began = time.perf_counter()
    waits = [_plain_dump(bench_, name, bench_.work / f"plain-{number}-{name}") for name in ROWS]
    for wait in waits:
        wait()
    return time.perf_counter() - began


def _plain_dump(bench_: Bench, name: str, target: Path) -> Callable[[], None]:
    argv = [bench_.by_hand("pg_dump"), "-Fc", _compression(bench_), "-d", name]
    if bench_.zstd:
        processes = [bench_.plain([*argv, "-f", str(target)])]
    else:
        first = bench_.plain(argv)
        with open(target, "wb") as out:
            processes = [first, subprocess.Popen(["zstd", "-q", "-1"], stdin=first.stdout, stdout=out)]

    def wait() -> None:
        if any(p.wait() for p in processes):
            raise RuntimeError(f"the plain dump of {name} failed")

    return wait


def backups(bench_: Bench, rounds: int) -> list[Figure]:
    """`db.backup` of all three against parallel plain dumps, in turn."""
    ratios, ours, theirs = [], [], []
    for number in range(rounds):
        theirs.append(plain_dumps(bench_, number))
        seconds, _ = bench_.invoke("db.backup", "--to", str(bench_.work / f"ours-{number}"))
        ours.append(seconds)
        ratios.append(seconds / theirs[-1])
        for path in (*bench_.work.glob("plain-*"), *bench_.work.glob("ours-*")):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    what = "pg_dump -Fc --compress=zstd:1" if bench_.zstd else "the bundled pg_dump -Fc | zstd -1"
    both = f"{statistics.median(ours):.1f} s against {statistics.median(theirs):.1f} s"
    text = f"{what} in parallel, {bench_.size() / 1e9:.2f} GB, {os.cpu_count()} cores: {both}"
    return [Figure("db.backup of three databases", statistics.median(ratios), "x", text, 1.15)]


def skews(bench_: Bench, rounds: int) -> list[Figure]:
    """How far apart the databases are under a writer that steps from one to the next."""
    found: dict[str, list[tuple[float, float]]] = {"plain": [], "fence": []}
    stop = threading.Event()
    writer = threading.Thread(target=_step, args=(bench_.ends, stop))
    writer.start()
    try:
        for number in range(rounds):
            for kind, words in (("plain", ()), ("fence", ("--fence",))):
                _, data = bench_.invoke("db.backup", "--to", str(bench_.work / f"skew-{kind}-{number}"), *words)
                taken = data["snapshots"]
                time_ = taken["fence"]["ms"] if kind == "fence" else taken["window_ms"]
                found[kind].append((time_, _out_of_step(bench_, Path(data["path"]))))
                shutil.rmtree(bench_.work / f"skew-{kind}-{number}")
    finally:
        stop.set()
        writer.join()
    return [
        Figure(
            "skew, time between the snapshots", max(w for w, _ in found["plain"]), "ms", "worst of all rounds", 10.0
        ),
        Figure("skew, steps of a writer", max(s for _, s in found["plain"]), "steps", "worst of all rounds", 10.0),
        Figure("skew with --fence", max(s for _, s in found["fence"]), "steps", "worst of all rounds", 0.0),
        Figure("fence", statistics.median(w for w, _ in found["fence"]), "ms", "writers wait that long", 50.0),
    ]


def _step(ends: Endpoints, stop: threading.Event) -> None:
    links = [psycopg.connect(ends.database_url(name), autocommit=True) for name in ROWS]
    number = 0
    while not stop.is_set():
        number += 1
        for link in links:
            link.execute("update step set n = %s", (number,))
    for link in links:
        link.close()


def _out_of_step(bench_: Bench, path: Path) -> int:
    """Steps that a backup has in one database, but not in one that was written before; or the other way round."""
    steps = []
    made = store.load(path)
    for name in ROWS:
        entry = made.facts["databases"][name]
        label = next(k for k in entry["tables"] if " step " in k)
        steps.append(_number_in(made, entry, label, bench_.work / "unpacked"))
    behind = max(0, *(later - before for before, later in itertools.pairwise(steps)))
    return max(behind, steps[0] - steps[-1] - 1)


def _number_in(made: store.Backup, entry: Mapping[str, Any], label: str, scratch: Path) -> int:
    size = entry["tables"][label]["bytes"]
    for file in made.files:
        if not file.path.startswith(f"{entry['directory']}/") or not file.path.endswith(".zst") or file.size > 1000:
            continue
        scratch.unlink(missing_ok=True)
        if packing.unpack(store.open_file(made, file), scratch) - 5 == size:
            return int(scratch.read_bytes().split(b"\n")[0])
    raise RuntimeError(f"{label} is not in {made.path}")


def restores(bench_: Bench, rounds: int) -> list[Figure]:
    """`db.restore` against pg_restore -j2 and ANALYZE by hand; its verification apart."""
    all_three, checks, swaps = _restored(bench_, rounds, tuple(ROWS))
    largest, _, _ = _restored(bench_, rounds, ("labeler",))
    return [
        replace(all_three, name="db.restore of three databases, without its verification"),
        replace(largest, name="db.restore of the largest database, without its verification"),
        Figure("verification of three restored databases", statistics.median(checks), "s", "apart", float("inf")),
        Figure("swap", max(swaps), "ms", "worst of all rounds", 100.0),
    ]


def _restored(bench_: Bench, rounds: int, names: tuple[str, ...]) -> tuple[Figure, list[float], list[float]]:
    """How much longer than by hand it takes; seconds of verification and milliseconds of the swap in each round."""
    words = [word for name in names for word in ("--database", name)]
    _, made = bench_.invoke("db.backup", "--to", str(bench_.work / "kept"), *words)
    archives = {name: _plain_archive(bench_, name) for name in names}
    hands, ours, checks, swaps = [], [], [], []
    for _ in range(rounds):
        hands.append(sum(_plain_restore(bench_, archive) for archive in archives.values()))
        seconds, data = bench_.invoke("db.restore", "--from", made["path"], "--yes")
        ours.append(seconds - data["check_seconds"])
        checks.append(data["check_seconds"])
        swaps.append(data["swap_ms"])
        with postgres_clients.connected(bench_.ends) as link:
            for found in data["databases"].values():
                link.execute(f'drop database "{found["old"]}" with (force)'.encode())
    ratio = statistics.median(our / hand for our, hand in zip(ours, hands, strict=True))
    seconds_each = f"{statistics.median(ours):.1f} s against {statistics.median(hands):.1f} s"
    archive = f"-Fc archive with {_compression(bench_)}"
    text = f"createdb, pg_restore -j2 of an {archive}, ANALYZE, one after the other: {seconds_each}"
    return Figure("", ratio, "x", text, 1.05), checks, swaps


def _compression(bench_: Bench) -> str:
    return "--compress=zstd:1" if bench_.zstd else "--compress=0"


def _plain_archive(bench_: Bench, name: str) -> Path:
    archive = bench_.work / f"{name}.dump"
    argv = [bench_.by_hand("pg_dump"), "-Fc", _compression(bench_), "-f", str(archive), "-d", name]
    if bench_.plain(argv).wait():
        raise RuntimeError("the plain dump failed")
    return archive


def _plain_restore(bench_: Bench, archive: Path) -> float:
    with postgres_clients.connected(bench_.ends) as link:
        began = time.perf_counter()
        link.execute("create database plain_restore template template0")
        argv = [bench_.by_hand("pg_restore"), "-j2", "--exit-on-error", "-d", "plain_restore", str(archive)]
        if bench_.plain(argv).wait():
            raise RuntimeError("pg_restore failed")
        with postgres_clients.connected(bench_.ends, "plain_restore") as other:
            other.execute("analyze")
        seconds = time.perf_counter() - began
        link.execute("drop database plain_restore with (force)")
    return seconds


def figures(
    rounds: int, work: Path, scale: float = 1.0, zstd: Path | None = None, only: str | None = None
) -> list[Figure]:
    """Every figure of the databases (or of one part), on a stack of their own."""
    parts = {"backup": backups, "skew": skews, "restore": restores}
    env = bench.staged(work / "state")
    invoke(env, "up")
    try:
        read = settings.load(environ=env)
        ends = endpoints.build(read, ("postgres",))
        fill(ends, scale)
        ready = Bench(env, work, postgres_clients.find_server(ends, read), zstd)
        return [f for name, part in parts.items() if only in (None, name) for f in part(ready, rounds)]
    finally:
        invoke(env, "down")


def main() -> int:
    """Measure the databases alone."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="1 is 1.6 GB")
    parser.add_argument("--zstd-clients", type=Path, help="directory of a pg_dump that has zstd")
    parser.add_argument("--only", choices=("backup", "skew", "restore"), help="measure that part only")
    options = parser.parse_args()
    return printed(lambda work: figures(options.rounds, work, options.scale, options.zstd_clients, options.only))


if __name__ == "__main__":
    sys.exit(main())
