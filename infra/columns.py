"""Columns of text for people: how wide a text is on a terminal, and how wide each column may be."""

from __future__ import annotations

from collections.abc import Sequence

GAP = "  "
NARROWEST = 6
"""Columns are not made narrower than this many characters, whatever the terminal."""


def width(text: str) -> int:
    """Return how many cells of a terminal a text takes: two for a wide character of East Asia, none for a mark."""
    if text.isascii():
        return len(text)
    import unicodedata

    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def cut(text: str, limit: int, mark: str = "…") -> str:
    """Return the text, or as much of its beginning as fits into `limit` cells with the mark that it goes on."""
    if width(text) <= limit:
        return text
    room, kept = limit - len(mark), ""
    for character in text:
        room -= width(character)
        if room < 0:
            break
        kept += character
    return kept.rstrip() + mark


def wrapped(text: str, limit: int) -> list[str]:
    """Return the text on lines of at most `limit` cells, broken between words, and inside one that is longer."""
    lines = [""]
    for word in text.split(" "):
        joined = f"{lines[-1]} {word}" if lines[-1] else word
        if width(joined) <= limit:
            lines[-1] = joined
            continue
        lines += [""] if lines[-1] else []
        while width(word) > limit:
            lines[-1] = cut(word, limit, "")
            word = word.removeprefix(lines[-1])
            lines.append("")
        lines[-1] = word
    return lines


def row(texts: Sequence[str], widths: Sequence[int], mark: str = "…") -> str:
    """Return texts side by side in columns of these widths, cut to them."""
    cells = [cut(text, limit, mark) for text, limit in zip(texts, widths, strict=True)]
    return GAP.join(cell + " " * (limit - width(cell)) for cell, limit in zip(cells, widths, strict=True)).rstrip()


def fitting(widths: Sequence[int], room: int, keep: Sequence[int] = ()) -> list[int]:
    """Return the widths of columns side by side in `room` cells: only the widest are made narrower.

    Args:
        keep: indices of columns that give way only when the others cannot any more.
    """
    left = [min(wanted, room) for wanted in widths]
    others = [i for i in range(len(left)) if i not in keep]
    over = sum(left) + len(GAP) * (len(left) - 1) - room
    for giving in (others, range(len(left))):
        while over > 0 and max((left[i] for i in giving), default=0) > NARROWEST:
            left[max(giving, key=lambda i: left[i])] -= 1
            over -= 1
    return left
