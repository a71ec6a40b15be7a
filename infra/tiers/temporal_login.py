"""Logins of PostgreSQL that Temporal's server, as it comes in its image, cannot use; the development server needs none.

The server puts the password between double quotes into YAML (common/config/config_template_embedded.yaml), then sends
a blank as a plus sign, and it puts the user as it is into a URL (sqlplugin/postgresql/session/session.go).
"""

from __future__ import annotations

import re

from infra.errors import PlatformError
from infra.settings import Settings

_IN_PASSWORD = re.compile(r'[ "\\\x00-\x1f\x7f-\x9f]')
_IN_USER = re.compile(r"[^A-Za-z0-9._~!$&'()*+,;=-]")
_NAMES = {" ": "a blank", '"': 'a double quote (")', "\\": "a backslash (\\)"}


def refuse_unusable(settings: Settings) -> None:
    """Refuse them before anything is started.

    Raises:
        PlatformError: SETTING_INVALID, naming the setting and the characters, never the rest of a password.
    """
    if settings.light:
        return
    for name, unusable in (("POSTGRES_PASSWORD", _IN_PASSWORD), ("POSTGRES_USER", _IN_USER)):
        found = dict.fromkeys(unusable.findall(settings.text(name)))
        if found:
            _refuse(settings, name, ", ".join(_NAMES.get(c, repr(c)) for c in found))


def _refuse(settings: Settings, name: str, characters: str) -> None:
    raise PlatformError(
        "SETTING_INVALID",
        f"{name} contains {characters}; Temporal's server cannot log in with it",
        why=f"it comes from {settings.origin(name)}",
        steps=(f"set {name} to a value without it", "or set PLATFORM_LIGHT=yes, or use --tier native"),
    )
