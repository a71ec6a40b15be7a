"""Locks of GPUs: a training that asks for some (`--gpus`) shares them with no other one of this stack."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from infra import private
from infra.locks import try_lock

PAUSE = 0.5
"""Seconds between tries to get devices that other trainings have."""


@contextlib.contextmanager
def held(found: Sequence[str], wanted: int, directory: Path, waits: Callable[[], object]) -> Iterator[list[str]]:
    """Hold `wanted` of these devices, as soon as so many are free; the kernel frees those of a process that dies.

    Args:
        found: the devices that the training may use, at least `wanted`.
        wanted: how many.
        directory: where the locks are files.
        waits: called while too few are free; what it raises ends the wait.

    Raises:
        OSError: the directory cannot be written.
    """
    private.directory(directory)
    with contextlib.ExitStack() as locks:
        while len(mine := _taken(found, wanted, directory, locks)) < wanted:
            locks.close()  # all or none: two that hold half of what they want would wait for each other
            waits()
            time.sleep(PAUSE)
        yield mine


def _taken(found: Sequence[str], wanted: int, directory: Path, locks: contextlib.ExitStack) -> list[str]:
    mine: list[str] = []
    for device in found:
        if len(mine) < wanted:
            name = re.sub(r"[^\w-]", "_", device)
            file = locks.enter_context(private.appending(directory / f"{name}.lock"))
            mine += [device] if try_lock(file) else []
    return mine
