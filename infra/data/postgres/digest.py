"""The content of a table as two numbers: its rows, and a digest of the COPY text that pg_dump writes.

pg_dump reads it in the exported snapshot under settings of its own (ISO dates, shortest exact floats, one encoding),
so the text of a restored copy is the same on another server. Digest: XXH3-128, which costs a tenth of the
compression; against tampering stands the SHA-256 of every file, not this.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from typing import IO, Any, Protocol, cast

from infra import private
from infra.data import page_cache
from infra.data.store import File

CHUNK = 1 << 18
"""Bytes to process at once: what one step has read stays in the processor's cache for the next."""
LEVEL = 1
"""Level of zstd: the fastest; a dump is then limited by the server, not by compression."""
PAUSE = 0.01
SUFFIX = ".zst"
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


def chunks(source: FileIO, growing: Callable[[], bool], done: Callable[[int], None]) -> Iterator[memoryview]:
    """Yield the bytes of a file that is still being written, until it is complete; the next ones replace them.

    `done` gets the position up to which they have been processed.
    """
    buffer, position = memoryview(bytearray(CHUNK)), 0
    while True:
        more = growing()
        while size := source.readinto(buffer):
            yield buffer[:size]
            position += size
            done(position)
        if not more:
            return
        time.sleep(PAUSE)


@contextlib.contextmanager
def read_once(source: Path, growing: Callable[[], bool]) -> Iterator[Iterator[memoryview]]:
    """Read a file of an archive while it grows; what has been read of it is freed."""
    with page_cache.opened(source) as raw:
        yield chunks(raw, growing, page_cache.Passing(raw).read_to)


def pack(source: Path, target: Path, name: str, growing: Callable[[], bool]) -> tuple[File, Content]:
    """Compress a file of an archive while it grows; returns the packed file (synced) and what it holds.

    What has been read of the file is gone.
    """
    import zstandard

    meter, sha256 = Meter(), hashlib.sha256()
    squeeze = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True).compressobj()
    size = 0
    with read_once(source, growing) as parts, os.fdopen(private.new_file(target), "wb") as packed:
        for chunk in _compressed(parts, meter, squeeze):
            packed.write(chunk)
            sha256.update(chunk)
            size += len(chunk)
        packed.flush()
        os.fsync(packed.fileno())
    return File(name, size, sha256.hexdigest()), meter.content(is_table(source))


def _compressed(parts: Iterator[memoryview], meter: Meter, squeeze: Any) -> Iterator[bytes]:
    for part in parts:
        meter.feed(part)
        yield squeeze.compress(part)
    yield squeeze.flush()


class Sink(Protocol):
    """A receiver of bytes."""

    def write(self, chunk: bytes, /) -> int:
        """Take them."""


def copy(descriptor: int, target: Sink, packed: bool) -> int:
    """Copy an open file (closed here), decompressed where it is packed; returns the bytes written.

    Raises:
        ValueError: the compressed data is damaged or ends too early.
    """
    import zstandard

    with os.fdopen(descriptor, "rb") as source:
        if not packed:
            return sum(target.write(chunk) for chunk in iter(lambda: source.read(CHUNK), b""))
        try:
            _, size = zstandard.ZstdDecompressor().copy_stream(source, cast(IO[bytes], target), write_size=CHUNK)
        except zstandard.ZstdError as error:
            raise ValueError(str(error)) from error
    return int(size)


def unpack(descriptor: int, target: Path) -> int:
    """Decompress an open file (closed here) into a new private one; returns its bytes.

    Raises:
        ValueError: the compressed data is damaged or ends too early.
    """
    with os.fdopen(private.new_file(target), "wb") as raw:
        return copy(descriptor, raw, packed=True)


def measure(source: Path, growing: Callable[[], bool], *sinks: Sink) -> Content:
    """Measure a file of an archive while it grows, and pass it on to `sinks`; what has been read of it is freed."""
    meter = Meter()
    with read_once(source, growing) as parts:
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
