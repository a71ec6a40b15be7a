"""Read what a program of Go says of its own build: the format of Go's package debug/buildinfo from Go 1.18 on.

Source: https://pkg.go.dev/debug/buildinfo, and buildInfoMagic in src/debug/buildinfo/buildinfo.go.
"""

from __future__ import annotations

import mmap
from pathlib import Path

_MAGIC = b"\xff Go buildinf:"
_HEADER = 32
_INLINE = 2
"""A flag in the byte after the pointers' size: both texts follow the header, each after its length."""
_FRAME = 16
"""Bytes of a marker before and after the lines about modules."""


def read(program: Path) -> dict[str, str]:
    """Return what a program was built from: go, path, mod (with version and sum), and settings such as vcs.revision.

    {} for a program that is not one of Go, or an older one.
    """
    with program.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        at = content.find(_MAGIC)
        while at >= 0 and (at % 16 or not content[at + 15] & _INLINE):
            at = content.find(_MAGIC, at + 1)
        if at < 0:
            return {}
        version, end = _text(content, at + _HEADER)
        modules, _ = _text(content, end)
    return {"go": version.decode(), **_facts(modules[_FRAME:-_FRAME].decode("utf-8", "replace"))}


def _text(content: mmap.mmap, at: int) -> tuple[bytes, int]:
    """Return the text after its length (an unsigned varint), and where it ends."""
    size, shift = 0, 0
    while True:
        byte = content[at]
        size |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if not byte & 0x80:
            return content[at : at + size], at + size


def _facts(lines: str) -> dict[str, str]:
    found = {}
    for kind, _, rest in (line.partition("\t") for line in lines.splitlines()):
        if kind in ("path", "mod"):
            found[kind] = rest.strip().replace("\t", " ")
        if kind == "build":
            name, _, value = rest.partition("=")
            found[name] = value
    return found
