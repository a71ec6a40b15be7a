"""Requests to a supervisor: what is to run, what runs, stop.

The wish is a file (`desired.json`, private, since it holds passwords) and so is the answer (`state.json`).
A supervisor that dies takes nothing with it: the next one reads both and adopts what still runs.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from infra import private
from infra.errors import PlatformError
from infra.locks import try_lock
from infra.settings import ROOT, Settings
from infra.stack import make_way, read_json, unwritable, write_atomic
from infra.supervision import process

DESIRED, STATE, LOCK, LOG = "desired.json", "state.json", "supervisor.lock", "supervisor.log"
FORMAT = 2
"""Version of the specifications and probes that a supervisor understands; it writes it into its state."""
_RETIRED = 10.0
"""Seconds that a killed supervisor has to be gone."""


@dataclass(frozen=True)
class Spec:
    """A service as the supervisor runs it.

    `env` is added to the environment; `needs` names services that must be ready first; `grace` and `budget` are
    seconds; `user` is (uid, gid) to drop to; `stop_argv` is a program that stops it, where a signal cannot;
    a higher `generation` restarts it; `umask` closes the files it makes, -1 for one whose files are the user's.
    """

    name: str
    argv: list[str]
    cwd: str
    log: str
    env: dict[str, str] = field(default_factory=dict)
    probe: dict[str, Any] = field(default_factory=lambda: {"kind": "process"})
    needs: list[str] = field(default_factory=list)
    stop_signal: str = "TERM"
    grace: float = 10.0
    budget: float = 60.0
    user: list[int] | None = None
    stop_argv: list[str] | None = None
    generation: int = 0
    umask: int = 0o077

    def __post_init__(self) -> None:
        """Raise TypeError for what a damaged file may hold."""
        if not (isinstance(self.argv, list) and all(isinstance(t, str) for t in (self.name, self.cwd, self.log))):
            raise TypeError(f"no specification: {self.name}")

    @property
    def fingerprint(self) -> str:
        """Changes whenever the running process would have to be another one."""
        parts = [self.argv, self.cwd, sorted(self.env.items()), self.user, self.generation]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class State:
    """A service as the supervisor saw it last; `state` is one of waiting, starting, ready, backoff, failed, stopped."""

    name: str
    state: str
    pid: int | None = None
    create_time: float | None = None
    restarts: int = 0
    since: float = 0.0
    detail: str = ""
    fingerprint: str = ""
    fatal: bool = False
    stop_signal: str = "TERM"
    grace: float = 10.0

    def __post_init__(self) -> None:
        """Raise TypeError for what a damaged file may hold."""
        numbers = (self.create_time, self.restarts, self.since, self.grace)
        if not all(isinstance(n, int | float | None) for n in numbers) or not isinstance(self.state, str):
            raise TypeError(f"no state: {self.name}")
        if self.pid is not None and not (isinstance(self.pid, int) and 0 < self.pid < 1 << 31):
            raise TypeError(f"no pid: {self.pid}")

    @property
    def identity(self) -> process.Identity | None:
        """The process, where one runs."""
        return process.Identity(self.pid, self.create_time) if self.pid and self.create_time else None


def passed(settings: Settings) -> dict[str, str]:
    """Return the variable that lists what else of the shell a service gets; nothing where nothing else is wanted."""
    names = settings.text(process.PASSED)
    return {process.PASSED: names} if names else {}


def desired(home: Path) -> list[Spec]:
    """Return the services that should run, as last requested; empty after a stop in order."""
    return wish(home) or []


def wish(home: Path) -> list[Spec] | None:
    """Return the same, but None where nothing was asked for yet or the file is damaged."""
    try:
        return [Spec(**entry) for entry in (read_json(home / DESIRED) or {})["services"]]
    except (KeyError, TypeError):
        return None


def forget(home: Path) -> None:
    """Note that everything was stopped in order: nothing is wanted, nothing has a state."""
    _write(home, [], shutdown=True)
    (home / STATE).unlink(missing_ok=True)


def ensure(home: Path, specs: Sequence[Spec], again: Collection[str] = ()) -> None:
    """Ask for exactly these services; start the supervisor when none runs. Returns at once.

    A service that runs with the same fingerprint is left alone; another, or one that failed, or that `again` names, is
    restarted; one that is no longer wanted is stopped.

    Raises:
        OSError: the directory cannot be written.
    """
    private.directory(home)
    generations = {spec.name: spec.generation for spec in desired(home)}
    # A new generation, so that nobody takes the old failure for the outcome of this try.
    fresh = {*again, *(s.name for s in states(home).values() if s.state == "failed" or s.fatal)}
    wanted = [replace(s, generation=max(s.generation, generations.get(s.name, 0)) + (s.name in fresh)) for s in specs]
    _ask(home, wanted)


def _ask(home: Path, specs: Sequence[Spec]) -> None:
    """Write the wish for a supervisor that understands it, and start one where none runs."""
    _retire(home)
    _write(home, specs, shutdown=False)
    start_supervisor(home)


def _retire(home: Path) -> None:
    """End a supervisor of a version that would not understand the wish; its services run on, and are adopted."""
    import psutil

    identity = supervisor_identity(home)
    entry = (read_json(home / STATE) or {}).get("supervisor") or {}
    if identity is None or entry.get("format") == FORMAT or not running(home):
        return
    with contextlib.suppress(psutil.Error):
        if found := identity.process():
            found.kill()
            found.wait(_RETIRED)


def restart(home: Path, names: Sequence[str]) -> None:
    """Ask for a restart of services that run."""
    _ask(home, [replace(s, generation=s.generation + (s.name in names)) for s in desired(home)])


def renew(home: Path, values: Mapping[str, str], names: Collection[str]) -> None:
    """Restart the services that run with other values of these variables than the present ones."""
    specs = desired(home) if running(home) else []
    users = {s.name for s in specs if not s.env.keys().isdisjoint(names)}
    fresh = {s.name: {**{k: v for k, v in s.env.items() if k not in names}, **values} for s in specs}
    changed = [replace(s, env=fresh[s.name]) if s.name in users else s for s in specs]
    if changed != specs:
        _ask(home, changed)


def stop(home: Path, timeout: float = 60.0) -> bool:
    """Stop all services and the supervisor; True when something ran.

    Also works when the supervisor was killed: a new one adopts what is left and stops it.

    Raises:
        PlatformError: WAIT_TIMEOUT naming what still runs; STATE_UNWRITABLE.
    """
    if not running(home) and not survivors(home):
        return False
    written = _wish_the_end(home)
    end = time.monotonic() + timeout
    while running(home) or survivors(home):
        if time.monotonic() > end:
            raise _still_running(home, timeout)
        if written:  # else a new one would start everything again
            start_supervisor(home)
        time.sleep(0.02)
    return True


def wait_gone(home: Path, names: Sequence[str], timeout: float = 60.0) -> None:
    """Block until services that are no longer wanted have ended. Raises PlatformError WAIT_TIMEOUT."""
    end = time.monotonic() + timeout
    while any(s.name in names for s in survivors(home)):
        if time.monotonic() > end:
            raise _still_running(home, timeout)
        start_supervisor(home)
        time.sleep(0.02)


def _wish_the_end(home: Path) -> bool:
    """Ask for the end; False when that cannot be written (on a full disk) and the supervisor got a signal instead."""
    try:
        # The list stays in the file: a supervisor whose state file is damaged recognises the processes by it.
        _write(home, desired(home), shutdown=True)
    except OSError as error:
        identity = supervisor_identity(home)
        live = identity.process() if identity else None
        if live is None or process.WINDOWS:
            raise unwritable(home, error) from error
        process.ask_to_stop(live, "TERM")
        return False
    return True


def _still_running(home: Path, timeout: float) -> PlatformError:
    left = ", ".join(f"{s.name} (pid {s.pid})" for s in survivors(home)) or "the supervisor"
    steps = ("run the same command again", f"see {home / LOG}")
    return PlatformError("WAIT_TIMEOUT", f"some services did not stop within {timeout:.0f} s: {left}", steps=steps)


def _write(home: Path, specs: Sequence[Spec], *, shutdown: bool) -> None:
    text = json.dumps({"shutdown": shutdown, "services": [asdict(s) for s in specs]}, indent=1)
    make_way(home / DESIRED)
    write_atomic(home / DESIRED, text, mode=0o600)


def running(home: Path) -> bool:
    """Return whether a supervisor holds this directory."""
    try:
        with open(home / LOCK, "r+b") as file:  # a question leaves nothing behind: the file is not made
            return not try_lock(file)
    except OSError:
        return False


def survivors(home: Path) -> list[State]:
    """Return the services that still run, whether or not their supervisor does."""
    return [s for s in known(home).values() if _runs(s)]


def known(home: Path, supervised: bool | None = None) -> dict[str, State]:
    """Return the services' states; processes that nobody wrote down are recognised by their directories.

    That is so where the state file is damaged or lost, or where the supervisor was killed just after a start.
    `supervised` says whether a supervisor sees to the file (default: find out).
    """
    found = states(home)
    if _intact(home) or (found and (running(home) if supervised is None else supervised)):
        return found
    lost = [s for s in desired(home) if s.name not in found or not _runs(found[s.name])]
    return found | {s.name: s for s in map(recognised, lost) if s}


def replaced(home: Path) -> set[str]:
    """Return the services that run a program which has been replaced since, e.g. by an upgrade of its package."""
    return {s.name for s in survivors(home) if s.identity is not None and process.replaced(s.identity)}


def _runs(state: State) -> bool:
    return state.identity is not None and state.identity.process() is not None


def repair_wish(home: Path, specs: Sequence[Spec]) -> None:
    """Write this list of wanted services where the stored one is damaged and nobody uses it.

    Lost processes are recognised by it. (A running supervisor repairs the file itself.)
    """
    if (home / DESIRED).exists() and wish(home) is None and not running(home):
        with contextlib.suppress(OSError):
            rewrite(home, specs)


def rewrite(home: Path, specs: Sequence[Spec]) -> None:
    """Write the list of wanted services. Raises OSError."""
    _write(home, specs, shutdown=False)


def _intact(home: Path) -> bool:
    """Return whether an empty answer is right: nothing is wanted (an orderly stop ensures that), or nothing started."""
    return not desired(home) or (read_json(home / STATE) or {}).get("services") == {}


def recognised(spec: Spec) -> State | None:
    """Return the state of a service that runs although nobody wrote its pid down."""
    identity = process.in_directory(Path(spec.cwd), spec.argv[0])
    if identity is None:
        return None
    how = {"stop_signal": spec.stop_signal, "grace": spec.grace, "fingerprint": spec.fingerprint}
    return State(spec.name, "starting", identity.pid, identity.create_time, **how)  # type: ignore[arg-type]


def states(home: Path) -> dict[str, State]:
    """Read what the supervisor wrote last, by service name; empty when there is nothing (or nothing readable)."""
    services = (read_json(home / STATE) or {}).get("services", {})
    try:
        return {name: State(name=name, **entry) for name, entry in services.items()}
    except (AttributeError, TypeError):
        return {}


def start_supervisor(home: Path) -> None:
    """Start a detached supervisor for the directory unless one runs.

    It inherits the lock that is taken here: another run that asks while it starts must not start a second one. (Windows
    hands no locks down; there the first one that wakes up takes it and the others end.)
    """
    make_way(home / LOCK)
    with open(home / LOCK, "a+b") as lock, private.appending(home / LOG) as log:
        if not try_lock(lock):
            return
        inherited = () if process.WINDOWS else (lock.fileno(),)
        subprocess.Popen(
            [sys.executable, "-m", "infra.supervision.supervisor", *map(str, inherited), str(home)],
            cwd=home,
            env=process.environment({**_passed(home), "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"}),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=inherited,
            **process.spawn_options(process.WINDOWS, None),
        )


def _passed(home: Path) -> dict[str, str]:
    """Return the names of all variables that a service is to get from the shell: the supervisor hands them down."""
    names = {word for spec in desired(home) for word in spec.env.get(process.PASSED, "").split(",") if word.strip()}
    return {process.PASSED: ",".join(sorted(names))} if names else {}


def supervisor_identity(home: Path) -> process.Identity | None:
    """Return the supervisor's process as it wrote it down, when it is alive."""
    entry = (read_json(home / STATE) or {}).get("supervisor")
    try:
        identity = process.Identity(int(entry["pid"]), float(entry["create_time"]))  # type: ignore[index]
    except (KeyError, TypeError, ValueError):
        return None
    return identity if identity.process() else None
