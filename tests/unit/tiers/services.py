"""Tiny programs that play the services of a supervised directory."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from infra.supervision import client as supervise
from infra.supervision.client import Spec, State
from infra.supervision.supervisor import Supervisor
from tests.unit.helpers import eventually

SLEEP = "import time; time.sleep(600)"
LISTEN = "import socket, time; s = socket.create_server(('127.0.0.1', {port})); time.sleep(600)"
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
)
FAILING = "import sys; print('it broke', flush=True); sys.exit(3)"


def spec(home: Path, name: str, code: str = SLEEP, **more: Any) -> Spec:
    """A service that runs this Python code, with directory and log as the native tier makes them."""
    run, log = home / "run" / name, home / "logs" / f"{name}.log"
    run.mkdir(parents=True, exist_ok=True)
    log.parent.mkdir(exist_ok=True)
    argv = [sys.executable, "-S", "-c", code]
    return Spec(name, argv, cwd=str(run), log=str(log), **{"grace": 5.0, **more})


def listening(home: Path, name: str, port: int, **more: Any) -> Spec:
    """A service that is ready when it listens on a port."""
    probe = {"kind": "tcp", "host": "127.0.0.1", "port": port}
    return spec(home, name, LISTEN.format(port=port), probe=probe, **more)


def state(home: Path, name: str) -> State | None:
    """What the state file says of a service."""
    return supervise.states(home).get(name)


def reach(home: Path, wanted: str, *names: str) -> None:
    """Wait until the services are in a state."""

    def there() -> bool:
        found = supervise.states(home)
        return all(n in found and found[n].state == wanted for n in names)

    eventually(there, f"{names} {wanted}: {supervise.states(home)}")


def pids(home: Path) -> dict[str, int | None]:
    """The pids of the services."""
    return {name: found.pid for name, found in supervise.states(home).items()}


def lives(pid: int | None) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        return pid is not None and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def supervisor_pid(home: Path) -> int:
    """The pid of the directory's supervisor."""
    found = json.loads((home / supervise.STATE).read_text())["supervisor"]["pid"]
    assert isinstance(found, int)
    return found


def kill_supervisor(home: Path) -> None:
    """Kill -9, as the out-of-memory killer does."""
    os.kill(supervisor_pid(home), signal.SIGKILL)
    eventually(lambda: not supervise.running(home), "the death of the supervisor")


@contextmanager
def up(home: Path, specs: Sequence[Spec], *, ready: bool = True) -> Iterator[None]:
    """Services under a real supervisor; whatever the test does to it, nothing is left at the end."""
    home.mkdir(parents=True, exist_ok=True)
    supervise.ensure(home, specs)
    try:
        if ready:
            reach(home, "ready", *(s.name for s in specs))
        yield
    finally:
        clean(home, specs)


def clean(home: Path, specs: Sequence[Spec]) -> None:
    """End a supervisor and then its services by force."""
    _kill_in({home.resolve()})
    eventually(lambda: not supervise.running(home), "the end of the supervisor")
    # One that it was just starting is still in its directory.
    _kill_in({home.resolve(), *(Path(home / "run" / s.name).resolve() for s in specs)})


def _kill_in(directories: set[Path]) -> None:
    for candidate in psutil.process_iter():
        try:
            if candidate.pid != os.getpid() and Path(candidate.cwd()) in directories:
                candidate.kill()
        except (psutil.Error, OSError):
            continue


@contextmanager
def supervised(home: Path, specs: Sequence[Spec]) -> Iterator[Supervisor]:
    """Services under a supervisor in a thread of this process, whose constants a test may change."""
    supervise._write(home, specs, shutdown=False)
    made = Supervisor(home)
    thread = threading.Thread(target=made.serve, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        made.end()
        thread.join()
