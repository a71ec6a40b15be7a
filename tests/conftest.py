"""What every test gets: signals as at a terminal, wherever the run was started."""

from __future__ import annotations

import signal


def pytest_configure() -> None:
    """Take Ctrl-C back from a shell that ignores it for what it starts in the background.

    Programs inherit that, and those that the tests interrupt would go on.
    """
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
