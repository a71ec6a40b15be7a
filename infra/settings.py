"""Settings: flag > environment > .env > default, read once; each value knows where it came from."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from infra import catalog, rows, setting_rules
from infra.errors import PlatformError, nearest
from infra.setting_rules import words

ROOT = Path(__file__).resolve().parent.parent
"""The checkout."""

ENV_FILE = ".env"
_PREFIX = "PLATFORM_"
_RIG = "PLATFORM_RIG_"  # for tests alone
# Variables with our prefix that are not settings: set by us for child processes, or read by the scripts.
_RESERVED = frozenset({"PLATFORM_HOME", "PLATFORM_PYTHON", "PLATFORM_TEST_TIER", "PLATFORM_REQUIRE"})
ENVIRONMENT, COMMAND_LINE = "the environment", "the command line"
"""Origins: what the shell has set, what an option says."""
_OPTIONS = {"PLATFORM_TIER": "--tier"}
"""Setting -> the option that sets it for one run."""


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

    @property
    def light(self) -> bool:
        """Return true when Temporal's development server is used instead of the full one."""
        return self.text("PLATFORM_LIGHT") == "yes"

    def port(self, name: str) -> int:
        """Return the value of a port setting."""
        return int(self.values[name].text)

    def origin(self, name: str) -> str:
        """Return where the value came from."""
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
    values |= {n: Value(v, COMMAND_LINE) for n, v in (flags or {}).items() if v}
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


def remembered_origin(where: object) -> str:
    """Return the origin of a setting that an earlier run decided and saved in that file."""
    return f"an earlier run, saved in {where}"


def with_remembered(settings: Settings, values: Mapping[str, str], where: str) -> Settings:
    """Return the settings with what an earlier run has decided, for those that the user has not set.

    Args:
        values: what was remembered, e.g. ports that --auto-ports has moved.
        where: the file it comes from, for people.

    Raises:
        PlatformError: SETTING_INVALID when it does not go with what the user has set since.
    """
    origin = remembered_origin(where)
    ours = {n: Value(str(v), origin) for n, v in values.items() if n in catalog.SETTINGS}
    merged = {n: ours.get(n, v) if v.origin == "default" else v for n, v in settings.values.items()}
    for name in ours:
        _check(catalog.SETTINGS[name], merged[name])
    _check_ports_differ(merged)
    return Settings(merged, settings.root)


def _from_environment(environ: Mapping[str, str]) -> dict[str, Value]:
    ours = {n for n in environ if n.startswith(_PREFIX) and not n.startswith(_RIG)} - _RESERVED
    for name in sorted(ours - set(catalog.SETTINGS)):
        raise _unknown(name, ENVIRONMENT)
    return {n: Value(environ[n], ENVIRONMENT) for n in catalog.SETTINGS if n in environ}


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
    """Name the setting that a line seems to mean; nothing else of it is shown, since it may hold a password."""
    found = re.match(r"\s*(?:export\s+)?(\w+)", line)
    return f"it starts with {found[1]}" if found and found[1] in catalog.SETTINGS else ""


def _unknown(name: str, origin: str) -> PlatformError:
    if name in (*catalog.CONTRACT_NAMES, *catalog.FAMILIAR_NAMES):
        return PlatformError(
            "SETTING_UNKNOWN",
            f"{name} (from {origin}) is an output of `invoke env`, not a setting",
            steps=("set the port or password it is built from, e.g. POSTGRES_PORT", "invoke env"),
        )
    return PlatformError(
        "SETTING_UNKNOWN",
        f"unknown setting {name} (from {origin})",
        steps=(*nearest(name, catalog.SETTINGS, 0.6), "all names are in .env.example"),
    )


def _check(setting: rows.Setting, value: Value) -> None:
    problem = setting_rules.problem(setting, value.text)
    if problem:
        shown = "its value" if setting.kind == "secret" else repr(value.text)
        raise PlatformError(
            "SETTING_INVALID",
            f"{_spelled(setting, value)}: {shown} {problem}",
            why=f"it comes from {value.origin}",
            steps=_advice(setting, value),
        )


def _spelled(setting: rows.Setting, value: Value) -> str:
    """Return the name as the user has written it."""
    return _OPTIONS.get(setting.name, setting.name) if value.origin == COMMAND_LINE else setting.name


def _advice(setting: rows.Setting, value: Value) -> tuple[str, ...]:
    if value.origin == COMMAND_LINE:
        return nearest(value.text, setting.choices) or ("use one of those, or omit the option",)
    near = nearest(value.text, setting.choices)
    return (*near, f"set {setting.name} to another value (default: {setting.default or 'none'}), or remove it")


def _check_ports_differ(values: Mapping[str, Value]) -> None:
    seen: dict[int, str] = {}
    for name, setting in catalog.SETTINGS.items():
        if setting.kind != "port":
            continue
        first = int(values[name].text)
        mine = setting.ports(first)
        taken = next((n for n in mine if n in seen), None)
        if taken is not None:
            raise _same_port(name, seen[taken], taken, values)
        seen |= dict.fromkeys(mine, name)


def _same_port(name: str, other: str, number: int, values: Mapping[str, Value]) -> PlatformError:
    both = f"are both {number}" if catalog.SETTINGS[name].span == catalog.SETTINGS[other].span else f"share {number}"
    return PlatformError(
        "SETTING_INVALID",
        f"{name} and {other} {both}",
        why=f"{name} comes from {values[name].origin}, {other} from {values[other].origin}",
        steps=(f"give one of them another port, e.g. {name}={number + 1}",),
    )
