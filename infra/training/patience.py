"""Temporary failures: wait a while, doubling the pause, then give up so that somebody else can try again."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

BUDGET = 40.0
"""Seconds for which a server may be unreachable before its user gives up."""

EXIT_TEMPORARY = 75
"""Exit status for `try again later`: EX_TEMPFAIL of BSD's sysexits.h."""


class Unavailable(Exception):
    """A server did not answer for the whole budget."""


def patiently(
    call: Callable[[], T],
    temporary: Callable[[Exception], bool],
    what: str,
    budget: float = BUDGET,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> T:
    """Call until it works, as long as its failures are temporary.

    Args:
        call: what to do; it may be repeated.
        temporary: says whether a failure will go away by itself.
        what: the server's name for the message.
        budget: seconds after which no new try is made.

    Raises:
        Unavailable: the budget is used up.
        Exception: what `call` raised, where that is not temporary.
    """
    end, pause = clock() + budget, 0.2
    while True:
        try:
            return call()
        except Exception as error:
            if not temporary(error):
                raise
            if clock() + pause > end:
                reason = str(error).strip() or type(error).__name__
                raise Unavailable(f"{what} does not answer: {reason.splitlines()[0]}") from error
        sleep(pause)
        pause = min(2 * pause, 3.0)
