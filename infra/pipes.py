"""Two programs of which one reads what the other writes, without a shell and without a file between them."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO

from infra import shell
from infra.shell import Result


@dataclass
class Pipe:
    """Both at work; make it with `start`, end it with `result` or `stop`."""

    writer: subprocess.Popen[bytes]
    reader: subprocess.Popen[bytes]
    complained: IO[bytes]
    out: IO[bytes]
    err: IO[bytes]

    def result(self, limit: float) -> Result:
        """Return the result, at the end, of the one that failed first, or else of the reader.

        Args:
            limit: seconds from now after which both are killed, which counts as a failure.
        """
        end = time.monotonic() + limit
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                if self.reader.wait(limit) == 0:
                    self.writer.wait(max(0.0, end - time.monotonic()))
            self._kill()
            wrote = Result(self.writer.returncode, "", _text(self.complained))
            read = Result(self.reader.returncode, _text(self.out), _text(self.err))
        finally:
            self.stop()
        return wrote if wrote.code > 0 and not _broken_pipe(wrote) else read

    def stop(self) -> None:
        """Kill whatever of them still runs, and forget what they said."""
        self._kill()
        for file in (self.complained, self.out, self.err):
            file.close()

    def _kill(self) -> None:
        for process in (self.reader, self.writer):  # a reader that outlived its writer would take that for the end
            if process.poll() is None:
                process.kill()
            process.wait()


def start(source: Sequence[str], target: Sequence[str], *, env: Mapping[str, str] | None = None) -> Pipe:
    """Start both.

    Args:
        source: argument list of the program that writes.
        target: argument list of the program that reads.
        env: variables added to the environment of both.

    Raises:
        PlatformError: PROGRAM_MISSING.
    """
    with contextlib.ExitStack() as undo:
        complained, out, err = (undo.enter_context(_scratch()) for _ in range(3))
        writer = _popen(source, subprocess.DEVNULL, subprocess.PIPE, complained, env)
        undo.callback(writer.wait)
        undo.callback(writer.kill)
        assert writer.stdout is not None
        with writer.stdout as stream:
            reader = _popen(target, stream, out, err, env)
        undo.pop_all()
    return Pipe(writer, reader, complained, out, err)


def _popen(
    argv: Sequence[str],
    stdin: int | IO[bytes],
    stdout: int | IO[bytes],
    stderr: IO[bytes],
    env: Mapping[str, str] | None,
) -> subprocess.Popen[bytes]:
    environ = {**os.environ, **(env or {})}
    try:
        return subprocess.Popen(list(argv), stdin=stdin, stdout=stdout, stderr=stderr, env=environ)
    except OSError as error:
        raise shell.cannot_start(argv, error) from error


def _broken_pipe(wrote: Result) -> bool:
    """Return whether a writer only complains that nobody reads any more."""
    return not wrote.err.strip() or "brokenpipe" in wrote.err.lower().replace(" ", "")


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode("utf-8", "replace")


def _scratch() -> IO[bytes]:
    return tempfile.TemporaryFile()
