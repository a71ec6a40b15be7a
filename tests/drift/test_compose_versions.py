"""Every combination of the compose files, read without a warning by each version of Compose that is at hand."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from infra import catalog
from infra.settings import ROOT
from tests.rig import compose_versions

FOLDER = ROOT / "compose"
CORE = FOLDER / "docker-compose.yml"
OVERLAYS = ("observability", "light")
STORES = ("", "rustfs", "external-s3")
NEEDED = {"external-s3": dict.fromkeys(("S3_DATASETS_ENDPOINT", "S3_RESULTS_ENDPOINT"), "https://s3.example.com")}
"""What a file cannot do without; all others need nothing."""


def combinations() -> list[tuple[Path, ...]]:
    """The core with each choice of overlays and one store."""
    chosen = [c for n in range(len(OVERLAYS) + 1) for c in itertools.combinations(OVERLAYS, n)]
    names = [(*overlays, *filter(None, [store])) for overlays in chosen for store in STORES]
    paths = [tuple(FOLDER / f"docker-compose.{name}.yml" for name in combination) for combination in names]
    return [(CORE, *found) for found in paths if all(p.exists() for p in found)]


def installed() -> list[str]:
    """The installed Compose plugin's command; empty without one that is new enough to matter."""
    docker = shutil.which("docker")
    if docker and subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode == 0:
        return [docker, "compose"]
    return []


def command(version: str) -> list[str]:
    """How to call that version; skips the test where it is not at hand."""
    if version == "installed":
        found = installed()
    else:
        made = compose_versions.existing(version)
        found = [str(made)] if made else []
    if not found:
        pytest.skip(f"Compose {version} is not at hand; python -m tests.rig.up brings it")
    return found


def environment(files: tuple[Path, ...]) -> dict[str, str]:
    """The environment of a user who set nothing but what these files cannot do without."""
    steering = {*catalog.SETTINGS, *catalog.CONTRACT_NAMES}
    kept = {k: v for k, v in os.environ.items() if k not in steering and not k.startswith(("COMPOSE_", "PLATFORM_"))}
    for name, values in NEEDED.items():
        kept |= values if FOLDER / f"docker-compose.{name}.yml" in files else {}
    return kept


@pytest.mark.parametrize("version", ["installed", *compose_versions.PROGRAMS])
def test_every_combination_of_files_is_clean(version: str) -> None:
    program = command(version)
    for files in combinations():
        named = [word for path in files for word in ("-f", str(path))]
        argv = [*program, *named, "--env-file", os.devnull, "--profile", "*", "config", "--quiet"]
        done = subprocess.run(argv, capture_output=True, text=True, env=environment(files), check=False)
        assert (done.returncode, done.stderr, done.stdout) == (0, "", ""), [p.name for p in files]
