"""GitHub's workflows: what they call exists, and they use exact versions."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.settings import ROOT
from scripts import make_env, run_tests
from tests.drift import repo
from tests.drift.repo import read

WORKFLOWS = sorted(p.relative_to(ROOT).as_posix() for p in (ROOT / ".github/workflows").glob("*.yml"))
ACTIONS = sorted(p.relative_to(ROOT).as_posix() for p in (ROOT / ".github/actions").rglob("action.yml"))


def jobs(path: str) -> dict[str, dict[str, Any]]:
    """The jobs of a workflow."""
    found: dict[str, dict[str, Any]] = yaml.safe_load(read(path))["jobs"]
    return found


def steps(path: str) -> list[dict[str, Any]]:
    """Every step of a workflow or of an action."""
    loaded = yaml.safe_load(read(path))
    runs = [loaded["runs"]] if "runs" in loaded else loaded["jobs"].values()
    return [step for part in runs for step in part["steps"]]


def commands() -> list[list[str]]:
    """Every command line of the workflows, in words."""
    lines = [line for path in WORKFLOWS for s in steps(path) for line in s.get("run", "").splitlines()]
    return [shlex.split(line.removesuffix("\\")) for line in lines]


def test_both_workflows_are_there() -> None:
    assert [Path(path).name for path in WORKFLOWS] == ["ci.yml", "nightly.yml"]


@pytest.mark.parametrize("path", WORKFLOWS)
def test_workflow_is_whole(path: str) -> None:
    loaded = yaml.safe_load(read(path))
    assert loaded[True], "`on` reads as true in YAML 1.1"
    assert loaded["permissions"] == {"contents": "read"}
    for name, job in loaded["jobs"].items():
        assert re.fullmatch(r"[a-z-]+", name)
        assert {"runs-on", "timeout-minutes", "steps"} <= set(job)
        assert all(("uses" in step) != ("run" in step) for step in job["steps"])


@pytest.mark.parametrize("path", [*WORKFLOWS, *ACTIONS])
def test_actions_have_exact_versions_or_are_ours(path: str) -> None:
    for step in steps(path):
        uses = step.get("uses", f"actions/x@{'0' * 40}")
        if uses.startswith("./"):
            assert (ROOT / uses / "action.yml").is_file()
        else:
            assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", uses), "a tag can be moved to other code"


def test_systems_have_exact_versions() -> None:
    systems = {str(job["runs-on"]) for path in WORKFLOWS for job in jobs(path).values()}
    systems |= {
        s for p in WORKFLOWS for j in jobs(p).values() for s in j.get("strategy", {}).get("matrix", {}).get("os", [])
    }
    assert systems - {"${{ matrix.os }}"} == {"ubuntu-24.04", "macos-15", "windows-2025"}


def test_the_systems_that_each_tier_is_tried_on() -> None:
    ci = jobs(".github/workflows/ci.yml")
    assert set(ci) == {"checks", "smoke-native", "smoke-compose", "smoke-kind"}
    assert [s.split("-")[0] for s in ci["checks"]["strategy"]["matrix"]["os"]] == ["ubuntu", "macos", "windows"]
    assert [s.split("-")[0] for s in ci["smoke-native"]["strategy"]["matrix"]["os"]] == ["ubuntu", "macos"]


def test_every_session_that_is_named_exists() -> None:
    named = {words[i + 1] for words in commands() for i, word in enumerate(words) if word == "--only"}
    assert named >= {"lint", "types", "tests", "drift", "smoke-native", "smoke-compose", "smoke-kind"}
    assert named <= {*run_tests.SESSIONS, *run_tests.OPT_IN}
    known = set(re.findall(r'^@nox.session\(name="([\w-]+)"\)', read("noxfile.py"), re.MULTILINE))
    known |= set(re.findall(r"^@nox.session(?:\([^)]*\))?\ndef (\w+)", read("noxfile.py"), re.MULTILINE))
    assert named <= known


def test_every_smoke_session_must_run() -> None:
    for words in commands():
        smoke = [w for w in words if w.startswith("smoke-")]
        assert not smoke or words[-2:] == ["--require", smoke[0].removeprefix("smoke-")]


def test_every_task_that_is_called_exists() -> None:
    called = [words[1:] for words in commands() if words and words[0] == ".venv/bin/invoke"]
    assert {words[0] for words in called} >= {"images.pull", "images.verify", "compose.up", "obs.check"}
    spaces = {name.split(".")[0] for name in repo.task_names()}
    for words in called:
        if words[0].split(".")[0] in spaces:
            repo.parse(words)


def test_every_environment_that_is_made_exists() -> None:
    made = [words[-1] for words in commands() if "scripts.make_env" in words]
    assert made
    assert set(made) <= set(make_env.LOCKS)


def test_every_compose_file_that_is_named_exists() -> None:
    named = {w for words in commands() for w in words if w.startswith("compose/")}
    assert named
    assert [path for path in named if not (ROOT / path).is_file()] == []


def test_results_are_kept_where_a_test_session_fails() -> None:
    for path in WORKFLOWS:
        for name, job in jobs(path).items():
            tested = any("scripts.run_tests" in s.get("run", "") for s in job["steps"])
            kept = [s for s in job["steps"] if "upload-artifact" in s.get("uses", "")]
            assert not tested or [s["if"] for s in kept] == ["failure()"], f"{path}: {name}"
            assert all(".platform-tests/" in s["with"]["path"] for s in kept)


def test_the_nightly_has_everything() -> None:
    lines = [" ".join(words) for words in commands()]
    assert ".venv/bin/invoke images.pull --obs --clearml" in lines
    assert ".venv/bin/invoke compose.up --obs" in lines
    assert ".venv/bin/invoke obs.check" in lines


STARTS_AN_EARLIER_ONE = {f"faults-{p.parent.name}" for p in (ROOT / "tests/faults").glob("*/test_earlier_version.py")}


def test_an_earlier_version_is_in_the_history_of_sessions_that_start_one() -> None:
    assert {"faults-native", "faults-compose"} <= STARTS_AN_EARLIER_ONE
    found = set()
    for path in WORKFLOWS:
        for name, job in jobs(path).items():
            run = " ".join(s.get("run", "") for s in job["steps"])
            depth = [
                s.get("with", {}).get("fetch-depth") for s in job["steps"] if "actions/checkout" in s.get("uses", "")
            ]
            named = {session for session in STARTS_AN_EARLIER_ONE if session in run}
            assert not named or depth == [0], f"{path}: {name}"
            found |= named
    assert found >= {"faults-native", "faults-compose"}
