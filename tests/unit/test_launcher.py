"""The command `platform` finds its checkout from any directory, and `invoke` works in more places than the root."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import platform_launcher
from infra import machine
from infra.settings import ROOT
from tests.unit.helpers import settings_of, stack_at

Done = subprocess.CompletedProcess[str]


def call(argv: list[str], cwd: Path, **env: str) -> Done:
    """Run a program in a directory, away from the stacks of this user."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("PLATFORM_")}
    return subprocess.run(
        argv, cwd=cwd, env={**clean, "PYTHONUTF8": "1", **env}, capture_output=True, encoding="utf-8", check=False
    )


def run(cwd: Path, *words: str, **env: str) -> Done:
    """Run `platform` in a directory."""
    return call([sys.executable, str(ROOT / "platform_launcher.py"), *words], cwd, **env)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A user's own project, in a directory with a blank and other letters."""
    made = tmp_path / "my ünusual 프로젝트"
    made.mkdir()
    (made / "invoke.py").write_text("raise SystemExit('the project's own module was taken')")
    (made / "tasks.py").write_text("raise SystemExit('the project's own tasks were taken')")
    return made


def checkout(root: Path) -> Path:
    """What is recognised as a checkout."""
    (root / "infra" / "tasks").mkdir(parents=True)
    for name in ("tasks.py", "platform_launcher.py", "infra/tasks/command.py"):
        (root / name).touch()
    return root


def environ(tmp_path: Path, **values: str) -> dict[str, str]:
    """An environment whose register of stacks lies below a directory."""
    return {"XDG_STATE_HOME": str(tmp_path / "state"), "LOCALAPPDATA": str(tmp_path / "state"), **values}


def started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, root: Path, running: bool = True) -> str:
    """Note that a checkout's stack was started; returns its state directory."""
    for name, value in environ(tmp_path).items():
        monkeypatch.setenv(name, value)
    home = root / "elsewhere"
    home.mkdir()
    machine.register(stack_at(home), settings_of(root), "native", running)
    return str(home)


# --- the real command


def test_it_runs_in_any_directory_and_names_itself(place: Path) -> None:
    done = run(place, "status", PLATFORM_STATE_DIR=str(place / "state"), PLATFORM_TIER="native")
    assert (done.returncode, done.stdout) == (9, "the platform is not running. Next: platform up\n"), done.stderr


def test_its_help_and_its_errors_name_it(place: Path) -> None:
    helped, wrong = run(place, "--help", "up"), run(place, "sttus", "--json")
    assert "Usage: platform" in helped.stdout
    assert "Example: platform up --obs" in helped.stdout
    assert [a["command"] for a in json.loads(wrong.stdout)["error"]["actions"]][-1] == "platform --list"
    assert wrong.returncode == 2


def test_no_checkout_is_an_error_with_a_next_step(place: Path) -> None:
    alone = place / "platform_launcher.py"
    shutil.copy(ROOT / "platform_launcher.py", alone)  # as in an environment of pipx
    done = call([sys.executable, str(alone), "status"], place, **environ(place))
    assert done.returncode == 2
    assert "there is no checkout" in done.stderr
    assert "next: " in done.stderr


def test_installed_alone_it_hands_over_to_the_checkouts_python(place: Path, tmp_path: Path) -> None:
    shutil.copy(ROOT / "platform_launcher.py", tmp_path / "alone.py")
    other = checkout(place / "other")
    (other / ".venv" / "bin").mkdir(parents=True)
    (other / ".venv" / "bin" / "python").symlink_to(sys.executable)
    (other / "alone.py").write_text("import os, sys; print(os.getcwd(), *sys.argv[1:], sep='|')")
    (other / "platform_launcher.py").touch()
    # The name of the file is that of the launcher; here both are called alone.py.
    done = call([sys.executable, str(tmp_path / "alone.py"), "status", "--stack", str(other)], place)
    assert done.stdout == f"{place}|--here|status\n", done.stderr


def test_without_an_environment_it_names_the_script_that_makes_one(place: Path) -> None:
    other = checkout(place / "other")
    done = run(place, "status", "--stack", str(other))
    assert done.returncode == 5
    assert f"next: {other / 'scripts' / 'start-infra'}" in done.stderr


# --- which checkout


def test_the_nearest_checkout_comes_before_the_one_that_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = checkout(tmp_path / "one"), checkout(tmp_path / "two")
    started(monkeypatch, tmp_path, two)
    inside = one / "docs"
    inside.mkdir()
    assert platform_launcher.choose("", inside, environ(tmp_path)) == (one, "")


def test_elsewhere_the_one_that_runs_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    two = checkout(tmp_path / "two")
    home = started(monkeypatch, tmp_path, two)
    assert platform_launcher.choose("", Path("/"), environ(tmp_path)) == (two, home)


def test_elsewhere_one_that_was_stopped_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started(monkeypatch, tmp_path, checkout(tmp_path / "two"), running=False)
    assert platform_launcher.choose("", Path("/"), environ(tmp_path)) == (ROOT, "")


def test_the_option_and_the_variable_name_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = checkout(tmp_path / "one"), checkout(tmp_path / "two")
    home = started(monkeypatch, tmp_path, two)
    named = environ(tmp_path, PLATFORM_HOME=str(one))
    assert platform_launcher.choose("", ROOT, named) == (one, "")
    assert platform_launcher.choose("two", tmp_path, named) == (two, "")
    assert platform_launcher.choose("test-000000", ROOT, named) == (two, home)
    with pytest.raises(platform_launcher.NoCheckout, match="no checkout"):
        platform_launcher.choose("three", tmp_path, named)
    with pytest.raises(platform_launcher.NoCheckout, match="no checkout"):
        platform_launcher.choose("three", one, named)  # and does not mean the checkout around it


def test_a_stack_whose_directory_has_gone_is_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    two = checkout(tmp_path / "two")
    started(monkeypatch, tmp_path, two)
    shutil.rmtree(two)
    assert platform_launcher.known_stacks(platform_launcher.registry()) == []


@pytest.mark.parametrize("words", [["a", "--stack", "x", "b"], ["a", "--stack=x", "b"], ["a", "b", "--stack", "x"]])
def test_the_option_stands_anywhere(words: list[str]) -> None:
    assert platform_launcher.take_option(words) == ("x", ["a", "b"])


# --- invoke in other places


@pytest.mark.parametrize("folder", ["infra", "infra/tasks", "infra/tiers/native", "docs", "tests/unit"])
def test_invoke_works_in_every_folder(folder: str, tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "invoke", "status"]
    done = call(argv, ROOT / folder, PLATFORM_STATE_DIR=str(tmp_path / "state"))
    assert (done.returncode, done.stderr) == (9, "")


def test_an_invoke_without_our_packages_names_the_one_that_has_them(tmp_path: Path) -> None:
    import invoke

    package = Path(invoke.__file__).parent
    for path in (package, next(package.parent.glob("invoke-*.dist-info"))):
        (tmp_path / path.name).symlink_to(path)
    done = call([sys.executable, "-S", "-m", "invoke", "status"], ROOT, PYTHONPATH=str(tmp_path))
    assert done.returncode == 5
    assert "lacks the platform's packages" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(os.name == "nt", reason="there is no `head` and no SIGPIPE on Windows")
def test_a_list_whose_reader_has_gone_ends_quietly() -> None:
    done = call(["sh", "-c", f"'{sys.executable}' -m invoke --list | head -1"], ROOT)
    assert (done.stdout, done.stderr) == ("Available tasks:\n", "")
