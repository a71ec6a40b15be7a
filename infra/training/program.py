"""Running a training program: its output in a log, its whole process tree under control.

The program stays in the session of its starter, so that a supervisor that sweeps that session after a kill -9
ends the training too. Where nobody swept, the next try does, by the pid that is written down here.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
import uuid
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
MARK = "PLATFORM_PROGRAM"
"""Variable by whose value a program's descendants are known, also those that have left its tree and session."""


@dataclass(frozen=True)
class TrainingProgram:
    """The program to run: arguments, directory, whole environment, log file, and a file for its pid."""

    argv: Sequence[str]
    cwd: Path
    env: Mapping[str, str]
    log: Path
    pid_file: Path


def run(program: TrainingProgram, on_line: Callable[[str], object], beat: Callable[[], None]) -> int:
    """Run a program to its end and return its exit status (negative: the signal that killed it).

    Args:
        on_line: gets each whole line that it prints.
        beat: is called about ten times a second; when it raises, the program and its tree are stopped first.

    Raises:
        OSError: it cannot be started.
    """
    return run_together([program], on_line, beat)[0] or 0


def run_together(
    programs: Sequence[TrainingProgram], on_line: Callable[[str], object], beat: Callable[[], None]
) -> list[int | None]:
    """Run programs that need each other until all have ended, or one has failed: then the others are stopped.

    Returns the exit status of each as in `run`, None where it had to be stopped. `on_line` gets the lines of the first.

    Raises:
        OSError: one cannot be started.
    """
    families: list[Family] = []
    for program in programs:
        end_stale(program.pid_file)
    tail = Tail(programs[0].log, _size(programs[0].log))
    try:
        for program in programs:
            families.append(_started(program))
        return _follow(families, tail, on_line, beat)
    finally:
        _end(families, beat)


def _size(log: Path) -> int:
    return log.stat().st_size if log.exists() else 0


def _started(program: TrainingProgram) -> Family:
    mark = uuid.uuid4().hex
    with private.appending(program.log) as log:
        child = subprocess.Popen(
            list(program.argv),
            cwd=program.cwd,
            env={**program.env, MARK: mark},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            **_options(),
        )
    return Family(child, program.pid_file, mark)


def _options() -> dict[str, Any]:
    """Return, on Windows, options for a process group of its own, without which it could not be asked to stop."""
    return process.spawn_options(True, None) if process.WINDOWS else {}


def _follow(
    families: Sequence[Family], tail: Tail, on_line: Callable[[str], object], beat: Callable[[], None]
) -> list[int | None]:
    while True:
        codes = _codes(families)
        while tail.read():  # however much there is: signs of life go on
            for line in tail.lines():
                on_line(line)
            _look(families, beat)
        if any(codes) or None not in codes:
            return codes
        _look(families, beat)
        time.sleep(_POLL)


def _codes(families: Sequence[Family]) -> list[int | None]:
    codes = [family.code for family in families]
    # A worker that fails because another has died is seen after that one, which is the reason.
    return [family.code for family in families] if any(codes) else codes


def _look(families: Sequence[Family], beat: Callable[[], None]) -> None:
    beat()
    for family in families:
        family.look()


def _end(families: Sequence[Family], beat: Callable[[], None]) -> None:
    """Ask programs to stop (where they run), give them their grace, then end whatever is left of them."""
    for family in families:
        family.ask()
    limit = time.monotonic() + GRACE
    while any(family.code is None for family in families) and time.monotonic() < limit:
        # The reason to stop is known; now the beat only has to show that we are alive.
        with contextlib.suppress(Exception):
            beat()
        time.sleep(_POLL)
    process.end_all([member for family in families for member in family.living()])
    for family in families:
        family.close()


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

    def __init__(self, child: subprocess.Popen[bytes], pid_file: Path, mark: str) -> None:
        self._child, self._pid_file, self._mark = child, pid_file, mark
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
            write_atomic(self._pid_file, json.dumps({"processes": processes, "mark": self._mark}))

    def _note(self, pid: int) -> None:
        found = process.identify(pid)
        if found:
            self._seen[pid] = found

    @property
    def code(self) -> int | None:
        """The exit status of the program; None while it runs."""
        return self._child.poll()

    def ask(self) -> None:
        """Ask the program to stop if it runs."""
        self._next_look = 0.0
        self.look()
        if self.code is None:
            process.ask_to_stop(psutil.Process(self._child.pid), "TERM")

    def living(self) -> list[psutil.Process]:
        """Return the members that still run."""
        return _living(self._seen.values()) + process.marked(MARK, self._mark)

    def close(self) -> None:
        """Take note of the end: nobody has to look for the family any more."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(timeout=5)
        if _mine(self._pid_file, self._child.pid):
            self._pid_file.unlink(missing_ok=True)


def end_stale(pid_file: Path) -> int:
    """End what an earlier try left running; how many processes that were."""
    known = read_json(pid_file) or {}
    left = _living(Identity(int(pid), float(created)) for pid, created in known.get("processes", []))
    left += process.marked(MARK, known["mark"]) if known.get("mark") else []
    process.end_all([p for leader in left for p in process.tree(leader)])
    pid_file.unlink(missing_ok=True)
    return len(set(left))


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
