"""The random logins of a private stack: one private file, and how they come into force without a moment of no login.

New ones are written down before any service gets them and are in force once all have them, so that a run that was cut
off is finished by the next. Earlier ones are kept, since data (of the trash, of a database) may still want them.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from infra import catalog
from infra.errors import PlatformError
from infra.settings import Settings, remembered_origin, with_remembered
from infra.stack import Stack, ensure_home, unwritable, write_atomic

WISH = "PLATFORM_PRIVATE"
NAMES = tuple(dict.fromkeys(name for s in catalog.SERVICES for name in s.generated))
"""The settings that hold a random login in a private stack."""
_BYTES = 24
"""Of randomness in each: 32 characters that no URL, shell or configuration file has to quote."""
_KEPT = 20


@dataclass(frozen=True)
class Logins:
    """Hold the settings in force, those that are being put into force (None: none are), and earlier values.

    `tiers` are those whose data has the ones in force; others learn of them when they start next.
    """

    now: Mapping[str, str] = field(default_factory=dict)
    next: Mapping[str, str] | None = None
    older: Mapping[str, list[str]] = field(default_factory=dict)
    tiers: tuple[str, ...] = ()

    def candidates(self, name: str) -> list[str]:
        """Return the values by which a service may know a login, the likeliest first."""
        coming = self.next or {}
        named = [coming.get(name), self.now.get(name), *self.older.get(name, ())]
        return list(dict.fromkeys([*(v for v in named if v is not None), catalog.SETTINGS[name].default]))


def file(stack: Stack) -> Path:
    """Return where they are kept."""
    return stack.home / "logins.json"


def read(stack: Stack) -> Logins:
    """Return them; nothing in force where the stack was never private.

    Raises:
        PlatformError: DATA_INCOMPATIBLE for a file that is damaged: without it nobody could log in any more.
    """
    path = file(stack)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        coming = None if found["next"] is None else _words(found["next"])
        return Logins(_words(found["now"]), coming, found["older"], tuple(found["tiers"]))
    except (FileNotFoundError, NotADirectoryError):  # the latter is refused where the state directory is made
        return Logins()
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        steps = (f"bring {path} back from a copy", "or move it away: the stack is then as one that is not private")
        raise PlatformError(
            "DATA_INCOMPATIBLE", f"{path}, with this stack's passwords, cannot be read", why=str(error), steps=steps
        ) from error


def _words(found: Any) -> dict[str, str]:
    return {str(name): str(value) for name, value in found.items() if name in NAMES}


def applied(settings: Settings, stack: Stack) -> Settings:
    """Return the settings with the logins that are in force; what the user has set himself goes before."""
    return _with(settings, read(stack).now, stack)


def _with(settings: Settings, values: Mapping[str, str], stack: Stack) -> Settings:
    return with_remembered(settings, {**values, WISH: "yes"}, str(file(stack))) if values else settings


@dataclass(frozen=True)
class LoginChange:
    """Other logins than those in force: the settings with them, and what services may know until they have them."""

    settings: Settings
    logins: Logins


def change(settings: Settings, stack: Stack, tier: str, rotate: Iterable[str] = ()) -> LoginChange | None:
    """Return what has to change for the stack to be as it is wanted; None where it is so already.

    Args:
        settings: those of this run, with the logins in force.
        stack: it remembers.
        tier: the one that is about to run.
        rotate: the names of settings that get another random value.
    """
    known = read(stack)
    wanted = _wanted(settings, stack, known, set(rotate))
    same = wanted == known.now and known.next is None
    if same and (tier in known.tiers or not file(stack).exists()):
        return None
    coming = replace(known, next=wanted, older=_with_unfinished(known))
    return LoginChange(_with(_without(settings, stack), wanted, stack), coming)


def _with_unfinished(known: Logins) -> Mapping[str, list[str]]:
    """Return the earlier values with those of a change that was cut off: some service may have got one."""
    found = {name: list(values) for name, values in known.older.items()}
    for name, value in (known.next or {}).items():
        found[name] = [value, *(v for v in found.get(name, []) if v != value)][:_KEPT]
    return found


def _wanted(settings: Settings, stack: Stack, known: Logins, rotate: set[str]) -> dict[str, str]:
    wish = settings.text(WISH) == "yes"
    if known.next is not None and settings.origin(WISH) in ("default", remembered_origin(file(stack))):
        wish = bool(known.next)  # a run that was cut off is finished
    if not wish:
        return {}
    kept = {**known.now, **(known.next or {})}
    ours = free(settings, stack)
    return {n: secrets.token_urlsafe(_BYTES) if n in rotate or n not in kept else kept[n] for n in ours}


def free(settings: Settings, stack: Stack) -> list[str]:
    """Return the settings whose values the platform chooses: the user has set none."""
    return [n for n in NAMES if settings.origin(n) in ("default", remembered_origin(file(stack)))]


def _without(settings: Settings, stack: Stack) -> Settings:
    """Return the settings without the logins in force."""
    ours, plain = remembered_origin(file(stack)), dict(settings.values)
    for name in (*NAMES, WISH):
        if plain[name].origin == ours:
            plain[name] = type(plain[name])(catalog.SETTINGS[name].default, "default")
    return replace(settings, values=plain)


def begin(stack: Stack, coming: LoginChange) -> None:
    """Write down the logins that services are about to get. Raises PlatformError STATE_UNWRITABLE."""
    _write(stack, coming.logins)


def finish(stack: Stack, coming: LoginChange, tier: str) -> None:
    """Put them into force: all services of the tier have them. Raises PlatformError STATE_UNWRITABLE."""
    known, now = coming.logins, coming.logins.next or {}
    older = {n: [v for v in known.candidates(n) if v != now.get(n)][:_KEPT] for n in NAMES}
    tiers = known.tiers if now == known.now else ()
    _write(stack, Logins(now, None, older, tuple(dict.fromkeys((*tiers, tier)))))


def doubt(stack: Stack) -> None:
    """Note that data came back which may want earlier ones. Raises PlatformError STATE_UNWRITABLE."""
    if file(stack).exists():
        _write(stack, replace(read(stack), tiers=()))


def _write(stack: Stack, logins: Logins) -> None:
    ensure_home(stack)
    try:
        write_atomic(file(stack), json.dumps(vars(logins), indent=1) + "\n", mode=0o600)
    except OSError as error:
        raise unwritable(stack.home, error) from error
