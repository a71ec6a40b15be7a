"""End what follows a log when its reader goes: Ctrl-C, `head` that has enough, a pager that was closed."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import TextIO

from infra.errors import ExitCode


@contextlib.contextmanager
def following(stream: TextIO) -> Iterator[None]:
    """Run a block that goes on without an end until Ctrl-C (the usual way), or until nobody reads the stream.

    Without this, a log in which nothing more is written would be followed for a reader that has gone.

    Raises:
        SystemExit: 130 after Ctrl-C, 0 when the reader has gone: neither is an error.
    """
    gone, over, lock = threading.Event(), threading.Event(), threading.Lock()

    def interrupt() -> None:
        with lock:
            if not over.is_set():
                gone.set()
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    _on_closed(stream, interrupt)
    try:
        try:
            yield
        finally:
            with lock:
                over.set()
    except KeyboardInterrupt:
        raise SystemExit(int(ExitCode.OK if gone.is_set() else ExitCode.INTERRUPTED)) from None


def _on_closed(stream: TextIO, act: Callable[[], None]) -> None:
    """Call `act`, from a thread of its own, once the other end of a pipe is closed; never for files, nor on Windows."""
    if sys.platform == "win32":
        return
    with contextlib.suppress(OSError, ValueError):
        # A number of its own: the stream's may become /dev/null meanwhile (`write_line`).
        watched = os.dup(stream.fileno())
        threading.Thread(target=_watch, args=(watched, act), daemon=True).start()


def _watch(descriptor: int, act: Callable[[], None]) -> None:
    poll = select.poll()
    poll.register(descriptor, 0)  # errors and hang-ups are reported without being asked for
    poll.poll()
    act()
