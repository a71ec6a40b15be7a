"""The environment of a training's program: the caller's for a program of the user's, the worker's for our own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from infra import catalog
from infra.training.contract import Contract

ROOT = Path(__file__).resolve().parents[2]
_OURS = ("PLATFORM_", "TRAINING_")


def callers(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of the shell that orders a training, without what is the platform's.

    Its settings (among them passwords) are none of a training's business, and the contract is that of the platform
    that runs, not one that the shell has read from a file.
    """
    return {name: value for name, value in environ.items() if not _of_the_platform(name)}


def own_environment(worker: Mapping[str, str], contract: Contract) -> dict[str, str]:
    """Return the environment of our own programs (the built-in training): the worker's, and the contract."""
    kept = {name: value for name, value in worker.items() if not _of_the_platform(name)}
    # In an image the packages are on that path.
    return {**kept, "PYTHONUTF8": "1", "PYTHONPATH": worker.get("PYTHONPATH") or str(ROOT), **contract.values}


def names(environment: Iterable[str]) -> list[str]:
    """Return what is recorded of an environment: names, in order, and no value."""
    return sorted(environment)


def _of_the_platform(name: str) -> bool:
    return name.startswith(_OURS) or name in catalog.SETTINGS or name in catalog.CONTRACT_NAMES
