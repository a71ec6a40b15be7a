"""Running a training program: its output in a log, its whole process tree under control.

The program stays in the session of whoever runs it, so that a supervisor that sweeps that session after a kill -9
ends the training too. Where nobody swept, the next try does, by the pid that is written down here.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from infra import private
from infra.stack import read_json, write_atomic
from infra.supervision import process
from infra.supervision.process import Identity
from infra.training.report import LONGEST_LINE

GRACE = 10.0
"""Seconds between the request to stop and the kill."""
_POLL = 0.1
_LOOK = 1.0
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Program:
    """What to run: arguments, directory, whole environment, log file, and a file for its pid."""

    argv: Sequence[str]
    cwd: Path
    env: Mapping[str, str]
    log: Path
    pid_file: Path


def run(program: Program, on_line: Callable[[str], object], beat: Callable[[], None]) -> int:
    """Run a program to its end and return its exit status (negative: the signal that killed it).

    Args:
        on_line: gets each whole line that it prints.
        beat: is called about ten times a second; when it raises, the program and its tree are stopped first.

    Raises:
        OSError: it cannot be started.
    """
    end_stale(program.pid_file)
    with private.appending(program.log) as log:
        start = log.tell()
        child = subprocess.Popen(
            list(program.argv),
            cwd=program.cwd,
            env=dict(program.env),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            **_options(),
        )
    family = Family(child, program.pid_file)
    try:
        return _follow(child, family, Tail(program.log, start), on_line, beat)
    finally:
        family.end(beat)


def _options() -> dict[str, Any]:
    """On Windows a process group of its own, without which it could not be asked to stop."""
    return process.spawn_options(True, None) if process.WINDOWS else {}


def _follow(
    child: subprocess.Popen[bytes],
    family: Family,
    tail: Tail,
    on_line: Callable[[str], object],
    beat: Callable[[], None],
) -> int:
    while True:
        code = child.poll()
        while tail.read():  # however much there is: signs of life go on
            for line in tail.lines():
                on_line(line)
            beat()
            family.look()
        if code is not None:
            return code
        beat()
        family.look()
        time.sleep(_POLL)


class Tail:
    """New lines of a file that another process appends to; of a line that is too long to be a report, nothing."""

    def __init__(self, path: Path, offset: int = 0) -> None:
        self._path, self._offset = path, offset
        self._rest, self._cut, self._whole = b"", False, list[bytes]()

    def read(self) -> bool:
        """Read on, at most a mebibyte; False when there is nothing new."""
        with open(self._path, "rb") as file:
            file.seek(self._offset)
            news = file.read(_CHUNK)
        self._offset += len(news)
        *whole, rest = (self._rest + news).split(b"\n")
        if whole and self._cut:
            del whole[0]
            self._cut = False
        self._cut = self._cut or len(rest) > LONGEST_LINE
        self._whole, self._rest = whole, b"" if self._cut else rest
        return bool(news)

    def lines(self) -> Iterator[str]:
        """Yield the whole lines of what was read last, without their ends."""
        for line in self._whole:
            if len(line) <= LONGEST_LINE:
                yield line.decode("utf-8", "replace").rstrip("\r")


class Family:
    """A program and all processes that it has started, also those whose parent has gone."""

    def __init__(self, child: subprocess.Popen[bytes], pid_file: Path) -> None:
        self._child, self._pid_file = child, pid_file
        self._seen: dict[int, Identity] = {}
        self._next_look = 0.0
        self.look()

    def look(self) -> None:
        """Note new members, at most once a second, in the pid file too."""
        if time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + _LOOK
        before = set(self._seen)
        with contextlib.suppress(psutil.Error):
            for member in process.tree(psutil.Process(self._child.pid)):
                self._note(member.pid)
        if set(self._seen) != before:
            processes = [[member.pid, member.create_time] for member in self._seen.values()]
            write_atomic(self._pid_file, json.dumps({"processes": processes}))

    def _note(self, pid: int) -> None:
        found = process.identify(pid)
        if found:
            self._seen[pid] = found

    def end(self, beat: Callable[[], None]) -> None:
        """Ask the program to stop (if it runs), give it its grace, then end whatever is left of the family."""
        self._next_look = 0.0
        self.look()
        if self._child.poll() is None:
            process.ask_to_stop(psutil.Process(self._child.pid), "TERM")
            self._wait(beat)
        process.end_all(_living(self._seen.values()))
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(timeout=5)
        if _mine(self._pid_file, self._child.pid):
            self._pid_file.unlink(missing_ok=True)

    def _wait(self, beat: Callable[[], None]) -> None:
        limit = time.monotonic() + GRACE
        while self._child.poll() is None and time.monotonic() < limit:
            # The reason to stop is known; now the beat only has to show that we are alive.
            with contextlib.suppress(Exception):
                beat()
            time.sleep(_POLL)


def end_stale(pid_file: Path) -> int:
    """End what an earlier try left running; how many processes that were."""
    entries = (read_json(pid_file) or {}).get("processes", [])
    left = _living(Identity(int(pid), float(created)) for pid, created in entries)
    process.end_all([p for leader in left for p in process.tree(leader)])
    pid_file.unlink(missing_ok=True)
    return len(left)


def _living(identities: Any) -> list[psutil.Process]:
    return [p for p in (identity.process() for identity in identities) if p is not None]


def _mine(pid_file: Path, pid: int) -> bool:
    entries = (read_json(pid_file) or {}).get("processes", [])
    return any(entry[0] == pid for entry in entries)


def last_lines(log: Path, start: int = 0, count: int = 20) -> list[str]:
    """Return the last lines of a log, looking back no further than byte `start` (and 64 KiB)."""
    try:
        with open(log, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(start, size - 65_536))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return []
    return [line for line in text.splitlines() if line.strip()][-count:]
