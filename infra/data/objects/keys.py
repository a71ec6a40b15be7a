"""Rules for keys that may become files of a plain tree, with reasons for those that may not.

S3 keys are arbitrary text; paths are not. A key that would leave the tree, or fall together with another one, is
refused by name and never written under a changed name.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

PART = ".part-"
"""Prefix of files that are being written; keys with it are refused, files with it are not objects."""
LONGEST = 255
"""Bytes of one name that common file systems take."""
_RESERVED = {"con", "prn", "aux", "nul", *(f"{n}{i}" for n in ("com", "lpt") for i in "123456789¹²³")}
_WINDOWS_BAD = frozenset('<>:"|?*')

Fold = Callable[[str], str]
"""The way a file system compares names."""


def exact(name: str) -> str:
    """Return the name as it is: every name differs from every other one."""
    return name


def case_folded(name: str) -> str:
    """Fold a name so that `File` and `file` are one."""
    return unicodedata.normalize("NFC", name).casefold()


def composed(name: str) -> str:
    """Normalise accents: the two ways of writing é are one."""
    return unicodedata.normalize("NFC", name)


def problem(key: str, portable: bool = True) -> str:
    """Tell why a key cannot be a path below a directory, on this system or (`portable`) on any; '' when it can."""
    if key.startswith("/"):
        return "starts with /: an absolute path"
    if key.endswith("/"):
        return "ends with /: a directory cannot hold content"
    if portable and "\\" in key:
        return "contains a backslash, which separates directories on Windows"
    if any("\ud800" <= c <= "\udfff" for c in key):
        return "is not UTF-8"
    return next((found for name in key.split("/") if (found := _name_problem(name, portable))), "")


def _name_problem(name: str, portable: bool) -> str:
    if name in (".", ".."):
        return f"contains the part {name}, which leads to another place"
    if not name:
        return "contains two consecutive slashes"
    if name.startswith(PART):
        return f"contains a part that starts with {PART}, which is reserved for files being written"
    if any(ord(c) < 32 or c == "\x7f" for c in name):
        return "contains a control character"
    if portable and (found := _windows_problem(name)):
        return found
    return "contains a part of more than 255 bytes" if too_long(name) else ""


def too_long(key: str) -> bool:
    """Tell whether a part of a key is longer than any file's name."""
    return any(len(part.encode("utf-8", "surrogatepass")) > LONGEST for part in key.split("/"))


def _windows_problem(name: str) -> str:
    if _WINDOWS_BAD & set(name):
        return "contains a character that Windows does not allow in names"
    if name.split(".")[0].rstrip(" ").casefold() in _RESERVED:
        return "contains a name that is reserved on Windows"
    if name[-1] in ". ":
        return "contains a part that ends with a dot or a space, which Windows strips"
    return ""


def _digest(path: str) -> bytes:
    return hashlib.blake2b(path.encode("utf-8", "surrogateescape"), digest_size=12).digest()


@dataclass
class Sieve:
    """Finds keys that would fall together; keeps 12 bytes of each path, so that 100,000 keys need little memory."""

    fold: Fold = exact
    portable: bool = True
    _files: dict[bytes, int] = field(default_factory=dict)
    _directories: dict[bytes, bytes] = field(default_factory=dict)
    _split: set[bytes] = field(default_factory=set)

    def add(self, key: str) -> None:
        """Take note of a key (all of them, before the first question)."""
        if problem(key, self.portable):
            return
        name = _digest(self.fold(key))
        self._files[name] = self._files.get(name, 0) + 1
        for path in _above(key):
            folded, verbatim = _digest(self.fold(path)), _digest(path)
            if self._directories.setdefault(folded, verbatim) != verbatim:
                self._split.add(folded)

    def problem(self, key: str) -> str:
        """Tell why a key is refused; '' when it may be written."""
        if found := problem(key, self.portable):
            return found
        name = _digest(self.fold(key))
        if name in self._directories:
            return "is also a prefix of other keys: a file cannot be a directory"
        if self._files.get(name, 0) > 1:
            return "is the same file as another key here (upper and lower case, or the way accents are written)"
        if any(_digest(self.fold(path)) in self._split for path in _above(key)):
            return "lies in a directory that is the same as another one here (upper and lower case, or accents)"
        return ""


def _above(key: str) -> Iterator[str]:
    """Yield the directories of a key."""
    at = key.find("/")
    while at >= 0:
        yield key[:at]
        at = key.find("/", at + 1)
