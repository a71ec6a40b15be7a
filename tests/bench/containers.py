"""The compose tier against bare Docker Compose on the same files, in turn in one run, and memory by docker stats."""

from __future__ import annotations

import os
import secrets
import statistics
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from infra import catalog
from infra.settings import ROOT
from infra.tiers.compose.status import used
from scripts.run_tests import without_containers
from tests.bench.figures import Figure, invoke
from tests.smoke import containers
from tests.smoke.stage import clean_environment, free_ports

FILE = str(ROOT / "compose" / "docker-compose.yml")
BARE = "docker compose on the same files"


def environment(home: Path) -> dict[str, str]:
    """A project, ports and state of its own, with the images of this machine."""
    images = {n: os.environ[n] for n in catalog.IMAGES if os.environ.get(n)}
    own = {"PLATFORM_STACK": f"bench-{secrets.token_hex(3)}", "PLATFORM_STATE_DIR": str(home), "CI": "true"}
    return clean_environment() | images | free_ports() | own


def bare(env: Mapping[str, str], *words: str) -> float:
    """Seconds that `docker compose WORDS` takes."""
    began = time.perf_counter()
    argv = ["docker", "compose", "-f", FILE, "--env-file", os.devnull, *words]
    subprocess.run(argv, env=dict(env), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - began


def figures(rounds: int, work: Path) -> list[Figure]:
    """Everything measured on containers; nothing where none can be started."""
    reason = without_containers()
    if reason:
        print(f"without the compose tier: {reason}")
        return []
    return [*against_bare(rounds, work), *memory(work)]


def against_bare(rounds: int, work: Path) -> list[Figure]:
    """`up` cold and warm and `down`, ours and bare in turn; ours may take half a second more for its proofs.

    Never both at once: health checks of the one would take processor time from the other. Who begins changes.
    """
    over: dict[str, list[float]] = {"cold": [], "warm": [], "down": []}
    again: list[float] = []
    for number in range(rounds):
        mine, theirs = environment(work / f"c-{number}"), environment(work / f"b-{number}")
        try:
            for temperature in ("cold", "warm"):
                hand = None if number % 2 else _bare(theirs)
                own_up, own_down = _ours(mine, again)
                bare_up, bare_down = hand or _bare(theirs)
                over[temperature].append((own_up - 0.5) / bare_up)
                over["down"].append(own_down / bare_down)
        finally:
            for env in (mine, theirs):
                containers.remove_all(env["PLATFORM_STACK"])
    return [
        Figure("compose.up, cold, less 0.5 s", statistics.median(over["cold"]), "x", f"up -d --wait, {BARE}", 1.05),
        Figure("compose.up, warm, less 0.5 s", statistics.median(over["warm"]), "x", f"up -d --wait, {BARE}", 1.05),
        Figure("compose.up, already running", statistics.median(again), "s", "", 1.5),
        Figure("compose.down", statistics.median(over["down"]), "x", f"down, {BARE}", 1.2),
    ]


def _ours(env: Mapping[str, str], again: list[float]) -> tuple[float, float]:
    """Seconds for `up` and `down`; those of a second `up` are added to `again`."""
    first = invoke(env, "compose.up")
    again.append(invoke(env, "compose.up"))
    return first, invoke(env, "compose.down")


def _bare(env: Mapping[str, str]) -> tuple[float, float]:
    """Seconds for `up` and `down` by hand."""
    return bare(env, "up", "-d", "--wait"), bare(env, "down")


def memory(work: Path) -> list[Figure]:
    """MB by `docker stats` of the core, and with the observability services whose images are here."""
    env = environment(work / "memory")
    absent = list(dict.fromkeys([*containers.without_image(env), "clearml"]))
    env |= {"PLATFORM_LEAVE_OUT": ",".join(absent)}
    try:
        invoke(env, "compose.up")
        core = _in_use(env["PLATFORM_STACK"])
        invoke(env, "compose.up", "--obs")
        both = _in_use(env["PLATFORM_STACK"])
    finally:
        containers.remove_all(env["PLATFORM_STACK"])
    return [
        Figure("memory of the core in containers", core, "MB", "docker stats", 700.0),
        Figure("memory with observability", both, "MB", f"docker stats, without {', '.join(absent)}", 1600.0),
    ]


def _in_use(project: str) -> float:
    client = containers.client()
    live = [c for c in containers.of_project(client, project) if c["State"] == "running"]
    return sum(used(client.stats(c["Id"], stream=False, one_shot=True)) for c in live) / 1e6
