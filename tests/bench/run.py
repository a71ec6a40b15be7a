"""Measure and print: each figure as a ratio against the bare programs (or with its goal), in turn in one run.

`python -m tests.bench.run [--rounds N] [--skip-clone] [--data] [--growth]` writes `.platform-tests/bench.json` and
prints a table.
Nothing here fails for being slow: the figures are for people; tests never assert time.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

from infra.console import Table
from infra.settings import ROOT
from infra.supervision import client as supervise
from tests.bench import containers, memory, stores
from tests.bench.figures import Figure, invoke
from tests.smoke.stage import free_ports

SUPERVISOR = "supervisor"
RESULTS = ROOT / ".platform-tests" / "bench.json"


def staged(home: Path) -> dict[str, str]:
    """An environment for a stack of its own: its directory and free ports."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("PLATFORM_")}
    own = {"PLATFORM_TIER": "native", "PLATFORM_STATE_DIR": str(home), "CI": "true"}
    return {**clean, **free_ports(), **own}


def bare(env: Mapping[str, str], home: Path) -> float:
    """Seconds until the programs started by hand are ready, as a whole process."""
    began = time.perf_counter()
    argv = [sys.executable, "-m", "tests.bench.bare", str(home)]
    child = subprocess.Popen(argv, cwd=ROOT, env=dict(env), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    said = child.stdout.readline()
    seconds = time.perf_counter() - began
    child.communicate("stop\n", timeout=60)
    if not said.startswith("ready"):
        raise RuntimeError("the bare programs did not start")
    return seconds


def up_against_bare(rounds: int, work: Path) -> list[Figure]:
    """`up` of the core, cold and warm, against the bare programs, in turn."""
    ratios: dict[str, list[float]] = {"cold": [], "warm": []}
    again: list[float] = []
    for number in range(rounds):
        ours, theirs = work / f"ours-{number}", work / f"bare-{number}"
        theirs.mkdir(parents=True)
        theirs.chmod(0o755)
        env = staged(ours)
        for temperature in ("cold", "warm"):
            hand = bare(env, theirs)
            mine = invoke(env, "up")
            if temperature == "warm":
                again.append(invoke(env, "up"))
            invoke(env, "down")
            ratios[temperature].append(mine / hand)
    against = "the same programs by hand (Popen and polling)"
    figures = [Figure(f"up, {t}", statistics.median(r), "x", against, 1.2) for t, r in ratios.items()]
    return [*figures, Figure("up, already running", statistics.median(again), "s", "", 1.0)]


def of_a_running_stack(rounds: int, work: Path) -> list[Figure]:
    """`status`, and memory as proportional set size (PSS) of every process of the stack."""
    home = work / "running"
    env = staged(home)
    invoke(env, "up")
    try:
        status = statistics.median(invoke(env, "status") for _ in range(rounds))
        of = held(home / "native")
    finally:
        invoke(env, "down")
    return [
        Figure("status of a running stack", status, "s", "", 0.5),
        Figure("memory of the core services and their supervisor", sum(of.values()), "MB", _shares(of), 400.0),
        Figure("memory of the supervisor", of[SUPERVISOR], "MB", "", 30.0),
    ]


def _shares(of: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {size:.0f}" for name, size in sorted(of.items(), key=lambda found: -found[1]))


def held(home: Path) -> dict[str, float]:
    """Memory in MB (PSS) of each service with its children, and of the supervisor."""
    from infra.supervision import process

    found = {}
    for name, state in supervise.states(home).items():
        live = state.identity.process() if state.identity else None
        found[name] = sum(memory.pss(p.pid) for p in process.tree(live)) / 1e6 if live else 0.0
    own = supervise.supervisor_identity(home)
    return found | {SUPERVISOR: memory.pss(own.pid) / 1e6 if own else 0.0}


def list_against_empty(rounds: int, work: Path) -> list[Figure]:
    """`invoke --list` against Invoke with a tasks.py that holds one empty task."""
    empty = work / "empty"
    empty.mkdir()
    (empty / "tasks.py").write_text("from invoke import task\n\n@task\ndef nothing(c):\n    '''Nothing.'''\n")
    pairs = [(invoke(os.environ, "--list"), invoke(os.environ, "--list", cwd=empty)) for _ in range(2 * rounds)]
    ratio = statistics.median(a / b for a, b in pairs)
    return [Figure("invoke --list", ratio, "x", "invoke --list with an empty tasks.py", 1.5)]


def clone_to_training(work: Path) -> list[Figure]:
    """Fresh clone, one-command start (packages from the local cache) and a finished training, in seconds."""
    clone, env = work / "clone", staged(work / "clone-state")
    began = time.perf_counter()
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    start = [str(clone / "scripts" / "start-infra.sh")]
    python = clone / ".venv" / "bin" / "python"
    try:
        subprocess.run(start, cwd=clone, env=env, check=True, stdout=subprocess.DEVNULL)
        train = [str(python), "-m", "invoke", "train.run"]
        subprocess.run(train, cwd=clone, env=env, check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - began
    finally:
        subprocess.run([*start, "--stop"], cwd=clone, env=env, check=False, stdout=subprocess.DEVNULL)
    return [Figure("fresh clone to finished training", seconds, "s", "packages from the local cache", 60.0)]


def of_the_data(rounds: int, work: Path) -> list[Figure]:
    """Backups and restores of databases and objects against the bare tools."""
    from tests.bench import data_db, data_objects

    return [*data_db.figures(rounds, work), *data_objects.figures(rounds, work)]


def of_the_growth(work: Path) -> list[Figure]:
    """The time of each object and of each GB, with a plot."""
    from tests.bench import data_growth

    return data_growth.figures(work)


def of_the_cluster(rounds: int) -> list[Figure]:
    """The kind tier, where its programs are there."""
    from scripts.run_tests import unavailable
    from tests.bench import kind

    reason = unavailable("smoke-kind")
    if reason:
        print(f"kind is left out: {reason}")
        return []
    return kind.figures(rounds)


def of_the_queue(rounds: int) -> list[Figure]:
    """Trainings of several workers and the queue, where the rig has their controllers."""
    from tests.bench import queue
    from tests.rig import operators

    if not operators.values():
        print("the queue is left out: python -m tests.rig.up --kind --operators")
        return []
    return queue.figures(rounds)


def report(figures: list[Figure]) -> None:
    """Write the JSON and print the table."""
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps([asdict(f) | {"met": f.met} for f in figures], indent=1) + "\n")
    rows = [
        (f.name, f"{f.value:.2f} {f.unit}", f"<= {f.goal:g} {f.unit}", "met" if f.met else "MISSED", f.compared)
        for f in figures
    ]
    print("\n".join(Table(("figure", "median", "goal", "", "against"), tuple(rows)).lines()))


def main() -> int:
    """Measure everything that was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--skip-clone", action="store_true", help="leave out the fresh clone")
    parser.add_argument("--containers-only", action="store_true", help="only the compose tier")
    parser.add_argument("--data", action="store_true", help="also backups and restores (a quarter of an hour, 10 GB)")
    parser.add_argument("--data-only", action="store_true", help="only backups and restores")
    parser.add_argument("--growth", action="store_true", help="also how they grow (ten minutes, 12 GB); writes a plot")
    parser.add_argument("--kind", action="store_true", help="also the kind tier (five minutes); --only-kind: just that")
    parser.add_argument("--only-kind", action="store_true", help="nothing but the kind tier")
    parser.add_argument("--only-queue", action="store_true", help="nothing but several workers and the queue, on kind")
    options = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="platform-bench-"))
    work.chmod(0o755)
    parts: list[Callable[[], list[Figure]]] = [
        lambda: list_against_empty(options.rounds, work),
        lambda: up_against_bare(options.rounds, work),
        lambda: of_a_running_stack(options.rounds, work),
        lambda: stores.figures(options.rounds, work),
        lambda: containers.figures(options.rounds, work),
        *([] if options.skip_clone else [lambda: clone_to_training(work)]),
        *([lambda: of_the_data(options.rounds, work)] if options.data else []),
    ]
    parts = [lambda: of_the_data(options.rounds, work)] if options.data_only else parts
    parts += [lambda: of_the_growth(work)] if options.growth else []
    if options.kind or options.only_kind:
        parts = [*([] if options.only_kind else parts), lambda: of_the_cluster(options.rounds)]
    parts = [lambda: containers.figures(options.rounds, work)] if options.containers_only else parts
    parts = [lambda: of_the_queue(options.rounds)] if options.only_queue else parts
    try:
        report([figure for part in parts for figure in part()])
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
