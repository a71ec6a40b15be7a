"""Looking at the commands of all processes while something is done."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import psutil

from tests.faults.conftest import Victim
from tests.smoke.stage import stage


class Watcher(threading.Thread):
    """Looks at the command of every process of the machine, again and again."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.done = threading.Event()
        self.seen: set[str] = set()

    def run(self) -> None:
        while not self.done.wait(0.02):
            self.look()

    def look(self) -> None:
        for process in psutil.process_iter():
            try:
                self.seen.add("\0".join(process.cmdline()))
            except psutil.Error:
                continue


@contextmanager
def guarded_start(tier: str, logins: Mapping[str, str], *options: str) -> Iterator[tuple[Victim, Watcher, str]]:
    """A platform with these passwords, all commands that were seen during its start, and what `up` said."""
    watcher = Watcher()
    with stage(tier, **logins) as made:
        victim = Victim(made)
        watcher.start()
        try:
            done = victim.up(*options)
        finally:
            watcher.done.set()
            watcher.join()
        yield victim, watcher, done.stdout + done.stderr
