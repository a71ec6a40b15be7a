"""Builds the stand-in images where the engine does not have them yet, each from what its key says."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from tests.rig import base, cache, parts
from tests.rig.recipes import BASE, Recipe

FOLDER = Path(__file__).parent / "images"
LABEL = "org.platform-rig.key"
CLASSIC = {"DOCKER_BUILDKIT": "0"}
"""The engine's own builder: BuildKit's plugin need not be there."""


def key(recipe: Recipe) -> str:
    """What the image is made from: recipe, parts and base."""
    below = [key(BASE)] if recipe.base else [base.key()]
    return cache.key(cache.key_of_files(FOLDER / recipe.name), *(p.key() for p in recipe.parts), *below)


def present(recipe: Recipe) -> bool:
    """Whether the engine has exactly this image."""
    form = "{{index .Config.Labels " + f'"{LABEL}"' + "}}"
    return cache.output(["docker", "image", "inspect", "--format", form, recipe.reference]) == key(recipe)


def build(recipe: Recipe, log: Path) -> None:
    """Make the parts and the image.

    Raises:
        RigProblem: a part cannot be had, or the build failed.
    """
    made = {"root.tar": base.archive(log)} if not recipe.base else {}
    made |= {part.name: parts.ready(part, recipe.name, log) for part in recipe.parts}
    with _context(recipe, made) as context:
        label = f"--label={LABEL}={key(recipe)}"
        cache.run(["docker", "build", "--quiet", label, "--tag", recipe.reference, context], log, env=CLASSIC)


@contextlib.contextmanager
def _context(recipe: Recipe, made: dict[str, Path]) -> Iterator[Path]:
    """A build context of hard links where the file system allows it."""
    with cache.scratch() as place:
        context = place / "context"
        shutil.copytree(FOLDER / recipe.name, context)
        for name, path in made.items():
            _link(path, context / name)
        yield context


def _link(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, symlinks=True, copy_function=_link_or_copy)
    else:
        _link_or_copy(source, target)


def _link_or_copy(source: str | Path, target: str | Path) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, target, follow_symlinks=False)
