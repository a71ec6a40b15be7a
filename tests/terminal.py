"""A real terminal (a pty) for tests: a program runs on it, and what it draws is kept."""

from __future__ import annotations

import contextlib
import os
import re
import select
import struct
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from infra import columns

_CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07]*\x07")
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def _take_terminal() -> None:
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


class Session:
    """A program on a terminal of its own; POSIX only."""

    def __init__(self, argv: Sequence[str], cwd: Path, env: Mapping[str, str], width: int) -> None:
        self._here, there = os.openpty()
        self.resize(width)
        kept = {k: v for k, v in env.items() if k not in ("CI", "COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR")}
        self.process = subprocess.Popen(
            list(argv),
            cwd=cwd,
            env={**kept, "TERM": "xterm-256color"},
            stdin=there,
            stdout=there,
            stderr=there,
            start_new_session=True,
            preexec_fn=_take_terminal,  # so that Ctrl-C and a closed window reach it
        )
        os.close(there)
        self.drawn = ""

    def resize(self, width: int) -> None:
        """Give the terminal another width, in cells; whoever draws on it is told by the kernel."""
        import fcntl
        import termios

        fcntl.ioctl(self._here, termios.TIOCSWINSZ, struct.pack("HHHH", 40, width, 0, 0))

    def type(self, text: str) -> None:
        """Press these keys."""
        os.write(self._here, text.encode())

    def until(self, seen: Callable[[str], bool], limit: float = 300.0) -> str:
        """Read until something is seen or the program has ended; everything drawn so far is returned."""
        end = time.monotonic() + limit
        while not seen(self.drawn) and time.monotonic() < end:
            if not select.select([self._here], [], [], 0.1)[0]:
                if self.process.poll() is not None:
                    break
                continue
            try:
                part = os.read(self._here, 65536)
            except OSError:  # Linux says so when nobody holds the other end any more
                break
            if not part:
                break
            self.drawn += part.decode("utf-8", "replace")
        return self.drawn

    def end(self) -> tuple[int, str]:
        """Read to the end; the exit code and everything that was drawn."""
        self.until(lambda _: False)
        return self.process.wait(60), self.drawn

    def hang_up(self) -> None:
        """Close the terminal, as closing its window does."""
        with contextlib.suppress(OSError):
            os.close(self._here)


@contextlib.contextmanager
def on_terminal(argv: Sequence[str], cwd: Path, env: Mapping[str, str], width: int) -> Iterator[Session]:
    """Run a program on a terminal of this width; it is gone at the end."""
    made = Session(argv, cwd, env, width)
    try:
        yield made
    finally:
        made.hang_up()
        if made.process.poll() is None:
            made.process.kill()
        made.process.wait(60)


def lines(drawn: str) -> list[str]:
    """What stands on each line that was drawn, without colours and movements of the cursor."""
    return [_CODES.sub("", line) for line in re.split(r"[\r\n]+", drawn)]


def widest(drawn: str) -> int:
    """The cells of the widest line that was drawn."""
    return max(columns.width(line) for line in lines(drawn))
