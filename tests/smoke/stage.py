"""A platform of its own for tests: temporary state, free ports, odd passwords, and nothing left at the end.

`python -m tests.smoke.stage --tier native -- PYTEST_ARGUMENTS` starts one with the observability services, runs
pytest in its environment and stops it.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from infra import catalog
from infra.locks import try_lock
from infra.settings import ROOT
from tests.smoke import containers

UP_LIMIT = 1800.0
"""Seconds for `up` including a first installation of MLflow; a hang ends there, nothing is measured by it."""
HANG = 300.0
"""Seconds after which something that should have happened never will; nothing is measured by it."""
GONE = 60.0
"""Seconds after which a process that is about to end is left over; a busy machine takes its time."""
LAST_LINES = 30
# Below the ports that systems give to outgoing connections (Linux: from 32768).
_FIRST_PORT, _LAST_PORT = 10_200, 20_200
# Passwords with what URLs, shells and .env files treat specially.
ODD_LOGINS = {
    "POSTGRES_PASSWORD": "p@ss:w/rd %41#$HOME?",
    "MINIO_ROOT_PASSWORD": "s3cret: #1 $HOME %20 &x=y",
    "TEMPORAL_NAMESPACE": "smoke",
}


def odd_logins(tier: str) -> dict[str, str]:
    """The same for a tier: Temporal's server, which the native tier does not have, cannot send a blank."""
    password = ODD_LOGINS["POSTGRES_PASSWORD"]
    return {**ODD_LOGINS, "POSTGRES_PASSWORD": password if tier == "native" else password.replace(" ", "_")}


CONTAINERS = ("compose", "kind")
"""Tiers whose services run from images."""

Completed = subprocess.CompletedProcess[str]


@dataclass(frozen=True)
class Stage:
    """A stack that belongs to a test: its tier, the directory of its state, the environment of its commands."""

    tier: str
    home: Path
    env: Mapping[str, str]
    root: Path = ROOT

    def invoke(self, *arguments: str, check: bool = False, timeout: float = UP_LIMIT) -> Completed:
        """Run `invoke ...` in the checkout.

        Raises:
            AssertionError: with `check`, when it ends with another code than 0; carries what it said.
            subprocess.TimeoutExpired: after `timeout` seconds.
        """
        done = run([sys.executable, "-m", "invoke", *arguments], self.root, self.env, timeout)
        if check and done.returncode:
            raise AssertionError(
                f"invoke {' '.join(arguments)} ended with {done.returncode}\n{done.stderr}{done.stdout}"
            )
        return done

    def data(self, *arguments: str) -> Any:
        """The `data` of a command's JSON envelope."""
        return json.loads(self.invoke(*arguments, "--output", "json", check=True).stdout)["data"]

    def state(self, tier: str = "") -> dict[str, Any]:
        """What the supervisor of a tier (or of `training`) wrote down; {} when there is nothing."""
        path = self.home / (tier or self.tier) / "state.json"
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        return found

    def log_tails(self) -> str:
        """The last lines of every log below the state directory."""
        parts = []
        # Not rglob: a server that still runs takes directories away meanwhile.
        logs = [Path(place) / name for place, _, names in os.walk(self.home) for name in names if name.endswith(".log")]
        for path in sorted(logs):
            with contextlib.suppress(FileNotFoundError):  # taken away since it was listed
                lines = path.read_text(encoding="utf-8", errors="replace").splitlines()[-LAST_LINES:]
                parts += [f"--- {path.relative_to(self.home)}", *lines]
        return "\n".join(parts)

    def left_over(self) -> list[psutil.Process]:
        """Processes that belong to this stack and still run."""
        return processes_of(self.home, self.env.get("PLATFORM_STATE_DIR", ""))

    def clean(self) -> list[str]:
        """Stop the stack, kill what is left, and say what that was; containers and volumes go, too."""
        end = ("kind.down", "--no-backup", "--yes") if self.tier == "kind" else ("down", "--tier", self.tier)
        self.invoke(*end, timeout=300)
        boxes = containers.remove_all(self.env["PLATFORM_STACK"]) if self.tier == "compose" else []
        return [*boxes, *self._kill()]

    def _kill(self) -> list[str]:
        # A supervisor gives its lock back, and with it `down` its answer, a moment before its process is gone.
        _, left = psutil.wait_procs(self.left_over(), timeout=GONE)
        names = [f"{p.pid} {command_line(p)}" for p in left]
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(left, timeout=GONE)
        return names


def run(argv: Sequence[str], cwd: Path, env: Mapping[str, str], timeout: float) -> Completed:
    """Run a program to its end with its output captured, whatever its exit code."""
    return subprocess.run(
        list(argv),
        cwd=cwd,
        env=dict(env),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=timeout,
        check=False,
    )


def processes_of(home: Path, mark: str) -> list[psutil.Process]:
    """Processes that work in a directory, name it in their command, or carry it as PLATFORM_STATE_DIR."""
    mine = {os.getpid(), *(p.pid for p in psutil.Process().parents())}
    return [p for p in psutil.process_iter() if p.pid not in mine and _belongs(p, str(home), mark)]


def _belongs(process: psutil.Process, home: str, mark: str) -> bool:
    with contextlib.suppress(psutil.Error, OSError):
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        if not process.cmdline():  # it is just ending
            return False
        if home in command_line(process) or process.cwd().startswith(home):
            return True
        return bool(mark) and process.environ().get("PLATFORM_STATE_DIR") == mark
    return False


def command_line(process: psutil.Process) -> str:
    """A process's words; '' for one that has ended meanwhile."""
    with contextlib.suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""


def port_settings() -> list[str]:
    """Names of all settings that hold a port."""
    return [name for name, setting in catalog.SETTINGS.items() if setting.kind == "port"]


def free_ports() -> dict[str, str]:
    """Free ports for every port setting, out of one block, so that two stages hardly ever meet."""
    spans = {name: catalog.SETTINGS[name].span for name in port_settings()}
    total = sum(spans.values())
    for _ in range(200):
        base = random.randrange(_FIRST_PORT, _LAST_PORT, 2 * total)
        firsts = dict(zip(spans, itertools.accumulate(spans.values(), initial=base), strict=False))
        if all(_is_free(port) for name, first in firsts.items() for port in catalog.SETTINGS[name].ports(first)):
            return {name: str(first) for name, first in firsts.items()}
    raise AssertionError("no block of free ports")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


KIND = ("PLATFORM_KIND_BIN", "KIND_NODE_IMAGE", "PLATFORM_CHARTS")
"""Settings that say with which programs, node and charts a cluster is made."""


@contextlib.contextmanager
def only_cluster(tier: str) -> Iterator[None]:
    """Wait until no other stage of this machine has a cluster: kind/cluster.yaml fixes its ports."""
    if tier != "kind":
        yield
        return
    with open(Path(tempfile.gettempdir()) / "platform-kind-stage.lock", "a+", encoding="utf-8") as file:
        while not try_lock(file):
            time.sleep(1)
        yield


def clean_environment() -> dict[str, str]:
    """The environment without what steers the platform, save which programs it is to use."""
    programs = {name for name, setting in catalog.SETTINGS.items() if setting.kind == "program"}
    kept = programs | {"PLATFORM_PYTHON", "PLATFORM_POSTGRES_BIN", *catalog.IMAGES, *KIND}
    dropped = {*catalog.SETTINGS, *catalog.CONTRACT_NAMES} - kept
    strange = {k for k in os.environ if k.startswith("PLATFORM_")} - kept
    return {k: v for k, v in os.environ.items() if k not in dropped | strange}


def compose_lacks() -> str:
    """Why the tier compose cannot be started without a pull here; '' where it can."""
    from infra import settings, stack, tier_choice
    from infra.console import Console
    from infra.context import Context

    loaded = settings.load(environ=clean_environment())
    found = tier_choice.tier_of("compose", Context(loaded, stack.of(loaded), Console(environ={}))).available()
    return "" if found.ok and found.prefer else f"needs the tier compose: {found.reason}"


@contextlib.contextmanager
def stage(tier: str = "native", **settings: str) -> Iterator[Stage]:
    """A stack with its own directory and ports, not started yet; everything of it is gone afterwards.

    Raises:
        AssertionError: a process was left behind by `down`.
    """
    home = Path(tempfile.mkdtemp(prefix="platform-test-")).resolve()
    home.chmod(0o755)  # PostgreSQL, started by root, drops to a user who must get in
    own = {"PLATFORM_STATE_DIR": str(home), "PLATFORM_TIER": tier}
    own |= {"PLATFORM_STACK": f"platform-test-{secrets.token_hex(3)}"} if tier in CONTAINERS else {}
    env = clean_environment() | free_ports() | own | settings
    env |= {"PLATFORM_LEAVE_OUT": ",".join(containers.without_image(env))} if tier in CONTAINERS else {}
    made = Stage(tier, home, env)
    try:
        yield made
    finally:
        left = made.clean()
        shutil.rmtree(home, ignore_errors=True)
    assert not left, "left behind by `invoke down`:\n" + "\n".join(left)


def up_with_obs(made: Stage) -> Completed:
    """Start everything; only the core where MLflow cannot be installed (the suite then names it as skipped)."""
    out = made.env.get("PLATFORM_LEAVE_OUT")
    if out:
        print(f"left out, since their images are not here: {out}", file=sys.stderr)
    done = made.invoke("up", "--obs", "--tier", made.tier)
    if made.tier == "native" and done.returncode and not (made.root / ".venv-mlflow" / "stamp").exists():
        print(f"without MLflow, which could not be installed:\n{done.stderr}", file=sys.stderr)
        done = made.invoke("up", "--tier", made.tier)
    return done


def main(argv: Sequence[str]) -> int:
    """Start, run pytest, stop; the exit code is pytest's, or 1 when something was left behind."""
    parser = argparse.ArgumentParser("stage")
    parser.add_argument("--tier", default="native")
    parser.add_argument("pytest", nargs="*", help="arguments for pytest, after --")
    options = parser.parse_args(argv)
    # So that a run that is terminated still stops what it has started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with only_cluster(options.tier), stage(options.tier, **odd_logins(options.tier)) as made:
        code = _tested(made, options.pytest)
        if code:
            print(made.log_tails(), file=sys.stderr)
    return code


def _tested(made: Stage, arguments: Sequence[str]) -> int:
    done = up_with_obs(made)
    print(done.stderr + done.stdout, flush=True)
    if done.returncode:
        return done.returncode
    return subprocess.call(
        [sys.executable, "-m", "pytest", *arguments, "--tier", made.tier], cwd=ROOT, env=dict(made.env)
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
