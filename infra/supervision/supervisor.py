"""Keeps the services of one directory running: `python -m infra.supervision.supervisor [LOCK] DIRECTORY`.

LOCK is the number of an open file that its starter holds the directory's lock with.

One thread a service: wait for what it needs, start, wait until its probe answers, watch, restart with a doubling
delay, give up visibly. The files it reads and writes are described in `infra.supervision.client`.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from infra import private
from infra.locks import try_lock
from infra.stack import make_way, read_json, write_atomic
from infra.supervision import client, process
from infra.supervision.client import DESIRED, FORMAT, LOCK, STATE, Spec, State, desired
from infra.supervision.process import Identity

if TYPE_CHECKING:
    from infra import probes

FIRST_DELAY, LONGEST_DELAY = 0.25, 8.0
"""Seconds between a crash and the restart: the first, doubled each time, and the longest."""
GIVE_UP_AFTER = 5
"""Crashes in a row after which a service counts as failed."""
STEADY = 30.0
"""Seconds of readiness after which earlier crashes are forgotten."""
LOG_LIMIT, LOG_KEEP = 10_000_000, 2
"""Bytes after which a log is rotated, and how many old ones are kept."""


@dataclass
class Board:
    """The known state of each service; every change is written to the state file."""

    home: Path
    entries: dict[str, dict[str, Any]] = field(default_factory=dict)
    written: tuple[int, int] | None = (0, 0)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def put(self, name: str, **facts: Any) -> None:
        """Note facts about a service; a new `state` also notes the time. No news wakes nobody."""
        with self.changed:
            before = self.entries.get(name, {"state": "waiting", "restarts": 0, "since": time.time()})
            entry = {**before, **facts}
            if entry["state"] != before["state"]:
                entry["since"] = time.time()
            if self.entries.get(name) != entry:
                self.entries[name] = entry
                self.save()
                self.changed.notify_all()

    def drop(self, name: str) -> None:
        """Forget a service that is no longer wanted."""
        with self.changed:
            self.entries.pop(name, None)
            self.save()
            self.changed.notify_all()

    def state(self, name: str) -> str:
        """Return the current state of a service, or '' for an unknown one."""
        return str(self.entries.get(name, {}).get("state", ""))

    def save(self) -> None:
        """Write the state file; a full disk must not stop the supervision, so failure only shows in the log."""
        me = process.identify(os.getpid())
        supervisor = {"pid": os.getpid(), "create_time": me.create_time if me else 0.0, "format": FORMAT}
        try:
            text = json.dumps({"supervisor": supervisor, "services": self.entries}, indent=1)
            make_way(self.home / STATE)
            write_atomic(self.home / STATE, text, sync=False)
            self.written = _version(self.home / STATE)
        except OSError as error:
            if self.written is not None:
                say(f"cannot write the state file: {error}")
            self.written = None

    def keep(self) -> None:
        """Write the state file again where that has failed, or where somebody else has spoilt it."""
        with self.changed:
            if self.entries and self.written != _version(self.home / STATE):
                self.save()


class Runner(threading.Thread):
    """Keeps one service running until told to stop."""

    def __init__(self, spec: Spec, board: Board, adopted: Identity | None) -> None:
        super().__init__(name=spec.name, daemon=True)
        self.spec, self.board = spec, board
        self.identity = adopted
        self.child: subprocess.Popen[bytes] | None = None
        self.stopping = threading.Event()
        self.crashes = 0

    def run(self) -> None:
        """Supervise the service until it is to stop."""
        self._put("waiting" if self.identity is None else "starting")
        while not self.stopping.is_set():
            if self.identity is None and not (self._needs_ready() and self._start()):
                continue
            if self._await_ready():
                self._watch()
            if not self.stopping.is_set():
                self._crashed()

    def _put(self, state: str, **facts: Any) -> None:
        pid = self.identity.pid if self.identity else None
        created = self.identity.create_time if self.identity else None
        plain = {"fingerprint": self.spec.fingerprint, "detail": "", "fatal": False}
        how = {"stop_signal": self.spec.stop_signal, "grace": self.spec.grace}
        self.board.put(self.spec.name, state=state, pid=pid, create_time=created, **{**plain, **how, **facts})

    def _needs_ready(self) -> bool:
        waiting = [n for n in self.spec.needs if self.board.state(n) != "ready"]
        if waiting:
            self._put("waiting", detail=f"waits for {', '.join(waiting)}")
            with self.board.changed:
                self.board.changed.wait(0.5)
        return not waiting

    def _start(self) -> bool:
        try:
            with private.appending(Path(self.spec.log)) as log:
                user = (self.spec.user[0], self.spec.user[1]) if self.spec.user else None
                env = process.environment(self.spec.env)
                cwd, umask = Path(self.spec.cwd), self.spec.umask
                self.child = process.spawn(self.spec.argv, cwd=cwd, log=log, env=env, user=user, umask=umask)
        except OSError as error:
            self._crashed(f"cannot start: {error}")
            return False
        self.identity = process.identify(self.child.pid)
        self._put("starting")
        return True

    def _alive(self) -> bool:
        if self.child is not None:
            return self.child.poll() is None
        return self.identity is not None and self.identity.process() is not None

    def _await_ready(self) -> bool:
        """Probe until the service answers; False when it ended (or is to stop)."""
        from infra import probes  # while the service starts

        began, delay = time.monotonic(), 0.01
        while not self.stopping.wait(delay):
            if not self._alive():
                return False
            finding = probes.check(self.spec.probe)
            if finding.ok and self._alive():
                self._put("ready")
                return True
            waited = time.monotonic() - began
            self._note_unready(finding, waited)
            delay = min(delay * 1.5, 0.03 if waited < 5 else 0.25)
        return False

    def _note_unready(self, finding: probes.Finding, waited: float) -> None:
        late = waited > self.spec.budget
        detail = f"{finding.detail} (not ready after {waited:.0f} s)" if late else finding.detail
        known = self.board.entries.get(self.spec.name, {})
        if known.get("detail", "").split(" (not")[0] != finding.detail or finding.fatal or late:
            self._put("starting", detail=detail, fatal=finding.fatal)

    def _watch(self) -> None:
        ready = time.monotonic()
        while not self.stopping.wait(0.1):
            if not self._alive():
                return
            if self.crashes and time.monotonic() - ready > STEADY:
                self.crashes = 0
            rotate(Path(self.spec.log))

    def _crashed(self, reason: str = "") -> None:
        reason = reason or f"ended by itself{self._exit_text()}"
        self._sweep()
        self.crashes += 1
        self.identity = self.child = None
        restarts = self.board.entries[self.spec.name].get("restarts", 0) + 1
        say(f"{self.spec.name}: {reason}")
        if self.crashes >= GIVE_UP_AFTER:
            self._put("failed", detail=f"{reason}; gave up after {self.crashes} tries", restarts=restarts)
            self.stopping.wait()
            return
        delay = min(FIRST_DELAY * 2 ** (self.crashes - 1), LONGEST_DELAY)
        self._put("backoff", detail=f"{reason}; next try in {delay:g} s", restarts=restarts)
        self.stopping.wait(delay)

    def _exit_text(self) -> str:
        code = self.child.poll() if self.child else None
        if code is None:
            return ""
        return f" (signal {-code})" if code < 0 else f" (exit {code})"

    def _sweep(self) -> None:
        """End what the service left behind: its children may hold its port (MLflow's do)."""
        if self.identity:
            process.end_all(process.session_members(self.identity))

    def stop(self) -> None:
        """Stop the service: its own signal, its grace, then its whole session and tree. Blocks until done."""
        self.stopping.set()
        with self.board.changed:
            self.board.changed.notify_all()
        self.join()
        live = self.identity.process() if self.identity else None
        if live is not None:
            family = process.tree(live)
            self._ask(live)
            process.wait_gone(live, self.spec.grace, self.child)
            process.end_all([p for p in family if p.is_running()])
        self._sweep()
        if self.child is not None:
            self.child.poll()  # reaps it
        self.board.drop(self.spec.name)

    def _ask(self, live: Any) -> None:
        if self.spec.stop_argv:
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                subprocess.run(self.spec.stop_argv, stdin=subprocess.DEVNULL, timeout=self.spec.grace, check=False)
        else:
            process.ask_to_stop(live, self.spec.stop_signal)


def say(text: str) -> None:
    """Print a line to the supervisor's log; a full disk must not end the supervision."""
    with contextlib.suppress(OSError):
        print(text, flush=True)


def rotate(log: Path, limit: int = LOG_LIMIT, keep: int = LOG_KEEP) -> None:
    """Copy a log that has grown over `limit` bytes aside and empty it.

    Not renamed: services that were adopted keep writing (appending) to the same open file.
    """
    with contextlib.suppress(OSError):
        if log.stat().st_size <= limit:
            return
        for number in range(keep, 1, -1):
            older = log.with_name(f"{log.name}.{number - 1}")
            if older.exists():
                os.replace(older, log.with_name(f"{log.name}.{number}"))
        first = log.with_name(f"{log.name}.1")
        first.unlink(missing_ok=True)
        with open(log, "rb") as source, private.appending(first) as target:
            shutil.copyfileobj(source, target)
        os.truncate(log, 0)


class Supervisor:
    """Makes the running services those of the desired file."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.board = Board(home)
        self.runners: dict[str, Runner] = {}
        self.known = self._known()
        self.ended = False

    def _known(self) -> dict[str, State]:
        """Return the services of an earlier supervisor; when its file is damaged, they are recognised by directory."""
        path = self.home / STATE
        known = client.known(self.home, supervised=False)
        if path.exists() and (read_json(path) or {}).get("services") != {} and not client.states(self.home):
            os.replace(path, path.with_name(f"{STATE}.damaged-{time.time_ns()}"))
        for name, state in known.items():
            if state.identity:  # or the first word about one service would wipe out what is known of the others
                self.board.entries[name] = {**vars(state), "state": "starting"}
                del self.board.entries[name]["name"]
        return known

    def reconcile(self) -> None:
        """Stop what is not wanted or changed, start what is missing."""
        wanted = {s.name: s for s in desired(self.home)}
        self._stop_strays(wanted)
        changed = {n for n, s in wanted.items() if n in self.runners and self._differs(n, s)}
        self._stop_in_order({n for n in self.runners if n not in wanted} | changed)
        for name, spec in wanted.items():
            if name not in self.runners:
                self.runners[name] = Runner(spec, self.board, self._adoptable(spec))
                self.runners[name].start()
            else:
                self.runners[name].spec = spec

    def _differs(self, name: str, spec: Spec) -> bool:
        failed = self.board.state(name) == "failed"
        return failed or self.runners[name].spec.fingerprint != spec.fingerprint

    def _adoptable(self, spec: Spec) -> Identity | None:
        known = self.known.pop(spec.name, None)
        identity = known.identity if known else None
        return identity if identity and identity.process() else None

    def _stop_strays(self, wanted: dict[str, Spec]) -> None:
        """Stop services of an earlier supervisor that are not wanted, or not as they run."""
        strays = [n for n, k in self.known.items() if n not in wanted or k.fingerprint != wanted[n].fingerprint]
        in_parallel(partial(_stop_stray, self.known.pop(name)) for name in strays)
        for name in strays:
            self.board.drop(name)

    def _stop_in_order(self, names: set[str]) -> None:
        """Stop services, those that others need last, independent ones together."""
        while names:
            needed = {n for name in names for n in self.runners[name].spec.needs}
            layer = (names - needed) or names
            in_parallel(self.runners[name].stop for name in layer)
            for name in layer:
                del self.runners[name]
            names = names - layer

    def shutdown_wanted(self) -> bool:
        """Return whether the desired file asks for the end."""
        return (read_json(self.home / DESIRED) or {}).get("shutdown") is True

    def serve(self) -> None:
        """Follow the desired file until it, or SIGTERM, asks for the end."""
        seen: tuple[int, int] | None = None
        while not self.ended:
            now = _version(self.home / DESIRED)
            if now != seen:  # read only when it was written: this loop runs all day
                if self.shutdown_wanted():
                    break
                self._follow()
                seen = now
            self.board.keep()
            time.sleep(0.05)
        self._stop_strays({})
        self._stop_in_order(set(self.runners))
        if self.shutdown_wanted():
            with contextlib.suppress(OSError):
                client.forget(self.home)

    def _follow(self) -> None:
        """Do what the desired file says; a damaged one is ignored and written again."""
        if client.wish(self.home) is not None:
            self.reconcile()
        elif self.runners:
            with contextlib.suppress(OSError):
                client.rewrite(self.home, [r.spec for r in self.runners.values()])

    def end(self, *_: object) -> None:
        """Signal handler: stop all services and end."""
        self.ended = True


def _stop_stray(known: State) -> None:
    live = known.identity.process() if known.identity else None
    if live is not None:
        process.ask_to_stop(live, known.stop_signal)
        process.wait_gone(live, known.grace)
    if known.identity:
        process.end_all(process.session_members(known.identity))


def in_parallel(calls: Iterable[Callable[[], None]]) -> None:
    """Run calls side by side and wait for all."""
    threads = [threading.Thread(target=call) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _version(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:
        return (0, 0)
    return (status.st_mtime_ns, status.st_ino)


def _hold(home: Path, inherited: str) -> IO[bytes] | None:
    file = open(int(inherited) if inherited else home / LOCK, "a+b")  # noqa: SIM115 - held until the process ends
    if try_lock(file):
        return file
    file.close()
    return None


def main(home: Path, inherited: str = "") -> int:
    """Supervise until told to end; 0 also when another supervisor holds the directory."""
    held = _hold(home, inherited)
    if held is None:
        return 0
    supervisor = Supervisor(home)
    signal.signal(signal.SIGTERM, supervisor.end)
    signal.signal(signal.SIGINT, supervisor.end)
    supervisor.serve()
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[-1]), *sys.argv[1:-1]))
