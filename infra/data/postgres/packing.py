"""Compression of the files of a backup: its kind, level and suffix, and the way in and out of it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, cast

from infra import private
from infra.data.postgres.digest import Content, Meter, Sink, is_table
from infra.data.postgres.growing import CHUNK, read_once
from infra.data.store import File

_LEVEL = 1
_SUFFIX = ".zst"
KIND = f"zstd:{_LEVEL}"
"""Name in a manifest. The fastest level: a dump is then limited by the server, not by compression."""


def packed_name(name: str) -> str:
    """Return the name of a file when it is compressed."""
    return name + _SUFFIX


def plain_name(name: str) -> str:
    """Return the name of a file when it is not compressed."""
    return name.removesuffix(_SUFFIX)


def is_packed(name: str) -> bool:
    """Return whether a file of that name is compressed."""
    return name.endswith(_SUFFIX)


def pack(source: Path, target: Path, name: str, is_growing: Callable[[], bool]) -> tuple[File, Content]:
    """Compress a file of an archive while it grows; returns the packed file (synced) and what it holds.

    What has been read of the file is gone.
    """
    import zstandard

    meter, sha256 = Meter(), hashlib.sha256()
    squeeze = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True).compressobj()
    size = 0
    with read_once(source, is_growing) as parts, os.fdopen(private.new_file(target), "wb") as packed:
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
