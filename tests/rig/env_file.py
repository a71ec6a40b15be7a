"""rig.env: what the tests must know of what the rig made, as KEY=value lines that a shell can read.

RIG_PATH holds directories that belong in front of PATH.
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from tests.rig import cache, images, operators, recipes
from tests.rig.kind import up as kind


def values() -> dict[str, str]:
    """References of the images that are there, by setting."""
    made = [recipe for recipe in recipes.RECIPES if images.present(recipe)]
    base = {"PYTHON_IMAGE": recipes.BASE.reference} if images.present(recipes.BASE) else {}
    return {setting: recipe.reference for recipe in made for setting in recipe.settings} | base | _others()


def _others() -> dict[str, str]:
    return kind.values() | operators.values()


def write() -> Path:
    """Write the file again; its path."""
    path = cache.folder() / "rig.env"
    unfinished = path.with_suffix(f".{os.getpid()}")
    unfinished.write_text("".join(f"{key}={shlex.quote(value)}\n" for key, value in values().items()), encoding="utf-8")
    unfinished.replace(path)
    return path
