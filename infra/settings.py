"""Settings: flag > environment > .env > default, read once; each value knows where it came from."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from infra import catalog
from infra.errors import PlatformError

ROOT = Path(__file__).resolve().parent.parent
"""The checkout."""

ENV_FILE = ".env"
_PREFIX = "PLATFORM_"
_RIG = "PLATFORM_RIG_"  # for tests alone
# Variables with our prefix that are not settings: set by us for child processes, or read by the scripts.
_RESERVED = frozenset({"PLATFORM_PYTHON", "PLATFORM_TEST_TIER", "PLATFORM_REQUIRE"})
_COUNT = range(20, 10_001)
_BAD_IN_URL = frozenset(" \t\r\n\0")
_BAD_IN_ACCESS_KEY = frozenset(",/=:")
_ACCESS_KEYS = ("MINIO_ROOT_USER", *(f"{prefix}_ACCESS_KEY" for prefix in catalog.EXTERNAL_STORES.values()))
_ENDPOINTS = tuple(f"{prefix}_ENDPOINT" for prefix in catalog.EXTERNAL_STORES.values())
_STACK_NAME = re.compile(r"([a-z0-9][a-z0-9_-]{0,40})?")


@dataclass(frozen=True)
class Value:
    """A setting's text and where it came from: default, environment, `.env line N`, or the flag."""

    text: str
    origin: str


@dataclass(frozen=True)
class Settings:
    """All settings of one run."""

    values: Mapping[str, Value]
    root: Path = ROOT

    def text(self, name: str) -> str:
        """Return the value as text."""
        return self.values[name].text

    def words(self, name: str) -> tuple[str, ...]:
        """Return the value of a setting that lists words with commas between; () where it is empty."""
        return words(self.text(name))

    def port(self, name: str) -> int:
        """Return the value of a port setting."""
        return int(self.values[name].text)

    def origin(self, name: str) -> str:
        """Where the value came from."""
        return self.values[name].origin

    @property
    def state_dir(self) -> Path:
        """The directory that holds data, logs and state of this checkout's stack (absolute)."""
        chosen = self.text("PLATFORM_STATE_DIR")
        return (self.root / Path(chosen).expanduser()).resolve() if chosen else self.root / ".platform"

    def origins(self) -> tuple[str, ...]:
        """Return the web pages that may use the object stores, e.g. http://127.0.0.1:8888."""
        return tuple(word.rstrip("/") for word in self.words("PLATFORM_S3_ORIGINS"))

    def secrets(self) -> tuple[str, ...]:
        """Return the values that must not be shown: passwords that are not empty."""
        named = (n for n, s in catalog.SETTINGS.items() if s.kind == "secret")
        return tuple(sorted({self.text(n) for n in named} - {""}, key=len, reverse=True))


def words(text: str) -> tuple[str, ...]:
    """Split a text at its commas; blanks around them and empty ones are dropped."""
    return tuple(word.strip() for word in text.split(",") if word.strip())


def load(
    root: Path = ROOT,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, str] | None = None,
) -> Settings:
    """Read all settings.

    Args:
        root: the checkout; its `.env` is read when there is one.
        environ: the environment (default: the process's).
        flags: settings given on the command line; empty values count as not given.

    Raises:
        PlatformError: SETTINGS_UNREADABLE, SETTING_UNKNOWN or SETTING_INVALID, naming file and line.
    """
    environ = os.environ if environ is None else environ
    values = {name: Value(s.default, "default") for name, s in catalog.SETTINGS.items()}
    values |= _from_file(root / ENV_FILE)
    values |= _from_environment(environ)
    values |= {n: Value(v, "the command line") for n, v in (flags or {}).items() if v}
    for name, value in values.items():
        _check(catalog.SETTINGS[name], value)
    _check_ports_differ(values)
    return Settings(values, root)


def with_values(settings: Settings, values: Mapping[str, str], origin: str) -> Settings:
    """Return the settings with some of them set. Raises PlatformError SETTING_INVALID."""
    given = {n: Value(v, origin) for n, v in values.items()}
    for name, value in given.items():
        _check(catalog.SETTINGS[name], value)
    return Settings({**settings.values, **given}, settings.root)


def with_remembered(settings: Settings, values: Mapping[str, str], where: str) -> Settings:
    """Return the settings with what an earlier run has decided, for those that the user has not set.

    Args:
        values: what was remembered, e.g. ports that --auto-ports has moved.
        where: the file it comes from, for people.

    Raises:
        PlatformError: SETTING_INVALID when it does not go with what the user has set since.
    """
    ours = {n: Value(str(v), f"an earlier run, saved in {where}") for n, v in values.items() if n in catalog.SETTINGS}
    merged = {n: ours.get(n, v) if v.origin == "default" else v for n, v in settings.values.items()}
    for name in ours:
        _check(catalog.SETTINGS[name], merged[name])
    _check_ports_differ(merged)
    return Settings(merged, settings.root)


def _from_environment(environ: Mapping[str, str]) -> dict[str, Value]:
    ours = {n for n in environ if n.startswith(_PREFIX) and not n.startswith(_RIG)} - _RESERVED
    for name in sorted(ours - set(catalog.SETTINGS)):
        raise _unknown(name, "the environment")
    return {n: Value(environ[n], "the environment") for n in catalog.SETTINGS if n in environ}


def _from_file(path: Path) -> dict[str, Value]:
    text = _read(path)
    if text is None:
        return {}
    found: dict[str, Value] = {}
    for name, value, line in _bindings(text, path):
        origin = f"{path}, line {line}"
        if name not in catalog.SETTINGS:
            raise _unknown(name, origin)
        found[name] = Value(value, origin)
    return found


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise PlatformError(
            "SETTINGS_UNREADABLE",
            f"{path} cannot be read",
            why=str(error),
            steps=(f"make {path.name} a readable UTF-8 text file, or remove it",),
        ) from error


def _bindings(text: str, path: Path) -> Iterable[tuple[str, str, int]]:
    import io

    from dotenv.parser import parse_stream

    for binding in parse_stream(io.StringIO(text)):
        blank = binding.original.string[: len(binding.original.string) - len(binding.original.string.lstrip())]
        line = binding.original.line + blank.count("\n")
        if binding.error or (binding.key and binding.value is None):
            raise PlatformError(
                "SETTINGS_UNREADABLE",
                f"{path}, line {line} is not NAME=value",
                why=_beginning(binding.original.string),
                steps=("write NAME=value, one per line; all names are in .env.example",),
            )
        if binding.key:
            yield binding.key, binding.value or "", line


def _beginning(line: str) -> str:
    """Which setting a line seems to mean; nothing else of it is shown, since it may hold a password."""
    found = re.match(r"\s*(?:export\s+)?(\w+)", line)
    return f"it starts with {found[1]}" if found and found[1] in catalog.SETTINGS else ""


def _unknown(name: str, origin: str) -> PlatformError:
    if name in catalog.CONTRACT_NAMES:
        return PlatformError(
            "SETTING_UNKNOWN",
            f"{name} (from {origin}) is an output of `invoke env`, not a setting",
            steps=("set the port or password it is built from, e.g. POSTGRES_PORT", "invoke env"),
        )
    near = difflib.get_close_matches(name, catalog.SETTINGS, n=1, cutoff=0.6)
    hint = (f"did you mean {near[0]}?",) if near else ()
    return PlatformError(
        "SETTING_UNKNOWN",
        f"unknown setting {name} (from {origin})",
        steps=(*hint, "all names are in .env.example"),
    )


def _check(setting: catalog.Setting, value: Value) -> None:
    problem = _problem(setting, value.text)
    if problem:
        shown = "its value" if setting.kind == "secret" else repr(value.text)
        raise PlatformError(
            "SETTING_INVALID",
            f"{setting.name}: {shown} {problem}",
            why=f"it comes from {value.origin}",
            steps=(f"set {setting.name} to another value (default: {setting.default or 'none'}), or remove it",),
        )


def _problem(setting: catalog.Setting, text: str) -> str:
    if setting.kind == "port":
        digits = text.isascii() and text.isdigit() and len(text) <= 5
        last = 65536 - setting.span
        return "" if digits and 1 <= int(text) <= last else f"is not a port (1 to {last})"
    if setting.kind == "count":
        digits = text.isascii() and text.isdigit() and len(text) <= 5
        return "" if digits and int(text) in _COUNT else f"is not a number from {_COUNT[0]} to {_COUNT[-1]}"
    if setting.kind == "choice":
        return "" if text in ("", *setting.choices) else f"must be one of: {', '.join(setting.choices)}"
    if setting.kind == "list":
        unknown = [word for word in words(text) if word not in setting.choices]
        return f"contains {unknown[0]!r}; allowed: {', '.join(setting.choices)}" if unknown else ""
    if setting.kind == "origins":
        wrong = [word for word in words(text) if not (_is_address(word) and "*" not in word)]
        return f"names {wrong[0]!r}: http:// or https://, a host, perhaps a port, nothing else" if wrong else ""
    return _text_problem(setting, text)


def _text_problem(setting: catalog.Setting, text: str) -> str:
    if {"\0", "\n", "\r"} & set(text):
        return "contains a line break"
    if any("\ud800" <= c <= "\udfff" for c in text):
        return "is not UTF-8"
    if setting.kind in ("path", "program") and _unknown_home(text):
        return "refers to the home of a user who does not exist"
    if setting.name == "PLATFORM_STACK" and not _STACK_NAME.fullmatch(text):
        return (
            "is not a valid Compose project name: lower-case letters, digits, - and _, starting with a letter or digit"
        )
    if setting.name in _ACCESS_KEYS and (not text.isascii() or _BAD_IN_ACCESS_KEY & set(text)):
        return "contains a character that S3 signatures cannot carry: use ASCII without , / = :"
    if setting.name in _ENDPOINTS and text and not _is_address(text):
        return "is not the address of an S3 service: http:// or https://, a host, an optional port, and no path"
    if setting.name == "MINIO_ROOT_PASSWORD" and len(text) < 8:
        return "is shorter than the 8 characters that object stores require"
    if setting.name == "MINIO_ROOT_PASSWORD" and text != text.strip():
        return "starts or ends with a space, which object stores strip"
    if setting.name == "MINIO_ROOT_USER" and len(text) < 3:
        return "is shorter than the 3 characters that object stores require"
    if setting.name == "MINIO_ROOT_PASSWORD" and "," in text:
        return "contains a comma, which rclone treats as the end of the key"
    if setting.kind in ("text", "secret") and setting.default and not text and not setting.empty:
        return "is empty"
    if setting.kind == "text" and _BAD_IN_URL & set(text):
        return "contains a space"
    return ""


def _is_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        port = parts.port != 0
    except ValueError:
        return False
    plain = not parts.query and not parts.fragment and "@" not in parts.netloc and parts.path in ("", "/")
    return parts.scheme in ("http", "https") and bool(parts.hostname) and port and plain


def _unknown_home(text: str) -> bool:
    try:
        Path(text).expanduser()
    except RuntimeError:
        return True
    return False


def _check_ports_differ(values: Mapping[str, Value]) -> None:
    seen: dict[int, str] = {}
    for name, setting in catalog.SETTINGS.items():
        if setting.kind != "port":
            continue
        first = int(values[name].text)
        taken = next((n for n in range(first, first + setting.span) if n in seen), None)
        if taken is not None:
            raise _same_port(name, seen[taken], taken, values)
        seen |= dict.fromkeys(range(first, first + setting.span), name)


def _same_port(name: str, other: str, number: int, values: Mapping[str, Value]) -> PlatformError:
    both = f"are both {number}" if catalog.SETTINGS[name].span == catalog.SETTINGS[other].span else f"share {number}"
    return PlatformError(
        "SETTING_INVALID",
        f"{name} and {other} {both}",
        why=f"{name} comes from {values[name].origin}, {other} from {values[other].origin}",
        steps=(f"give one of them another port, e.g. {name}={number + 1}",),
    )
