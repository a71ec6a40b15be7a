"""Text that may reach a terminal: that of programs, servers and files cannot move the cursor, set a title or hide."""

from __future__ import annotations

import re

_STYLE = re.compile(r"\x1b\[([0-9;:]*)m")
OURS = frozenset({"", "0", "1", "2", "31", "32", "33"})
"""Codes of the styles that this tool uses itself."""
# Control characters (of both sets), halves of characters, and what turns the direction of writing round.
_HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(text: str, styled: bool = False) -> str:
    r"""Make what controls a terminal visible, as `\u001b`, which is also how JSON writes it.

    Args:
        text: one line or several.
        styled: whether our own styles stay; other colours are left out in any case.
    """
    if text.isascii() and text.isprintable():
        return text
    lines = (line.removesuffix("\r") for line in text.split("\n"))
    return "\n".join(_visible_line(line, styled) for line in lines)


def _visible_line(line: str, styled: bool) -> str:
    if not styled:
        return _HIDDEN.sub(_escaped, _STYLE.sub("", line))
    # Between two of our own styles there is text.
    parts = re.split(r"(\x1b\[[0-9;:]*m)", line)
    return "".join(_style(part) if number % 2 else _HIDDEN.sub(_escaped, part) for number, part in enumerate(parts))


def _style(sequence: str) -> str:
    return sequence if sequence[2:-1] in OURS else ""


def _escaped(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"
