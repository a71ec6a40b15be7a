"""Run every test session that this machine can run and say how it went: `python -m scripts.run_tests [options]`.

Needs nothing but Python's standard library: it makes `.venv` first and calls Nox there, once per session, so a
failure does not keep the next one from running. Counts come from the JUnit files that the sessions write.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import IO
from xml.etree import ElementTree

from infra import catalog, docker_engine, shell
from infra.console import Table, human_seconds
from infra.errors import ExitCode, PlatformError
from infra.tiers.compose import cli as compose_cli
from scripts import make_env

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / ".platform-tests"
PLANNED_TIERS = ("native", "compose", "kind")
NOT_YET = "not part of this version"
SESSIONS = (
    "lint",
    "types",
    "tests",
    "drift",
    *(f"smoke-{tier}" for tier in PLANNED_TIERS),
    "apps",
    "faults-native",
    "faults-training",
    "faults-data",
    "faults-engine",
    "faults-compose",
    "faults-kind",
    "walkthrough",
)
OPT_IN = ("rehearsal",)
"""Sessions that run only when --only names them: they take long and want a machine of their own."""
CORE_FILE = ROOT / "compose" / "docker-compose.yml"
SHOWN_FAILURES = 10
WITHOUT_JUNIT = ("lint", "types")


@dataclass(frozen=True)
class Outcome:
    """The outcome of a session: counts, why tests failed or were skipped, seconds."""

    session: str
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    why: tuple[str, ...] = ()
    seconds: float = 0.0


def from_junit(session: str, path: Path, code: int) -> Outcome:
    """Read the outcome from a JUnit file and the exit code; a failure without a failed test counts as one."""
    try:
        cases = list(ElementTree.parse(path).getroot().iter("testcase"))
    except (OSError, ElementTree.ParseError):
        return Outcome(session, failed=1, why=(f"ended with {code} and no result file",))
    failed = [c for c in cases if c.find("failure") is not None or c.find("error") is not None]
    skipped = [c for c in cases if c.find("skipped") is not None and c not in failed]
    names = Counter(f"failed: {c.get('classname')}::{c.get('name')}" for c in failed)
    reasons = Counter(f"skipped: {_reason(c)}" for c in skipped)
    outcome = Outcome(
        session, len(cases) - len(failed) - len(skipped), len(failed), len(skipped), _told(names, reasons)
    )
    if code and not failed:
        return replace(outcome, failed=1, why=(f"ended with {code}, though no test failed", *outcome.why))
    return outcome


def _reason(case: ElementTree.Element) -> str:
    skipped = case.find("skipped")
    return (skipped.get("message") or "no reason given") if skipped is not None else ""


def _told(failed: Counter[str], skipped: Counter[str]) -> tuple[str, ...]:
    """Return the first failed tests and every reason for a skip, each once with its number."""
    more = (f"failed: {len(failed) - SHOWN_FAILURES} more",) if len(failed) > SHOWN_FAILURES else ()
    told = [f"{text} (x{n})" if n > 1 else text for text, n in (*failed.items(), *skipped.items())]
    return (*told[: min(len(failed), SHOWN_FAILURES)], *more, *told[len(failed) :])


def from_exit(session: str, code: int) -> Outcome:
    """Return the outcome of a session that is one check."""
    return Outcome(session, failed=1, why=(f"ended with {code}",)) if code else Outcome(session, passed=1)


def unavailable(session: str) -> str:
    """Tell why a session cannot run at all; '' when it can."""
    tier = session.removeprefix("smoke-").removeprefix("faults-")
    if tier in PLANNED_TIERS and tier not in catalog.TIERS:
        return NOT_YET
    if tier == "compose":
        return without_containers()
    return _missing_programs() if tier == "kind" or session in OPT_IN else ""


@cache
def without_containers() -> str:
    """Tell why no container can be started here: no engine, no Compose, or images that would have to be pulled."""
    try:
        docker_engine.find()
        compose_cli.version()
        names = shell.run(["docker", "compose", "-f", str(CORE_FILE), "config", "--images"]).out.split()
    except PlatformError as error:
        return f"{error.what}{f' ({error.why})' if error.why else ''}"
    absent = [n for n in sorted(set(names)) if shell.run(["docker", "image", "inspect", n], check=False).code]
    return f"no image {', '.join(absent)} here; invoke compose.pull gets it" if absent else ""


def _missing_programs() -> str:
    """Name what the kind tier lacks on this machine; '' when all is there."""
    own = os.environ.get("PLATFORM_KIND_BIN") or None
    wanted = [tool.name for tool in catalog.KUBE_TOOLS]
    absent = [name for name in wanted if not (shutil.which(name, path=own) if own else None) and not shutil.which(name)]
    absent += [] if shutil.which("docker") else ["docker"]
    return f"not installed: {', '.join(absent)}" if absent else _no_engine()


def _no_engine() -> str:
    """Tell why no node of a cluster can be started here; '' where an engine answers."""
    try:
        docker_engine.find()
    except PlatformError as error:
        return f"{error.what}{f' ({error.why})' if error.why else ''}"
    return ""


def run(session: str, python: Path, env: Mapping[str, str] | None = None, output: IO[bytes] | None = None) -> Outcome:
    """Run one session through Nox, or say why not.

    Args:
        env: the session's environment; None: this process's.
        output: where what it prints goes; None: to the terminal.
    """
    reason = unavailable(session)
    if reason:
        return Outcome(session, skipped=1, why=(f"skipped: {reason}",))
    result = RESULTS / f"{session}.xml"
    result.unlink(missing_ok=True)
    begin = time.monotonic()
    argv = [str(python), "-m", "nox", "--session", session]
    code = subprocess.call(argv, cwd=ROOT, env=env, stdout=output, stderr=output)
    outcome = from_exit(session, code) if session in WITHOUT_JUNIT else from_junit(session, result, code)
    return replace(outcome, seconds=round(time.monotonic() - begin, 1))


def demand(outcomes: Sequence[Outcome], required: Sequence[str]) -> list[Outcome]:
    """Return the outcomes, with a failure for each required tier whose smoke session did not run or passed nothing."""
    known = {o.session: o for o in outcomes}
    for tier in required:
        session = f"smoke-{tier}"
        found = known.get(session, Outcome(session, why=("not among the sessions of this run",)))
        if not found.passed:
            why = (f"failed: --require {tier}", *found.why)
            found = replace(found, failed=found.failed + 1, skipped=0, why=why)
        known[session] = found
    return list(known.values())


def table(outcomes: Sequence[Outcome]) -> Table:
    """Return one row per session; further reasons on rows of their own."""
    rows: list[tuple[str, ...]] = []
    for o in outcomes:
        counts = (str(o.passed), str(o.failed), str(o.skipped))
        spent = human_seconds(o.seconds) if o.seconds else "-"
        rows.append((o.session, *counts, spent, o.why[0] if o.why else ""))
        rows += [("", "", "", "", "", why) for why in o.why[1:]]
    return Table(("session", "passed", "failed", "skipped", "time", "why"), tuple(rows))


def summary(outcomes: Sequence[Outcome]) -> dict[str, int]:
    """Return the sums over all sessions."""
    return {key: sum(getattr(o, key) for o in outcomes) for key in ("passed", "failed", "skipped")}


def finish(outcomes: Sequence[Outcome]) -> int:
    """Write results.json, print the table and the last line, and return the exit code."""
    totals = summary(outcomes)
    RESULTS.mkdir(exist_ok=True)
    report = json.dumps({"sessions": [asdict(o) for o in outcomes], **totals}, indent=1)
    (RESULTS / "results.json").write_text(report + "\n", encoding="utf-8")
    print("", *table(outcomes).lines(), "", sep="\n")
    print(", ".join(f"{number} {key}" for key, number in totals.items()), flush=True)
    return int(ExitCode.FAILED) if totals["failed"] else 0


def _tiers(text: str) -> list[str]:
    tiers = [word.strip() for word in text.split(",") if word.strip()]
    for tier in tiers:
        if tier not in PLANNED_TIERS:
            raise argparse.ArgumentTypeError(f"unknown tier {tier!r}; use {', '.join(PLANNED_TIERS)}")
    return tiers


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the options; wrong ones end the program with 2."""
    parser = argparse.ArgumentParser("run-tests", description="Run every test session that this machine can run.")
    require = os.environ.get("PLATFORM_REQUIRE", "")
    what = "tiers, with commas between: a smoke session of theirs that does not run is a failure"
    parser.add_argument("--require", type=_tiers, default=require, metavar="TIERS", help=what)
    parser.add_argument(
        "--only", action="append", choices=(*SESSIONS, *OPT_IN), metavar="NAME", help=", ".join((*SESSIONS, *OPT_IN))
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> int:
    """Make the environment, run the sessions, report."""
    options = parse(argv)
    env = make_env.Environment(ROOT)
    code = make_env.report(lambda: make_env.make(env, "dev", make_env.say))
    if code:
        return code
    RESULTS.mkdir(exist_ok=True)
    try:
        outcomes = [run(session, env.python) for session in options.only or SESSIONS]
    except KeyboardInterrupt:
        return int(ExitCode.INTERRUPTED)
    return finish(demand(outcomes, options.require))


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
    sys.exit(main(sys.argv[1:]))
