"""The log of a training program is its stdout."""

from __future__ import annotations

import sys

from infra.console import write_line


def say(text: str) -> None:
    """Print a line for the log, visible at once."""
    write_line(sys.stdout, text)
