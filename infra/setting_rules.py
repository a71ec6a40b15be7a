"""Rules for values of settings: by the kind of a setting, and by the names that its row lists."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from infra.rows import Setting

COUNT = range(20, 10_001)
_BAD_IN_URL = frozenset(" \t\r\n\0")
_BAD_IN_ACCESS_KEY = frozenset(",/=:")
_STACK_NAME = re.compile(r"([a-z0-9][a-z0-9_-]{0,40})?")


def words(text: str) -> tuple[str, ...]:
    """Split a text at its commas; blanks around the words and empty ones are dropped."""
    return tuple(word.strip() for word in text.split(",") if word.strip())


def problem(setting: Setting, text: str) -> str:
    """Return what is wrong with a value, as the end of a sentence that begins with it; '' where nothing is."""
    by_kind = _KINDS.get(setting.kind)
    return by_kind(setting, text) if by_kind else _of_text(setting, text)


def _port(setting: Setting, text: str) -> str:
    last = 65535 - max(setting.ports(0))
    return "" if _digits(text) and 1 <= int(text) <= last else f"is not a port (1 to {last})"


def _count(_setting: Setting, text: str) -> str:
    return "" if _digits(text) and int(text) in COUNT else f"is not a number from {COUNT[0]} to {COUNT[-1]}"


def _digits(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 5


def _choice(setting: Setting, text: str) -> str:
    return "" if text in ("", *setting.choices) else f"must be one of: {', '.join(setting.choices)}"


def _list(setting: Setting, text: str) -> str:
    unknown = [word for word in words(text) if word not in setting.choices]
    return f"contains {unknown[0]!r}; allowed: {', '.join(setting.choices)}" if unknown else ""


def _origins(_setting: Setting, text: str) -> str:
    wrong = [word for word in words(text) if not (_is_address(word) and "*" not in word)]
    return f"names {wrong[0]!r}: http:// or https://, a host, perhaps a port, nothing else" if wrong else ""


_KINDS: Mapping[str, Callable[[Setting, str], str]] = {
    "port": _port,
    "count": _count,
    "choice": _choice,
    "list": _list,
    "origins": _origins,
}
"""By kind of setting; the other kinds are texts."""


def _of_text(setting: Setting, text: str) -> str:
    if {"\0", "\n", "\r"} & set(text):
        return "contains a line break"
    if any("\ud800" <= c <= "\udfff" for c in text):
        return "is not UTF-8"
    if setting.kind in ("path", "program") and _unknown_home(text):
        return "refers to the home of a user who does not exist"
    for rule in setting.check:
        broken, says = RULES[rule]
        if broken(text):
            return says
    if setting.kind in ("text", "secret") and setting.default and not text and not setting.empty:
        return "is empty"
    if setting.kind == "text" and _BAD_IN_URL & set(text):
        return "contains a space"
    return ""


RULES: Mapping[str, tuple[Callable[[str], bool], str]] = {
    "compose project": (
        lambda text: not _STACK_NAME.fullmatch(text),
        "is not a valid Compose project name: lower-case letters, digits, - and _, starting with a letter or digit",
    ),
    "access key": (
        lambda text: not text.isascii() or bool(_BAD_IN_ACCESS_KEY & set(text)),
        "contains a character that S3 signatures cannot carry: use ASCII without , / = :",
    ),
    "address": (
        lambda text: bool(text) and not _is_address(text),
        "is not the address of an S3 service: http:// or https://, a host, an optional port, and no path",
    ),
    "3 characters": (
        lambda text: len(text) < 3,
        "is shorter than the 3 characters that object stores require",
    ),
    "8 characters": (
        lambda text: len(text) < 8,
        "is shorter than the 8 characters that object stores require",
    ),
    "empty or 12 characters": (
        lambda text: 0 < len(text) < 12,
        "is shorter than the 12 characters that MLflow requires",
    ),
    "no blank ends": (
        lambda text: text != text.strip(),
        "starts or ends with a space, which object stores strip",
    ),
    "no comma": (
        lambda text: "," in text,
        "contains a comma, which rclone treats as the end of the key",
    ),
    "command or webhook": (
        lambda text: bool(text) and not (is_webhook(text) or _is_command(text)),
        "is neither the address of a webhook (http:// or https://, a host) nor a program with its arguments",
    ),
}
"""Rules for a value that a row of the catalogue may name (`Setting.check`): when it is broken, and how that is said."""


def _http(text: str) -> SplitResult | None:
    """Split an http or https address with a host; None for anything else."""
    try:
        parts = urlsplit(text)
        whole = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return None
    return parts if whole else None


def _is_address(text: str) -> bool:
    parts = _http(text)
    if parts is None or parts.query or parts.fragment:
        return False
    return "@" not in parts.netloc and parts.path in ("", "/")


def is_webhook(text: str) -> bool:
    """Return whether a text is an http or https address with a host, whatever its path and query."""
    return _http(text) is not None and not _BAD_IN_URL & set(text)


def _is_command(text: str) -> bool:
    try:
        found = shlex.split(text, posix=sys.platform != "win32")
    except ValueError:
        return False
    return bool(found and found[0]) and "://" not in found[0]


def _unknown_home(text: str) -> bool:
    try:
        Path(text).expanduser()
    except RuntimeError:
        return True
    return False
