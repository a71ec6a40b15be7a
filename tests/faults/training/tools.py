"""Watching a training of a real platform from outside: by the database, the object store and the process table."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import psutil
import psycopg

from infra.training import contract
from infra.training.contract import Contract
from infra.training.jobs import Job, Jobs
from infra.training.store import S3Store
from tests.faults.conftest import Victim
from tests.smoke.stage import command_line

EPOCHS = 40
"""Long enough to be hit in the middle, short enough to wait for."""
LIMIT = 300.0
"""Seconds after which a training counts as hanging; nothing is measured by it."""


@dataclass(frozen=True)
class Training:
    """A training that was started and goes on by itself."""

    victim: Victim
    id: str

    @cached_property
    def contract(self) -> Contract:
        """The `.env` contract; asked for once, since that starts a program."""
        return contract.read(self.victim.contract)

    def row(self) -> Job:
        """The job as the database knows it now; waits while PostgreSQL is away."""
        with contextlib.closing(Jobs(self.contract)) as jobs:
            found = jobs.get(self.id)
        assert found is not None
        return found

    def epochs(self) -> list[int]:
        """The epochs that have a validation accuracy."""
        with contextlib.closing(Jobs(self.contract)) as jobs:
            return [m.epoch for m in jobs.metrics(self.id) if m.name == "val_accuracy"]

    def log(self) -> str:
        """Its log."""
        path = self.victim.stack_home / "training" / "jobs" / f"{self.id}.log"
        return path.read_text(encoding="utf-8") if path.exists() else ""

    def trainers(self) -> list[psutil.Process]:
        """The processes that train it."""
        return [p for p in processes_with(self.id) if "infra.training.trainer" in command_line(p)]

    def weights_digest(self) -> str:
        """SHA-256 of the weights it has stored."""
        store = S3Store(self.contract.results)
        about = store.get("model-weights", f"{self.id}/weights.json")
        assert about is not None
        return str(json.loads(about)["sha256"])

    def until_epoch(self, epoch: int) -> None:
        """Wait until it has done an epoch."""
        until(lambda: (self.row().epoch or 0) >= epoch, f"{self.id} to reach epoch {epoch}")

    def until_log(self, words: str) -> None:
        """Wait until its log has these words."""
        until(lambda: words in self.log(), f"the log of {self.id} to have {words!r}")

    def until_final(self) -> Job:
        """Wait for its end; no two processes may train it at the same time."""

        def ended() -> bool:
            with contextlib.suppress(psutil.Error):
                assert len(self.trainers()) <= 1
            return self.row().final

        until(ended, f"{self.id} to end")
        return self.row()


def start(victim: Victim, *arguments: str) -> Training:
    """Start a training and return at once."""
    done = victim.invoke("train.run", "--detach", "--output", "name", *arguments, check=True)
    return Training(victim, done.stdout.strip())


def until(condition: Callable[[], bool], what: str, limit: float = LIMIT) -> None:
    """Wait for a condition; fails the test when it does not come."""
    end = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < end, f"waited {limit:.0f} s for {what}"
        time.sleep(0.1)


def processes_with(word: str) -> list[psutil.Process]:
    """Running processes with a word in their command line."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if any(word in part for part in process.cmdline()) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def execute(victim: Victim, sql: str, *values: object) -> None:
    """A statement on the database `platform`."""
    with psycopg.connect(victim.contract["DATABASE_URL"], autocommit=True) as connection:
        connection.execute(sql.encode(), values)
