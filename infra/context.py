"""The surroundings of one run, from the task down to the tier."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from infra.console import Console
    from infra.settings import Settings
    from infra.stack import Stack


@dataclass(frozen=True)
class Context:
    """Settings, the stack's directories, and the console for progress.

    Other settings in mid-run are another context, and a tier made for it.
    """

    settings: Settings
    stack: Stack
    console: Console

    def with_values(self, values: Mapping[str, str], origin: str) -> Self:
        """Return this run with some settings replaced; `origin` tells by what. Raises PlatformError SETTING_INVALID."""
        from infra.settings import with_values

        return replace(self, settings=with_values(self.settings, values, origin))
