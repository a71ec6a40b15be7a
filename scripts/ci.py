"""The sessions of CI: `python -m scripts.ci [options of scripts.run_tests]`, in .venv, which .ci/run makes first.

Where no image registry can be reached, the container tiers run on stand-ins for the images (tests/rig). They are made
beside the sessions that need none of them, and so run the sessions of containers; what cannot be made is said, and the
smoke sessions decide.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from infra.errors import ExitCode
from scripts import run_tests

SESSIONS = (
    *("lint", "types", "tests", "smoke-native", "faults-native", "walkthrough"),
    *("drift", "smoke-compose", "faults-compose", "smoke-kind"),
)
"""Sessions that decide whether a change lands. The others need a quiet machine or more time: run-tests.sh has all."""
CONTAINERS, KIND, BROWSER, OPERATORS = "containers", "kind", "browser", "operators"
NEEDS: Mapping[str, frozenset[str]] = {
    "drift": frozenset({CONTAINERS, KIND}),  # helm and kubectl render what is compared
    "apps": frozenset({BROWSER, CONTAINERS}),
    "smoke-compose": frozenset({CONTAINERS}),
    "smoke-kind": frozenset({CONTAINERS, KIND}),
    "faults-data": frozenset({CONTAINERS}),
    "faults-engine": frozenset({CONTAINERS}),
    "faults-compose": frozenset({CONTAINERS}),
    "faults-kind": frozenset({CONTAINERS, KIND}),
    "rehearsal": frozenset({CONTAINERS, KIND, OPERATORS}),
}
"""Session -> what it needs of the rig; a session that is not here needs nothing of it."""
PRINTING = threading.Lock()
REQUIRED = ("compose", "kind")
"""Tiers whose smoke session must run where it is chosen: its skip is a failure."""


def needs(sessions: Sequence[str]) -> frozenset[str]:
    """Return what some sessions need of the rig together."""
    return frozenset().union(*(NEEDS.get(session, frozenset()) for session in sessions))


def commands(wanted: frozenset[str]) -> dict[str, list[str]]:
    """Return the program that makes each part of the rig that is needed, in the order in which they are made."""
    python = [sys.executable, "-m"]
    parts = {
        CONTAINERS: [*python, "tests.rig.up"],
        KIND: [*python, "tests.rig.up", "--kind"],
        OPERATORS: [*python, "tests.rig.up", "--kind", "--operators"],
        BROWSER: [*python, "tests.rig.browser"],
    }
    asked = wanted | ({CONTAINERS} if KIND in wanted else frozenset())
    return {part: argv for part, argv in parts.items() if part in asked}


class Rig:
    """The rig on its way: one part after the other, beside the sessions that do not wait for it."""

    def __init__(self, wanted: frozenset[str]) -> None:
        """Begin; nothing is made where this user cannot install it."""
        able = getattr(os, "geteuid", lambda: 1)() == 0 and shutil.which("apt-get") is not None
        self._running: subprocess.Popen[bytes] | None = None
        self._pool = ThreadPoolExecutor(1)
        made = commands(wanted) if able else {}
        self._parts = {part: self._pool.submit(self._make, part, argv) for part, argv in made.items()}

    def _make(self, part: str, argv: list[str]) -> None:
        path = run_tests.RESULTS / f"rig-{part}.log"
        with open(path, "wb") as log:
            self._running = subprocess.Popen(argv, cwd=run_tests.ROOT, stdout=log, stderr=log, start_new_session=True)
            self._running.wait()
        show(path)

    def made(self, wanted: frozenset[str]) -> bool:
        """Tell whether some parts are made, or could not be."""
        return all(future.done() for part, future in self._parts.items() if part in wanted)

    def wait(self, wanted: frozenset[str]) -> None:
        """Wait until some parts are made, and take over what the tests must know of them."""
        for part in wanted & set(self._parts):
            self._parts[part].result()
        if not wanted:
            return
        os.environ.update(settings())
        path = os.environ.get("PATH", "").split(os.pathsep)
        own = [p for p in os.environ.get("RIG_PATH", "").split(os.pathsep) if p and p not in path]
        os.environ["PATH"] = os.pathsep.join([*own, *path])

    def stop(self) -> None:
        """End it, with what it has started."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        if self._running is not None and self._running.poll() is None:
            os.killpg(self._running.pid, signal.SIGTERM)


def settings() -> dict[str, str]:
    """Return the lines of the rig's rig.env; {} where there is none."""
    cache = os.environ.get("PLATFORM_RIG_CACHE") or str(Path.home() / ".cache" / "platform-infra-rig")
    path = Path(cache) / "rig.env"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return dict("".join(shlex.split(line)).partition("=")[::2] for line in lines)


def show(log: Path) -> None:
    """Print a log as a whole: something else goes on beside it."""
    with PRINTING:
        print(log.read_text(encoding="utf-8", errors="replace"), flush=True)


def session(name: str, env: Mapping[str, str] | None = None) -> run_tests.Outcome:
    """Run a session; what it prints is kept, and shown when it has ended."""
    path = run_tests.RESULTS / f"{name}.log"
    with open(path, "wb") as log:
        outcome = run_tests.run(name, Path(sys.executable), env, log)
    show(path)
    return outcome


class Queue:
    """Sessions that wait for a lane."""

    def __init__(self, chosen: Sequence[str], rig: Rig) -> None:
        self._pending, self._rig, self._plain = list(chosen), rig, dict(os.environ)
        self._taking = threading.Lock()

    def end(self) -> None:
        """Let no lane take another session."""
        with self._taking:
            self._pending.clear()

    def lane(self, order: Sequence[str]) -> list[run_tests.Outcome]:
        """Run those of some sessions that no other lane has taken, one after the other."""
        outcomes = []
        while name := self._take(order):
            self._rig.wait(NEEDS.get(name, frozenset()))
            outcomes.append(session(name, None if name in NEEDS else self._plain))
        return outcomes

    def _take(self, order: Sequence[str]) -> str:
        with self._taking:
            left = [name for name in order if name in self._pending]
            made = [name for name in left if self._rig.made(NEEDS.get(name, frozenset()))]
            name = next(iter(made or sorted(left, key=lambda s: len(NEEDS.get(s, ())))), "")
            if name:
                self._pending.remove(name)
            return name


def run(chosen: Sequence[str]) -> list[run_tests.Outcome]:
    """Run sessions in two lanes, side by side: all in their order, and those that need the rig from the last one on."""
    rig = Rig(needs(chosen))
    queue = Queue(chosen, rig)
    with ThreadPoolExecutor(1) as pool:
        others = pool.submit(queue.lane, [name for name in reversed(chosen) if name in NEEDS])
        try:
            outcomes = [*queue.lane(chosen), *others.result()]
        finally:  # before the pool waits for the other lane
            queue.end()
            rig.stop()
    return sorted(outcomes, key=lambda outcome: chosen.index(outcome.session))


def main(argv: Sequence[str]) -> int:
    """Run the sessions and report as run-tests.sh does."""
    options = run_tests.parse(argv)
    chosen = options.only or list(SESSIONS)
    required = options.require or [tier for tier in REQUIRED if f"smoke-{tier}" in chosen]
    run_tests.RESULTS.mkdir(exist_ok=True)
    try:
        outcomes = run(chosen)
    except KeyboardInterrupt:
        return int(ExitCode.INTERRUPTED)
    return run_tests.finish(run_tests.demand(outcomes, required))


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
    sys.exit(main(sys.argv[1:]))
