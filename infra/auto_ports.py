"""Moving ports that others hold: to the next free ones, remembered by the stack."""

from __future__ import annotations

from collections.abc import Iterable

from infra import catalog, ports, stack
from infra.endpoints import HOST
from infra.errors import PlatformError
from infra.settings import Settings, remembered_origin, with_remembered
from infra.stack import Stack

REACH = 2000
"""Greatest distance from its old number at which a port is looked for."""


def taken(error: PlatformError) -> list[int]:
    """Return the ports that a preflight has found taken."""
    checks = error.details.get("checks")
    ids = [str(c.get("id", "")) for c in checks] if isinstance(checks, Iterable) else []
    return [int(i.removeprefix("port.")) for i in ids if i.startswith("port.") and i[5:].isdigit()]


def moves(settings: Settings, wanted: Iterable[int]) -> dict[str, str]:
    """Choose a new port for each of these: setting -> the next number that is free and in no other setting."""
    names = [n for n, s in catalog.SETTINGS.items() if s.kind == "port"]
    used = {p for n in names for p in _block(settings.port(n), n)}
    found: dict[str, str] = {}
    for number in wanted:
        name = next((n for n in names if number in _block(settings.port(n), n)), None)
        if name is None or name in found:
            continue
        first = next((p for p in range(number + 1, number + REACH) if _free(_block(p, name), used)), None)
        if first:
            used |= set(_block(first, name))
            found[name] = str(first)
    return found


def _block(first: int, name: str) -> tuple[int, ...]:
    """Return the ports that a setting stands for."""
    return catalog.SETTINGS[name].ports(first)


def _free(block: tuple[int, ...], used: set[int]) -> bool:
    return max(block) < 65536 and used.isdisjoint(block) and not any(ports.blocked(HOST, p) for p in block)


def move(settings: Settings, home: Stack, error: PlatformError) -> tuple[Settings, dict[str, str]]:
    """Move the taken ports and remember them; return the settings, and what was moved.

    Raises:
        PlatformError: the given one, when nothing can be moved: what the user has set himself stays.
    """
    found = moves(settings, taken(error))
    own = [n for n in found if settings.origin(n) not in ("default", remembered_origin(home.memory))]
    if not found or own:
        raise error
    stack.remember_settings(home, **found)
    plain = {n: settings.values[n] for n in settings.values if n not in found}
    defaults = {n: type(v)(v.text, "default") for n, v in settings.values.items() if n in found}
    return with_remembered(Settings(plain | defaults, settings.root), found, str(home.memory)), found
