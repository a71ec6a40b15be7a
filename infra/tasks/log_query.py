"""Options of tasks that print logs: since when, and which lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from infra.errors import PlatformError

if TYPE_CHECKING:
    import re


def earliest(since: str) -> float | None:
    """Read --since: seconds since 1970, None where it is not given. Raises PlatformError USAGE."""
    import time

    from infra import loglines

    try:
        return loglines.earliest(since, time.time()) if since else None
    except (ValueError, OverflowError) as error:
        steps = ("give a duration such as 90s, 10m, 2h or 1d, or a time such as 2026-11-30T08:00",)
        raise PlatformError("USAGE", f"--since {since!r} is neither a duration nor a time", steps=steps) from error


def pattern(grep: str) -> re.Pattern[str] | None:
    """Read --grep, in which case does not matter; None where it is not given. Raises PlatformError USAGE."""
    import re

    try:
        return re.compile(grep, re.IGNORECASE) if grep else None
    except re.error as error:
        steps = ("put a backslash before a character that is meant literally",)
        raise PlatformError(
            "USAGE", f"--grep {grep!r} is no regular expression", why=str(error), steps=steps
        ) from error
