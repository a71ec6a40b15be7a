"""Fixtures of the fault tests of the native tier."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest

from tests.faults.conftest import TIER, Victim
from tests.faults.native import tools
from tests.faults.native.tools import Deposit
from tests.smoke.stage import stage

Mount = Callable[..., Path]

_BROKEN = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Remember that a test has failed: it may have left the shared platform in pieces."""
    report = yield
    if report.failed:
        item.session.stash[_BROKEN] = True
    return report


@pytest.fixture(autouse=True)
def _posix() -> None:
    """These tests speak of signals and sessions."""
    if sys.platform == "win32":
        pytest.skip("needs POSIX signals")


@pytest.fixture(scope="session")
def _shared() -> Iterator[Victim]:
    with stage(TIER) as made:
        yield Victim(made)


@pytest.fixture
def running(_shared: Victim, request: pytest.FixtureRequest) -> Victim:
    """A running platform that many tests share: each finds it whole, whatever the one before did."""
    if request.session.stash.get(_BROKEN, False) or not tools.whole(_shared):
        _shared.up()
        request.session.stash[_BROKEN] = False
    return _shared


@pytest.fixture
def stopped(_shared: Victim) -> Victim:
    """The shared platform, with its data, stopped in order."""
    if not (_shared.stack_home / "native" / "data" / "postgres" / "PG_VERSION").exists():
        _shared.up()
    if tools.roots(_shared):
        _shared.invoke("down", check=True)
    tools.assert_nothing_runs(_shared)
    return _shared


@pytest.fixture
def unused() -> Iterator[Victim]:
    """A platform that was never started."""
    with stage(TIER) as made:
        yield Victim(made)


@pytest.fixture
def deposit(running: Victim) -> Deposit:
    """Rows, keys, objects and a workflow in the shared platform, all acknowledged."""
    return Deposit(running).put()


@pytest.fixture
def mount() -> Iterator[Mount]:
    """Mount a small file system in memory; unmounted at the end, whatever happens."""
    made: list[Path] = []
    # Not tmp_path: PostgreSQL drops to another user, who must get in, and pytest keeps that private.
    base = Path(tempfile.mkdtemp(prefix="platform-mount-")).resolve()
    base.chmod(0o755)

    def tmpfs(name: str, *options: str) -> Path:
        point = base / name
        point.mkdir()
        _mounted("mount", "-t", "tmpfs", "-o", ",".join(("mode=0755", *options)), "tmpfs", str(point))
        made.append(point)
        return point

    try:
        yield tmpfs
    finally:
        for point in reversed(made):
            subprocess.run(["umount", "--lazy", str(point)], check=True)
        shutil.rmtree(base)


def _mounted(*command: str) -> None:
    if not tools.is_root():
        pytest.skip("only root can mount a file system")
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    if done.returncode:
        pytest.skip(f"this machine lets nobody mount a file system: {done.stderr.strip()}")
