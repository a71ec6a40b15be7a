"""The only door to other programs that run and end: argument lists, a time limit, no shell, masked secrets.

Long-running services are started by the supervisor, which shares `find` and nothing else with this.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infra.errors import PlatformError


@dataclass(frozen=True)
class Result:
    """Exit code and the decoded outputs of a program."""

    code: int
    out: str
    err: str

    @property
    def last_line(self) -> str:
        """The last line that says something, of stderr or else of stdout."""
        lines = [line for line in (self.err.strip() or self.out.strip()).splitlines() if line.strip()]
        return lines[-1].strip() if lines else ""


def find(program: str) -> str | None:
    """Return the absolute path of a program given by name (on PATH) or by path; None when it is not there."""
    found = shutil.which(str(Path(program).expanduser()))
    return str(Path(found).absolute()) if found else None


def run(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: str | None = None,
    limit: float = 60.0,
    check: bool = True,
    user: tuple[int, int] | None = None,
    without: Collection[str] = (),
) -> Result:
    """Run a program to its end and return what it said.

    Args:
        argv: program and arguments; never a shell string, never a secret.
        env: variables added to the environment.
        stdin: text for its standard input; without it the program gets none.
        limit: seconds after which it is killed.
        check: whether an exit code other than 0 is an error.
        without: variables of this process that it does not get.
        user: (uid, gid) to run as; POSIX, and only for root.

    Raises:
        PlatformError: PROGRAM_MISSING, PROGRAM_FAILED or WAIT_TIMEOUT.
    """
    try:
        done = subprocess.run(
            list(argv),
            env={k: v for k, v in os.environ.items() if k not in without} | dict(env or {}),
            cwd=cwd,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=limit,
            check=False,
            **identity(user),
        )
    except OSError as error:
        raise cannot_start(argv, error) from error
    except subprocess.TimeoutExpired as error:
        raise _too_long(argv, limit) from error
    result = Result(done.returncode, done.stdout, done.stderr)
    if check and result.code != 0:
        raise _failed(argv, result)
    return result


@dataclass
class Running:
    """A program at work: its last lines, and whether it has ended."""

    argv: Sequence[str]
    process: subprocess.Popen[str]
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=200))

    def code(self) -> int | None:
        """Return its exit code; None while it runs."""
        return self.process.poll()

    def stop(self, grace: float = 5.0) -> None:
        """End it: asked first, killed after `grace` seconds."""
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(grace)
        self.process.kill()
        self.process.wait()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as out:
            for line in out:
                self.lines.append(line.rstrip())


def start(argv: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> Running:
    """Start a program whose end the caller watches; what it says is collected in the background.

    Raises:
        PlatformError: PROGRAM_MISSING.
    """
    try:
        process = subprocess.Popen(
            list(argv),
            env={**os.environ, **(env or {})},
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
        )
    except OSError as error:
        raise cannot_start(argv, error) from error
    running = Running(argv, process)
    threading.Thread(target=running._read, daemon=True).start()
    return running


def attached(argv: Sequence[str], *, env: Mapping[str, str] | None = None) -> int:
    """Run a program on this terminal (it shares our input and outputs) and return its exit code.

    Raises:
        PlatformError: PROGRAM_MISSING.
    """
    try:
        return subprocess.call(list(argv), env={**os.environ, **(env or {})})
    except OSError as error:
        raise cannot_start(argv, error) from error


@dataclass
class Child:
    """A program that was started and is followed beside other work; make it with `spawn`, end it with `stop`.

    What it says goes to private files, which are removed when it has ended.
    """

    argv: Sequence[str]
    process: subprocess.Popen[bytes]
    out: Path
    err: Path
    _result: Result | None = field(default=None, repr=False)

    def result(self) -> Result | None:
        """Return its output, once it has ended; None while it runs."""
        if self._result is None and self.process.poll() is not None:
            self._result = Result(self.process.returncode, _text(self.out), _text(self.err))
            self.out.unlink(missing_ok=True)
            self.err.unlink(missing_ok=True)
        return self._result

    @property
    def last_line(self) -> str:
        """The last line of its stderr so far."""
        done = self.result()
        return done.last_line if done else Result(0, "", _text(self.err)).last_line

    def error(self) -> PlatformError | None:
        """Return PROGRAM_FAILED when it has ended with another code than 0."""
        done = self.result()
        return _failed(self.argv, done) if done is not None and done.code != 0 else None

    def stop(self, grace: float = 10.0) -> None:
        """Ask it to end as Ctrl-C would, which lets it tidy up; kill it after `grace` seconds."""
        if self.process.poll() is None:
            self.process.send_signal(_INTERRUPT)
            try:
                self.process.wait(grace)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.result()


_INTERRUPT = getattr(signal, "CTRL_BREAK_EVENT", signal.SIGINT)


def spawn(argv: Sequence[str], *, env: Mapping[str, str] | None = None, stdin: str | None = None) -> Child:
    """Start a program that ends by itself, and go on; in a group of its own, so that we decide when it is interrupted.

    Args:
        argv: program and arguments; never a shell string, never a secret.
        env: variables added to the environment.
        stdin: text for its standard input; without it the program gets none.

    Raises:
        PlatformError: PROGRAM_MISSING.
    """
    out, err, given = _scratch(), _scratch(), _scratch()
    given.write_text(stdin or "", encoding="utf-8", newline="")
    try:
        with given.open("rb") as source, out.open("wb") as said, err.open("wb") as complained:
            process = subprocess.Popen(
                list(argv),
                env={**os.environ, **(env or {})},
                stdin=source,
                stdout=said,
                stderr=complained,
                **_own_group(),
            )
    except OSError as error:
        out.unlink()
        err.unlink()
        raise cannot_start(argv, error) from error
    finally:
        with contextlib.suppress(OSError):  # Windows keeps a file that is open; its end removes what is left there
            given.unlink()
    return Child(list(argv), process, out, err)


def _scratch() -> Path:
    """Return a private file that is empty."""
    descriptor, name = tempfile.mkstemp(prefix="platform-run-")
    os.close(descriptor)
    return Path(name)


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8", "replace")
    except OSError:
        return ""


def _own_group() -> dict[str, Any]:
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"process_group": 0}


def identity(user: tuple[int, int] | None) -> dict[str, Any]:
    """Return keyword arguments that make subprocess drop to that user; none for the present one."""
    return {"user": user[0], "group": user[1], "extra_groups": []} if user else {}


def cannot_start(argv: Sequence[str], error: OSError) -> PlatformError:
    """Return PROGRAM_MISSING for a program that the system does not start."""
    return PlatformError(
        "PROGRAM_MISSING",
        f"{Path(argv[0]).name} cannot be started",
        why=str(error),
        steps=(f"check that {argv[0]} exists and is executable",),
    )


def typed(*argv: str) -> str:
    """Return a command as it can be typed: what needs it is quoted in the way of the system's shells."""
    return subprocess.list2cmdline(argv) if sys.platform == "win32" else shlex.join(argv)


def _too_long(argv: Sequence[str], limit: float) -> PlatformError:
    return PlatformError(
        "WAIT_TIMEOUT",
        f"{Path(argv[0]).name} did not finish within {limit:.0f} s",
        steps=(typed(*argv),),
    )


def _failed(argv: Sequence[str], result: Result) -> PlatformError:
    ending = f"was killed by signal {-result.code}" if result.code < 0 else f"ended with {result.code}"
    return PlatformError(
        "PROGRAM_FAILED",
        f"{Path(argv[0]).name} {ending}",
        why=result.last_line,
        steps=(typed(*argv),),
        details={"log": (result.err or result.out).splitlines()[-20:]},
    )
