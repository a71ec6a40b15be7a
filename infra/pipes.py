"""Two programs of which one reads what the other writes, without a shell and without a file between them."""

from __future__ import annotations

import subprocess
import tempfile
import threading
from collections.abc import Sequence
from typing import IO

from infra import shell
from infra.shell import Result


def run(source: Sequence[str], target: Sequence[str], *, limit: float) -> Result:
    """Run both to their ends; what is returned is of the one that failed first, or else of the reader.

    Args:
        source: argument list of the program that writes.
        target: argument list of the program that reads.
        limit: seconds after which both are killed, which counts as a failure.

    Raises:
        PlatformError: PROGRAM_MISSING.
    """
    with tempfile.TemporaryFile() as complained:
        writer = _start(source, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=complained)
        assert writer.stdout is not None
        try:
            with writer.stdout as stream:
                reader = _start(target, stdin=stream, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            read = _ended(reader, writer, limit)
        finally:
            if writer.poll() is None:
                writer.kill()
            writer.wait()
        wrote = Result(writer.returncode, "", _text(complained))
    return wrote if wrote.code > 0 and wrote.err.strip() else read


def _ended(reader: subprocess.Popen[bytes], writer: subprocess.Popen[bytes], limit: float) -> Result:
    def give_up() -> None:
        writer.kill()
        reader.kill()

    clock = threading.Timer(limit, give_up)
    clock.start()
    try:
        out, err = reader.communicate()
        if reader.returncode == 0:
            writer.wait()
    finally:
        clock.cancel()
    return Result(reader.returncode, out.decode("utf-8", "replace"), err.decode("utf-8", "replace"))


def _start(
    argv: Sequence[str], stdin: int | IO[bytes], stdout: int | IO[bytes], stderr: int | IO[bytes]
) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(list(argv), stdin=stdin, stdout=stdout, stderr=stderr)
    except OSError as error:
        raise shell.cannot_start(argv, error) from error


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode("utf-8", "replace")
