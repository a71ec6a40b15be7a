"""The scripts: the same interface in both languages, and fit to be run after a clone."""

from __future__ import annotations

import os
import re
import shutil
import subprocess

import pytest

from infra.settings import ROOT
from scripts import ci
from tests.drift import repo
from tests.drift.repo import read

PAIRS = {"--with-obs": "WithObservability", "--stop": "Stop"}
"""Options of start-infra.sh and start-infra.ps1, as users know them."""
SHELL_SCRIPTS = [path for path in repo.text_files() if path.endswith(".sh") or path == ".ci/run"]


def options_of_sh(text: str) -> list[str]:
    """Long options in the case statement of a shell script, --help left out (PowerShell has Get-Help)."""
    return [o for o in re.findall(r"^ +(?:-\w \| )?(--[\w-]+)\)", text, re.MULTILINE) if o != "--help"]


def switches_of_ps1(text: str) -> list[str]:
    """Switches in the param block of a PowerShell script."""
    block = re.search(r"^param\((.*?)\)$", text.replace("\r", ""), re.MULTILINE | re.DOTALL)
    assert block is not None
    return re.findall(r"\[switch\] \$(\w+)", block[1])


def test_start_infra_offers_the_same_in_both_languages() -> None:
    assert options_of_sh(read("scripts/start-infra.sh")) == list(PAIRS)
    assert switches_of_ps1(read("scripts/start-infra.ps1")) == list(PAIRS.values())


def test_start_infra_says_what_it_offers() -> None:
    usage = read("scripts/start-infra.sh").split("<<'TEXT'\n")[1].split("\nTEXT\n")[0]
    assert set(re.findall(r"^  (--[\w-]+)", usage, re.MULTILINE)) == set(PAIRS)
    assert "[-WithObservability] [-Stop]" in read("scripts/start-infra.ps1")


def test_start_infra_calls_tasks_that_exist_in_both_languages() -> None:
    called = {
        ".sh": re.findall(r"-m invoke (\w+)", read("scripts/start-infra.sh")),
        ".ps1": re.findall(r"@\('(up|down)'", read("scripts/start-infra.ps1")),
    }
    assert {ending: set(names) for ending, names in called.items()} == {".sh": {"up", "down"}, ".ps1": {"up", "down"}}
    for words in ("up", "up --obs", "down"):
        repo.parse(words)
    assert "obs=--obs" in read("scripts/start-infra.sh")
    assert "@('up', '--obs')" in read("scripts/start-infra.ps1")


def test_run_tests_hands_every_option_on_in_both_languages() -> None:
    # Neither looks at an option itself, so both offer what scripts/run_tests.py offers.
    assert '-m scripts.run_tests "$@"' in read("scripts/run-tests.sh")
    assert "@('scripts.run_tests') + $args" in read("scripts/run-tests.ps1")
    assert not re.search(r"\bcase\b.*--", read("scripts/run-tests.sh"))
    assert "param(" not in read("scripts/run-tests.ps1")


def test_ci_hands_every_option_on() -> None:
    assert read(".ci/run").endswith('exec .venv/bin/python -m scripts.ci "$@"\n')


@pytest.mark.parametrize("readme", repo.READMES)
def test_readmes_say_which_sessions_ci_runs(readme: str) -> None:
    paragraphs = [part for part in read(readme).split("\n\n") if part.startswith("CI")]
    assert [re.findall(r"`([\w-]+)`", part) for part in paragraphs] == [list(ci.SESSIONS)]


@pytest.mark.parametrize("path", SHELL_SCRIPTS)
def test_shell_script_has_unix_line_ends(path: str) -> None:
    assert "\r" not in read(path)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no executable bit")
@pytest.mark.parametrize("path", [p for p in SHELL_SCRIPTS if read(p).startswith("#!")])
def test_shell_script_is_executable(path: str) -> None:
    assert os.access(ROOT / path, os.X_OK)


@pytest.mark.parametrize("path", [p for p in SHELL_SCRIPTS if read(p).startswith("#!")])
def test_shell_script_is_executable_in_git(path: str) -> None:
    argv = ["git", "-C", str(ROOT), "ls-files", "--stage", "--", path]
    done = subprocess.run(argv, capture_output=True, encoding="utf-8", check=False) if shutil.which("git") else None
    if done is None or not done.stdout:
        pytest.skip("not in git (yet)")
    assert done.stdout.startswith("100755")


def test_git_keeps_line_ends() -> None:
    rules = read(".gitattributes").splitlines()
    assert "* text=auto eol=lf" in rules
    assert "*.ps1 text eol=crlf" in rules


@pytest.mark.parametrize("path", SHELL_SCRIPTS)
def test_shell_script_is_valid(path: str) -> None:
    shell = "bash" if "bash" in read(path).splitlines()[0] else "sh"
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell} on this machine")
    done = subprocess.run([shell, "-n", str(ROOT / path)], capture_output=True, encoding="utf-8", check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_both_languages_clear_the_same_variables() -> None:
    in_sh = set(re.findall(r"^unset (.+)$", read("scripts/env.sh"), re.MULTILINE)[0].split())
    in_ps1 = set(re.findall(r"'([A-Z_]+)'", re.findall(r"foreach \(\$Name in (.+)\)", read("scripts/env.ps1"))[0]))
    assert in_sh - in_ps1 == {"__PYVENV_LAUNCHER__"}, "that one exists on macOS only"
    assert in_ps1 <= in_sh
