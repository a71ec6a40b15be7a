"""The images of the application: their Dockerfiles copy what the programs in them import, and no more."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from infra import catalog
from infra.settings import ROOT
from tests.drift.repo import imports, modules, read

PROGRAMS = ("worker", "trainer", "prepare", "evaluate", "temporal_client", "job_activities")
"""Modules of infra.training that run in the backend's image, besides the backend."""
NOT_THERE = {"infra.supervision.client", "infra.training.service"}
"""Run on the user's machine only, and imported inside functions that do."""
DOCKERFILES = ("apps/backend/Dockerfile", "apps/frontend/Dockerfile")


def copied() -> set[str]:
    """The files of infra that the backend's Dockerfile copies, as modules."""
    text = read("apps/backend/Dockerfile").replace("\\\n", " ")
    sources = [word for line in re.findall(r"^COPY (.+)$", text, re.MULTILINE) for word in line.split()[:-1]]
    known = {path.relative_to(ROOT).as_posix(): name for name, path in modules().items()}
    folders = [f"{source}/" for source in sources if (ROOT / source).is_dir()]
    return {name for path, name in known.items() if path in sources or path.startswith(tuple(folders))}


def needed() -> set[str]:
    """The modules of infra that the programs of the image import, directly or not, wherever the import stands."""
    known = modules()
    todo = [known[f"infra.training.{name}"] for name in PROGRAMS] + sorted((ROOT / "apps/backend").glob("*.py"))
    found: set[str] = set()
    while todo:
        for name in {_module(target, known) for target in imports(todo.pop())} - found - {""} - NOT_THERE:
            found.add(name)
            todo.append(known[name])
    packages = {name.rpartition(".")[0] for name in found}
    return found | packages - {""}


def _module(target: str, known: dict[str, Path]) -> str:
    while target and target not in known:
        target = target.rpartition(".")[0]
    return target


def test_the_backends_image_has_what_it_imports() -> None:
    assert needed() - copied() == set()


def test_it_has_nothing_of_the_tool_that_it_does_not_need() -> None:
    assert {n for n in copied() - needed() if not n.startswith("infra.training")} == set()


@pytest.mark.parametrize("path", DOCKERFILES)
def test_both_build_on_the_base_of_the_catalogue_and_run_as_nobody_special(path: str) -> None:
    text = read(path)
    assert f"ARG PYTHON_IMAGE={catalog.PYTHON_IMAGE}\n" in text
    assert "\nUSER 1000:1000\n" in text
    assert "--mount" not in text, "the classic builder knows no mounts"
    assert "latest" not in text


def test_the_context_of_a_build_holds_no_secret_and_no_state() -> None:
    lines = read(".dockerignore").splitlines()
    assert next(line for line in lines if line and not line.startswith("#")) == "*"
    seen = {line for line in lines if line.startswith("!")}
    assert seen == {"!apps", "!.apps-packages", "!infra", "!requirements/backend.txt"}
