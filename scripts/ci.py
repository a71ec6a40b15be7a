"""The sessions of CI: `python -m scripts.ci [options of scripts.run_tests]`, in .venv, which .ci/run makes first.

Where no image registry can be reached, the container tiers run on stand-ins for the images (tests/rig). They are made
beside the sessions that need none of them; what cannot be made is said, and the smoke sessions decide.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from infra.errors import ExitCode
from scripts import run_tests

SESSIONS = (
    *("lint", "types", "tests", "smoke-native", "faults-native", "walkthrough"),
    *("drift", "smoke-compose", "faults-compose", "smoke-kind"),
)
"""Sessions that decide whether a change lands. The others need a quiet machine or more time: run-tests.sh has all."""
CONTAINERS, KIND, BROWSER = "containers", "kind", "browser"
NEEDS: Mapping[str, frozenset[str]] = {
    "drift": frozenset({KIND}),  # helm and kubectl render what is compared
    "apps": frozenset({BROWSER, CONTAINERS}),
    "smoke-compose": frozenset({CONTAINERS}),
    "smoke-kind": frozenset({CONTAINERS, KIND}),
    "faults-data": frozenset({CONTAINERS}),
    "faults-engine": frozenset({CONTAINERS}),
    "faults-compose": frozenset({CONTAINERS}),
    "faults-kind": frozenset({CONTAINERS, KIND}),
}
"""Session -> what it needs of the rig; a session that is not here needs nothing of it."""
RIG_LOG = run_tests.RESULTS / "rig.log"
REQUIRED = ("compose", "kind")
"""Tiers whose smoke session must run where it is chosen: its skip is a failure."""


def needs(sessions: Sequence[str]) -> frozenset[str]:
    """Return what some sessions need of the rig together."""
    return frozenset().union(*(NEEDS.get(session, frozenset()) for session in sessions))


def commands(wanted: frozenset[str]) -> list[list[str]]:
    """Return the programs that make what is needed of the rig, one after the other."""
    python = [sys.executable, "-m"]
    rig = [*python, "tests.rig.up", *(["--kind"] if KIND in wanted else [])]
    browser = [*python, "tests.rig.browser"]
    return [*([rig] if wanted & {CONTAINERS, KIND} else []), *([browser] if BROWSER in wanted else [])]


class Rig:
    """The rig on its way, beside the sessions that need none of it."""

    def __init__(self, wanted: frozenset[str]) -> None:
        """Begin; nothing is made where this user cannot install it."""
        able = getattr(os, "geteuid", lambda: 1)() == 0 and shutil.which("apt-get") is not None
        text = " ; ".join(shlex.join(argv) for argv in commands(wanted)) if able else ""
        self._running: subprocess.Popen[bytes] | None = None
        if text:
            argv, root = ["nice", "-n", "10", "sh", "-c", text], run_tests.ROOT
            with open(RIG_LOG, "wb") as log:
                self._running = subprocess.Popen(argv, cwd=root, stdout=log, stderr=log, start_new_session=True)

    def finish(self) -> None:
        """Wait until it is made, print what it said, and take over what the tests must know of it."""
        if self._running is None:
            return
        self._running.wait()
        self._running = None
        print(RIG_LOG.read_text(encoding="utf-8", errors="replace"), flush=True)
        os.environ.update(settings())
        os.environ["PATH"] = os.pathsep.join(filter(None, (os.environ.get("RIG_PATH"), os.environ.get("PATH"))))

    def stop(self) -> None:
        """End it, with what it has started."""
        if self._running is not None:
            os.killpg(self._running.pid, signal.SIGTERM)


def settings() -> dict[str, str]:
    """Return the lines of the rig's rig.env; {} where there is none."""
    cache = os.environ.get("PLATFORM_RIG_CACHE") or str(Path.home() / ".cache" / "platform-infra-rig")
    path = Path(cache) / "rig.env"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return dict("".join(shlex.split(line)).partition("=")[::2] for line in lines)


def main(argv: Sequence[str]) -> int:
    """Run the sessions, those without containers first, and report as run-tests.sh does."""
    options, python = run_tests.parse(argv), Path(sys.executable)
    chosen = options.only or list(SESSIONS)
    required = options.require or [tier for tier in REQUIRED if f"smoke-{tier}" in chosen]
    run_tests.RESULTS.mkdir(exist_ok=True)
    first = [session for session in chosen if session not in NEEDS]
    rig = Rig(needs(chosen))
    try:
        outcomes = [run_tests.run(session, python) for session in first]
        rig.finish()
        outcomes += [run_tests.run(session, python) for session in chosen if session in NEEDS]
    except KeyboardInterrupt:
        return int(ExitCode.INTERRUPTED)
    finally:
        rig.stop()
    return run_tests.finish(run_tests.demand(outcomes, required))


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
    sys.exit(main(sys.argv[1:]))
