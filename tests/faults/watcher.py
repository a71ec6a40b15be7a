"""Looking at the commands of all processes while something is done."""

from __future__ import annotations

import threading

import psutil


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
