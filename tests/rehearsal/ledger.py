"""Writers that keep a ledger: each id is noted on this machine once the server has acknowledged its commit."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import TracebackType

import psycopg

CONNECTIONS = 4
TABLE = "ledger"
PAUSE = 0.02
"""Seconds between two rows of a writer: enough load to notice a gap, little enough for two cores."""


@dataclass
class Ledger:
    """Writers at work, from `with` to its end; ids and moments of what was acknowledged."""

    url: str
    acknowledged: set[int] = field(default_factory=set)
    moments: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    _ids: Iterator[int] = field(default_factory=itertools.count)
    _end: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Ledger:
        """Start the writers, and wait for the first row of each."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(f"create table if not exists {TABLE} (id bigint primary key)")
            row = connection.execute(f"select coalesce(max(id), 0) from {TABLE}").fetchone()
        self._ids = itertools.count(int(row[0]) + 1 if row else 1)
        self._threads = [threading.Thread(target=self._write, daemon=True) for _ in range(CONNECTIONS)]
        for thread in self._threads:
            thread.start()
        self.wait_for(CONNECTIONS * 10, 60)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the writers."""
        self._end.set()
        for thread in self._threads:
            thread.join(30)

    def wait_for(self, more: int, seconds: float) -> None:
        """Wait until so many more rows are acknowledged.

        Raises:
            AssertionError: they were not in time.
        """
        wanted, end = len(self.moments) + more, time.monotonic() + seconds
        while len(self.moments) < wanted:
            assert time.monotonic() < end, f"no {more} rows in {seconds:.0f} s; {self.errors[-3:]}"
            time.sleep(0.1)

    def lost(self) -> set[int]:
        """The acknowledged ids that the server does not have."""
        with psycopg.connect(self.url) as connection:
            there = {int(row[0]) for row in connection.execute(f"select id from {TABLE}")}
        return self.acknowledged - there

    def longest_gap(self) -> float:
        """The longest time in which nothing was acknowledged, in seconds."""
        moments = sorted(self.moments)
        return max((b - a for a, b in itertools.pairwise(moments)), default=0.0)

    def _write(self) -> None:
        while not self._end.is_set():
            try:
                with self._connected() as connection:
                    self._rows(connection)
            except psycopg.Error as error:  # it is unknown whether that id is there: it is not in the ledger
                self.errors.append(" ".join(str(error).split())[:200])
                time.sleep(0.3)

    def _rows(self, connection: psycopg.Connection) -> None:
        while not self._end.is_set():
            number = next(self._ids)  # never an id twice: a repeated one would be refused, and look like a gap
            connection.execute(f"insert into {TABLE} values (%s)", (number,))
            self.acknowledged.add(number)
            self.moments.append(time.monotonic())
            time.sleep(PAUSE)

    @contextlib.contextmanager
    def _connected(self) -> Iterator[psycopg.Connection]:
        limits = {"connect_timeout": 3, "tcp_user_timeout": 4000, "keepalives_idle": 2, "keepalives_interval": 2}
        with psycopg.connect(self.url, autocommit=True, **limits) as connection:  # type: ignore[arg-type]
            yield connection
