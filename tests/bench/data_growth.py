"""Whether backups grow in step with what they hold: the time of each object and of each GB, with a plot.

`python -m tests.bench.data_growth [--objects 100000] [--gigabytes 5]` takes about ten minutes, 20 GB of disk and all
free memory, and writes `.platform-tests/growth.svg` and `growth.json`. The server is rclone, whose objects are files:
they are laid down before it starts, since 100,000 uploads would take longer than what is measured. Every time is
without that of a bare listing: rclone reads a whole directory for each page of it. Databases are measured by
`db.backup` of one that grows; the seconds are those from its snapshot to its publication, without the start of the
program.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import psycopg

from infra import endpoints, settings
from infra.data import store
from infra.data.objects import backup as objects_backup
from infra.data.objects.login import StoreLogin
from infra.data.postgres import backups as postgres_backups
from infra.endpoints import Endpoints
from infra.settings import ROOT
from tests.bench import memory, plot
from tests.bench import run as bench
from tests.bench.data_objects import ran, task
from tests.bench.figures import Figure, invoke, printed
from tests.rig import engines

OBJECTS, GIGABYTES = 100_000, 5.0
STEPS = (0.01, 0.1, 1.0)
"""Parts of the whole that are measured, for objects."""
SIZES = (0.02, 0.1, 0.4, 1.0)
"""The same for gigabytes."""
SMALL, LARGE = 512, 64 << 20
IN_A_BUCKET = 5_000
ROW = 207
"""Bytes of a row of the database as COPY text, about."""
ROWS = """insert into growth select i, md5(i::text) || md5((i * 7)::text) || md5((i * 11)::text) ||
  md5((i * 13)::text) || md5((i * 17)::text) || md5((i * 19)::text) from generate_series(%s::bigint, %s::bigint) i"""
FLAT = 1.2
"""How much longer the largest may take for each object or GB than the quickest of the smaller ones."""


@dataclass(frozen=True)
class Point:
    """A backup of that much (objects, or GB): seconds for each, and the most memory in MB of all its processes."""

    amount: float
    each: float
    memory: float


def figures(work: Path, objects: int = OBJECTS, gigabytes: float = GIGABYTES) -> list[Figure]:
    """The figures; the plot is written, too."""
    memory.use_once()
    many = [_measured(work / f"objects-{int(objects * s)}", int(objects * s), SMALL) for s in STEPS]
    counts = [max(1, round(gigabytes * 1e9 * s / LARGE)) for s in SIZES]
    much = [_measured(work / f"large-{n}", n, LARGE) for n in counts]
    objects_each = [Point(a, s / a * 1000, m) for a, s, m in many]
    gb_each = [Point(a * LARGE / 1e9, s / (a * LARGE / 1e9), m) for a, s, m in much]
    rows_each = databases(work / "databases", gigabytes)
    _write(objects_each, gb_each, rows_each)
    return [
        _flat(objects_each, f"time of each object, {objects_each[-1].amount:,.0f} against the quickest"),
        _flat(gb_each, f"time of each GB, {gb_each[-1].amount:.1f} GB against the quickest"),
        _flat(rows_each, f"time of each GB of a database, {rows_each[-1].amount:.2g} GB against the quickest"),
        Figure(f"memory of a backup of {objects:,} objects", objects_each[-1].memory, "MB", "with its helpers", 150.0),
        Figure(f"memory of a backup of {gigabytes:g} GB", gb_each[-1].memory, "MB", "with its helpers", 150.0),
        Figure(f"memory of db.backup of {gigabytes:g} GB", rows_each[-1].memory, "MB", "with pg_dump", 150.0),
    ]


def databases(home: Path, gigabytes: float) -> list[Point]:
    """Backups of a database that grows, on a stack of their own."""
    env, points, rows = bench.staged(home / "state"), [], 0
    invoke(env, "up")
    try:
        ends = endpoints.build(settings.load(environ=env), ("postgres",))
        for part in SIZES:
            wanted = max(1, int(gigabytes * 1e9 * part / ROW))
            _add_rows(ends, rows, wanted)
            rows = wanted
            points.append(_of_database(env, home / "target"))
    finally:
        invoke(env, "down")
        shutil.rmtree(home, ignore_errors=True)
    return points


def _add_rows(ends: Endpoints, present: int, wanted: int) -> None:
    with psycopg.connect(ends.database_url("platform"), autocommit=True) as link:
        link.execute("set synchronous_commit to off; create table if not exists growth (n bigint, t text)")
        link.execute(ROWS, (present + 1, wanted))
        link.execute("vacuum analyze growth")  # or the backup would be the first to read the new pages
        link.execute("checkpoint")


def _of_database(env: Mapping[str, str], target: Path) -> Point:
    done = task(env, "db.backup", "--database", "platform", "--to", str(target))
    facts = postgres_backups.listing(target)[-1].facts
    size = sum(t["bytes"] for t in facts["databases"]["platform"]["tables"].values()) / 1e9
    shutil.rmtree(target)
    return Point(size, facts["seconds"] / size, done.memory)


def _flat(points: list[Point], name: str) -> Figure:
    unit = ", ".join(f"{p.each:.3g}" for p in points)
    quickest = min(p.each for p in points[:-1])  # where a fixed part weighs least: the fewest would hide a growth
    return Figure(name, points[-1].each / quickest, "x", f"ms or s for each: {unit}; listing apart", FLAT)


def _write(objects_each: list[Point], gb_each: list[Point], rows_each: list[Point]) -> None:
    place = ROOT / ".platform-tests"
    place.mkdir(exist_ok=True)
    panels = [
        plot.Panel("Time of each object", "objects", "ms", [(p.amount, p.each) for p in objects_each]),
        plot.Panel("Time of each GB", "GB", "s", [(round(p.amount, 2), p.each) for p in gb_each]),
        plot.Panel("Time of each GB of a database", "GB", "s", [(round(p.amount, 2), p.each) for p in rows_each]),
        plot.Panel("Memory of the run", "objects", "MB", [(p.amount, p.memory) for p in objects_each]),
    ]
    (place / "growth.svg").write_text(plot.svg(panels), encoding="utf-8")
    measured = {"objects": objects_each, "gigabytes": gb_each, "databases": rows_each}
    data = {name: [asdict(p) for p in points] for name, points in measured.items()}
    (place / "growth.json").write_text(json.dumps(data, indent=1) + "\n")


def _measured(home: Path, count: int, size: int) -> tuple[int, float, float]:
    """Objects, seconds and MB of a backup of so many objects on a server of its own."""
    target = home / "target"
    home.mkdir(parents=True)
    _lay_down(home / "data", count, size)
    with engines.engine("rclone", home) as login:
        words = ["--backup", str(login.port), "--to", str(target)]
        done = ran([sys.executable, "-m", "tests.bench.data_growth", *words], os.environ)
    seconds = float(json.loads((target / "seconds").read_text()))
    shutil.rmtree(home)
    return count, seconds, done.memory


def _lay_down(data: Path, count: int, size: int) -> None:
    """Files that are objects once the server runs: no two alike, spread over buckets."""
    filler = random.Random(size).randbytes(min(size, 1 << 20))
    for number in range(count):
        directory = data / f"growth-{number // IN_A_BUCKET:03}"
        directory.mkdir(parents=True, exist_ok=True)
        with open(directory / f"{number:06}", "wb") as file:
            file.write(number.to_bytes(8, "big"))
            for _ in range(max(1, size >> 20)):
                file.write(filler if size >= 1 << 20 else filler[8:])


def backup(login: StoreLogin, target: Path) -> None:
    """Back up everything, as the task does; the seconds, less those of a bare listing, go into the target."""
    with objects_backup.connected([login]) as clients, store.locked(target, "bench"):
        found = objects_backup.sources(clients, (), [])

        def walk() -> None:
            for source in found:
                deque(clients[source.store].listing(source.name), maxlen=0)

        walk()  # at the first listing an engine may compute its MD5s
        bare = _seconds(walk)
        took = _seconds(lambda: objects_backup.backup(clients, target, found, False, objects_backup.Tally()))
        (target / "seconds").write_text(json.dumps(took - bare))


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main() -> int:
    """Measure the growth alone; or be the process that is measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int, default=OBJECTS)
    parser.add_argument("--gigabytes", type=float, default=GIGABYTES)
    parser.add_argument("--backup", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--to", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.backup:
        backup(
            StoreLogin("minio-datasets", "127.0.0.1", options.backup, engines.ACCESS, engines.SECRET), Path(options.to)
        )
        return 0
    return printed(lambda work: figures(work, options.objects, options.gigabytes))


if __name__ == "__main__":
    sys.exit(main())
