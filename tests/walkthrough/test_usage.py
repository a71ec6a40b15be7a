"""The command `platform` as people use it: installed, from their own project, with another Python active."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from infra.settings import ROOT
from tests.smoke.stage import Completed, run
from tests.walkthrough.clone import LIMIT, USABLE, Clone, git

pytestmark = USABLE
WHERE = "import os, sys; print('prefix', sys.prefix); print('cwd', os.getcwd()); print('mine', os.environ['MINE'])"


@dataclass(frozen=True)
class Person:
    """Somebody with a home of their own and a project; `command` is the installed `platform`."""

    clone: Clone
    home: Path

    @property
    def env(self) -> dict[str, str]:
        """Their environment: nothing of the checkout is on PATH."""
        kept = {k: v for k, v in self.clone.env.items() if not k.startswith(("VIRTUAL_ENV", "PYTHON", "UV_TOOL"))}
        path = [p for p in kept["PATH"].split(os.pathsep) if not Path(p).is_relative_to(ROOT)]
        own = {"HOME": str(self.home), "PATH": os.pathsep.join([str(self.home / ".local/bin"), *path])}
        # Downloads of others are used again: this is about what is installed, not about the network.
        return kept | own | {"UV_CACHE_DIR": str(cache()), "UV_NO_PROGRESS": "1"}

    @property
    def project(self) -> Path:
        """Their own project, a Git repository far from the checkout."""
        path = self.home / "my project"
        if not path.exists():
            path.mkdir()
            git("init", "--quiet", cwd=path)
        return path

    def types(self, *argv: str, cwd: Path | None = None, more: Mapping[str, str] = {}) -> Completed:
        """Run a program as they do."""
        return run(argv, cwd or self.project, {**self.env, **more}, LIMIT)

    def data(self, *words: str, cwd: Path | None = None, more: Mapping[str, str] = {}) -> Any:
        """The answer of a task."""
        done = self.types("platform", *words, "--json", cwd=cwd, more=more)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)["data"]

    def python(self, name: str, *packages: str) -> dict[str, str]:
        """Another Python's environment, activated."""
        place = self.home / name
        assert self.types(uv(), "venv", "--quiet", "--python", sys.executable, str(place)).returncode == 0
        if packages:
            done = self.types(uv(), "pip", "install", "--quiet", "--python", str(place / "bin/python"), *packages)
            assert done.returncode == 0, done.stderr
        return {"VIRTUAL_ENV": str(place), "PATH": f"{place / 'bin'}{os.pathsep}{self.env['PATH']}"}


def uv() -> str:
    """The program uv of the development packages."""
    return str(Path(sys.executable).with_name("uv"))


def cache() -> Path:
    """Where uv of this user keeps what it has downloaded."""
    return Path(os.environ.get("UV_CACHE_DIR") or Path.home() / ".cache" / "uv")


@pytest.fixture(scope="module")
def person(running: Clone, tmp_path_factory: pytest.TempPathFactory) -> Person:
    """One who has installed the command with uv."""
    made = Person(running, tmp_path_factory.mktemp("home of a person"))
    done = made.types(uv(), "tool", "install", "--quiet", str(running.root))
    assert done.returncode == 0, done.stderr
    assert shutil.which("platform", path=made.env["PATH"]) == str(made.home / ".local/bin/platform")
    return made


def test_the_installed_command_finds_its_checkout_from_a_project(person: Person) -> None:
    found = person.data("status")
    assert found["state"] == "ready"
    assert {s["name"] for s in found["services"]} >= {"postgres", "redis", "temporal"}


@pytest.mark.skipif(shutil.which("pipx") is None, reason="there is no pipx on this machine")
def test_pipx_installs_it_as_well(person: Person) -> None:
    more = {"PIPX_HOME": str(person.home / "pipx"), "PIPX_BIN_DIR": str(person.home / "pipx bin")}
    assert person.types("pipx", "install", str(person.clone.root), more=more).returncode == 0
    done = person.types(str(person.home / "pipx bin/platform"), "status")
    assert (done.returncode, "ready" in done.stdout) == (0, True), done.stderr


@pytest.mark.parametrize("folder", ["infra", "infra/tiers/native", "docs"])
def test_it_works_in_every_folder_of_the_checkout(person: Person, folder: str) -> None:
    assert person.data("status", cwd=person.clone.root / folder)["state"] == "ready"


def test_a_checkout_is_named_by_a_variable_and_an_option(person: Person, tmp_path: Path) -> None:
    own = tmp_path / "another checkout"
    assert git("clone", "--quiet", str(person.clone.root), str(own))
    alone = person.types("platform", "status", cwd=own)
    assert (alone.returncode, "has no Python environment yet" in alone.stderr) == (5, True), "the nearest comes first"
    assert person.data("status", cwd=own, more={"PLATFORM_HOME": str(person.clone.root)})["state"] == "ready"
    assert person.data("status", "--stack", str(person.clone.root), cwd=own)["state"] == "ready"
    name = next(entry["name"] for entry in person.data("list") if entry["root"] == str(person.clone.root))
    assert person.data("status", "--stack", name, cwd=own)["state"] == "ready"
    wrong = person.types("platform", "status", "--stack", f"{name}x", cwd=own)
    assert (wrong.returncode, name in wrong.stderr) == (2, True), "the stacks that there are, are named"


def test_a_command_that_belongs_to_no_checkout_takes_the_one_that_runs(person: Person, tmp_path: Path) -> None:
    lonely = tmp_path / "platform_launcher.py"
    shutil.copy(person.clone.root / lonely.name, lonely)
    base = str(getattr(sys, "_base_executable", sys.executable))
    done = person.types(base, str(lonely), "status", cwd=tmp_path)
    assert (done.returncode, "ready" in done.stdout) == (0, True), done.stderr


def test_the_python_that_is_active_is_that_of_the_training(person: Person) -> None:
    active = person.python("other env")
    command = f'python -c "{WHERE}"'
    done = person.types("platform", "train.run", "--command", command, more={**active, "MINE": "of the shell"})
    assert done.returncode == 0, done.stderr
    said = done.stderr + done.stdout
    assert f"prefix {active['VIRTUAL_ENV']}" in said
    assert f"cwd {person.project}" in said
    assert "mine of the shell" in said
    assert person.data("train.logs", "latest", more=active)["lines"]


def test_another_invoke_says_which_one_to_use(person: Person) -> None:
    other = person.python("global invoke", "invoke")
    for cwd in (person.clone.root, person.clone.root / "infra"):
        done = person.types(f"{other['VIRTUAL_ENV']}/bin/invoke", "status", cwd=cwd, more=other)
        assert done.returncode == 5, done.stdout
        assert ".venv/bin/invoke" in done.stderr.replace("\n", "")
        assert "Traceback" not in done.stderr


def test_a_list_into_head_ends_quietly(person: Person) -> None:
    done = person.types("sh", "-c", "platform --list | head -n 1", cwd=person.project)
    assert (done.stdout, done.stderr) == ("Available tasks:\n", "")
