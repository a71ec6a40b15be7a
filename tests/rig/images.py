"""Builds the stand-in images where the engine does not have them yet, each from what its key says."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping
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
    return key_of(recipe.reference) == key(recipe)


def key_of(reference: str) -> str | None:
    """The key of an image of the engine that was built here; None when there is none."""
    form = "{{index .Config.Labels " + f'"{LABEL}"' + "}}"
    return cache.output(["docker", "image", "inspect", "--format", form, reference])


def build(recipe: Recipe, log: Path) -> None:
    """Make the parts and the image.

    Raises:
        RigProblem: a part is not available, or the build failed.
    """
    made = {"root.tar": base.archive(log)} if not recipe.base else {}
    made |= {part.name: parts.ready(part, recipe.name, log) for part in recipe.parts}
    with context(FOLDER / recipe.name, made) as place:
        docker_build(place, recipe.reference, key(recipe), log)


def docker_build(place: Path, reference: str, label: str, log: Path) -> None:
    """Build an image from a context, with its key as a label.

    Raises:
        RigProblem: the build failed.
    """
    cache.run(["docker", "build", "--quiet", f"--label={LABEL}={label}", "--tag", reference, place], log, env=CLASSIC)


@contextlib.contextmanager
def context(folder: Path, made: Mapping[str, Path]) -> Iterator[Path]:
    """A build context: a copy of a directory, and what was made, as hard links where the file system allows it."""
    with cache.scratch() as place:
        copy = place / "context"
        shutil.copytree(folder, copy)
        for name, path in made.items():
            _link(path, copy / name)
        yield copy


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
