"""The content of a table as two numbers: its rows, and a digest of the COPY text that pg_dump writes.

pg_dump reads it in the exported snapshot under settings of its own (ISO dates, shortest exact floats, one encoding),
so the text of a restored copy is the same on another server. Digest: XXH3-128, which costs a tenth of the
compression; against tampering stands the SHA-256 of every file, not this.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from infra.data.postgres.growing import CHUNK, read_once

_TRAILER = b"\\.\n\n\n"  # the end mark that pg_dump puts behind the rows of a table


@dataclass(frozen=True)
class Content:
    """Rows, bytes of COPY text and digest of a table (for a large object: rows is 0).

    `whole` says that the end mark behind the rows was there.
    """

    rows: int
    size: int
    digest: str
    whole: bool = field(default=True, compare=False)


@dataclass
class Meter:
    """Counts and digests COPY text as it passes; the end mark is left out, it belongs to pg_dump's version."""

    rows: int = 0
    size: int = 0
    tail: bytes = b""
    hash: Any = field(default_factory=lambda: _hash())
    mask: Any = None

    def feed(self, chunk: bytes | memoryview) -> None:
        """Take in the next bytes; they are not kept, so the buffer may be used again."""
        keep = len(_TRAILER)
        if len(chunk) < keep:
            chunk = self.tail + bytes(chunk)
            self.tail = b""
        view = memoryview(chunk)
        cut = max(0, len(view) - keep)
        self._count(memoryview(self.tail))
        self._count(view[:cut])
        self.tail = bytes(view[cut:])

    def _count(self, part: memoryview) -> None:
        import numpy

        if not part:
            return
        self.hash.update(part)
        self.size += len(part)
        if self.mask is None or len(self.mask) < len(part):
            # Made once: new memory costs more than the rest.
            self.mask = numpy.empty(max(CHUNK, len(part)), numpy.bool_)
        ends = self.mask[: len(part)]
        numpy.equal(numpy.frombuffer(part, numpy.uint8), ord("\n"), out=ends)
        self.rows += int(numpy.count_nonzero(ends))

    def content(self, table: bool = True) -> Content:
        """Return the figures of what has passed."""
        whole = self.tail == _TRAILER
        if not table or not whole:
            self._count(memoryview(self.tail))
        self.tail = b""
        return Content(self.rows if table else 0, self.size, str(self.hash.hexdigest()), whole)


def _hash() -> Any:
    import xxhash

    return xxhash.xxh3_128()


def is_table(path: Path) -> bool:
    """Return whether a file of an archive holds rows (and not a large object)."""
    return not path.name.startswith("blob")


class Sink(Protocol):
    """A receiver of bytes."""

    def write(self, chunk: bytes, /) -> int:
        """Take them."""


def measure(source: Path, is_growing: Callable[[], bool], *sinks: Sink) -> Content:
    """Measure a file of an archive while it grows, and pass it on to `sinks`; what has been read of it is freed."""
    meter = Meter()
    with read_once(source, is_growing) as parts:
        for chunk in parts:
            meter.feed(chunk)
            for sink in sinks:
                sink.write(bytes(chunk))
    return meter.content(is_table(source))


@dataclass
class Rows:
    """A sink for COPY text that looks at each row: slower, but the same for the same rows in another order.

    `columns` puts the fields of a row into the order in which another table has them.
    """

    columns: tuple[int, ...] = ()

    number: int = 0
    total: int = 0
    begun: bytes = b""

    @property
    def sum(self) -> tuple[int, int]:
        """Rows, and the sum of their digests."""
        return self.number, self.total

    def write(self, chunk: bytes, /) -> int:
        """Take the next bytes; a row that is not complete waits for its end."""
        import xxhash

        *rows, self.begun = (self.begun + chunk).split(b"\n")
        self.number += len(rows)
        if self.columns:
            rows = [self._arranged(row) for row in rows]
        self.total += sum(map(xxhash.xxh3_64_intdigest, rows))
        return len(chunk)

    def _arranged(self, row: bytes) -> bytes:
        fields = row.split(b"\t")
        return b"\t".join(fields[n] for n in self.columns) if len(fields) == len(self.columns) else row
