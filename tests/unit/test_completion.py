"""Completion: what may come next, and real shells that ask for it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from infra import catalog, completion
from infra.settings import ROOT
from infra.tasks.completion import STARTS, _profile, installed
from tests.unit.helpers import script

POWERSHELL = "powershell"


def found(words: str, home: Path = Path("/nowhere")) -> list[str]:
    """What may stand in the place of the last word; a blank at the end begins a new one."""
    return completion.candidates(home, words.split(" "))


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("stat", ["status"]),
        ("star", ["start"]),
        ("native.sta", ["native.start", "native.status"]),
        ("logs te", ["temporal"]),
        ("logs redis te", ["temporal"]),
        ("logs -s te", ["temporal"]),
        ("up --tier ", sorted(catalog.TIERS)),
        ("up -t n", ["native"]),
        ("up --tier=n", ["--tier=native"]),
        ("up --tier = n", ["native"]),
        ("status --output j", ["json"]),
        ("stop --jso", ["--json"]),
        ("train.show la", ["latest"]),
        ("minio.ls --bucket model", ["model-weights"]),
        ("train.list -o ya", ["yaml"]),
        ("db.shell --database lab", ["labeler"]),
        ("env --store ", ["datasets", "results"]),
        ("status redi", []),
    ],
)
def test_what_may_come_next(typed: str, expected: list[str]) -> None:
    assert found(typed) == expected


def test_values_that_lie_in_the_state_directory(tmp_path: Path) -> None:
    for name in ("training/jobs/digits-1.log", "training/jobs/digits-1.rank1.log", "training/jobs/mine-2.log"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "snapshots" / "before").mkdir(parents=True)
    assert {"digits-1", "latest", "mine-2"} <= set(found("train.logs ", tmp_path))
    assert "digits-1.rank1" not in found("train.logs ", tmp_path)
    assert found("train.diff digits-1 mi", tmp_path) == ["mine-2"]
    assert found("snapshot.show be", tmp_path) == ["before"]


def test_every_task_and_option_is_offered() -> None:
    assert {"up", "train.run", "snapshot.create", "ps"} <= set(found(""))
    assert {"--obs", "--tier", "-t", "--help"} <= set(found("up -"))


def test_nothing_else_is_imported_at_a_press_of_a_key() -> None:
    code = f"import sys, runpy; sys.argv[1:] = ['--complete-words', 'logs', '+te']; sys.path.insert(0, {str(ROOT)!r})\n"
    code += "import platform_launcher; platform_launcher.main(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, encoding="utf-8", check=True)
    first, modules = done.stdout.splitlines()
    assert first == "temporal"
    assert not {"invoke", "yaml", "infra", "psutil"} & set(modules.split())


def test_a_defect_prints_nothing_into_the_line(tmp_path: Path) -> None:
    env = {**os.environ, "PLATFORM_HOME": str(tmp_path)}
    argv = [sys.executable, str(ROOT / "platform_launcher.py"), "--complete-words", "+x"]
    done = subprocess.run(argv, env=env, capture_output=True, encoding="utf-8", check=False)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "pwsh"])
def test_a_shell_completes(shell: str, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell} on this machine")
    script(tmp_path / "platform", f"exec '{sys.executable}' '{ROOT / 'platform_launcher.py'}' \"$@\"")
    ask = {
        "bash": "COMP_WORDS=(platform logs te); COMP_CWORD=2; _platform_complete; printf '%s\\n' \"${COMPREPLY[@]}\"",
        "zsh": "compadd() { print -l ${(P)2} }; words=(platform logs te); CURRENT=3; _platform",
        "fish": "complete -C 'platform logs te'",
        "pwsh": "(TabExpansion2 'platform logs te' 16).CompletionMatches.CompletionText",
    }[shell]
    env = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "PLATFORM_HOME": str(ROOT)}
    text = f"{completion.SCRIPTS[POWERSHELL if shell == 'pwsh' else shell]}\n{ask}\n"
    done = subprocess.run(
        [shell, "-c", text], cwd=tmp_path, env=env, capture_output=True, encoding="utf-8", check=False
    )
    assert done.stdout.split() == ["temporal"], done.stderr


@pytest.mark.skipif(shutil.which("bash") is None or os.name == "nt", reason="there is no bash, or no pty, here")
def test_tab_in_a_bash_that_has_read_the_profile(tmp_path: Path) -> None:
    from tests.terminal import on_terminal

    programs, profile = tmp_path / "bin", tmp_path / ".bashrc"
    programs.mkdir()
    script(programs / "platform", f"exec '{sys.executable}' '{ROOT / 'platform_launcher.py'}' \"$@\"")
    assert installed(profile, completion.SCRIPTS["bash"])
    env = {**os.environ, "HOME": str(tmp_path), "PATH": f"{programs}:{os.environ['PATH']}", "PLATFORM_HOME": str(ROOT)}
    with on_terminal(["bash", "--rcfile", str(profile), "-i"], tmp_path, {**env, "PS1": "ready> "}, 100) as session:
        session.until(lambda drawn: "ready>" in drawn or "$" in drawn or "#" in drawn)
        session.type("platform logs te\t")
        assert "platform logs temporal" in session.until(lambda drawn: "logs temporal" in drawn, 120)
        session.type("\x15platform minio.ls --bucket model\t")
        assert "model-weights" in session.until(lambda drawn: "model-weights" in drawn, 120)


CALLS = {
    "bash": 'command "${COMP_WORDS[0]}" --complete-words "${words[@]}" 2>/dev/null',
    "zsh": 'command platform --complete-words "${(@)words[2,CURRENT-1]}" "+${words[CURRENT]}" 2>/dev/null',
    "fish": 'command platform --complete-words $before[2..-1] "+"(commandline -ct) 2>/dev/null',
    POWERSHELL: 'platform --complete-words @before "+$word" 2>$null',
}
"""Shell -> how it asks: each word an argument of its own, the typed one never empty, errors not into the line."""
REGISTERED = {
    "bash": "complete -o default -F _platform_complete platform",
    "zsh": "compdef _platform platform",
    "fish": "complete -c platform -a '(__platform_words)'",
    POWERSHELL: "Register-ArgumentCompleter -Native -CommandName platform",
}


@pytest.mark.parametrize("shell", completion.SCRIPTS)
def test_the_text_of_a_script(shell: str) -> None:
    text = completion.SCRIPTS[shell]
    assert CALLS[shell] in text
    assert REGISTERED[shell] in text
    assert text.endswith("\n"), "it becomes a part of a profile"
    assert not {"eval", "iex", "Invoke-Expression"} & set(text.split()), "what is typed is never run"
    assert all(text.count(one) == text.count(other) for one, other in ("()", "[]", "{}"))


@pytest.mark.parametrize(("shell", "start"), STARTS.items())
def test_a_script_is_added_where_its_shell_reads_it(
    shell: str, start: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    profile = _profile(shell)
    assert (profile.name, profile.is_relative_to(tmp_path)) == (start[-1], True)
    assert installed(profile, completion.SCRIPTS[shell])
    assert completion.SCRIPTS[shell] in profile.read_text(encoding="utf-8")


def test_a_profile_keeps_everything_else_and_gets_the_script_once(tmp_path: Path) -> None:
    profile = tmp_path / "new" / ".bashrc"
    assert installed(profile, "one\n")
    profile.write_text(f"mine\n{profile.read_text()}more\n")
    assert not installed(profile, "one\n")
    assert installed(profile, "two\n")
    lines = profile.read_text().splitlines()
    assert (lines[0], lines[2], lines[-1], lines.count("one")) == ("mine", "two", "more", 0)


def test_the_tasks_are_asked_for_again_when_they_have_changed(tmp_path: Path) -> None:
    for folder in ("infra/tasks", ".venv"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "infra" / "tasks" / "collection.py").write_text("def collect(): ...\n")
    asked = tmp_path / "infra" / "tasks" / "completion.py"
    asked.write_text("def table(_): return '{\"tasks\": 1}'\n")
    assert completion.words_of(tmp_path) == {"tasks": 1}
    kept = tmp_path / ".venv" / completion.KEPT
    kept.write_text('{"tasks": 2}')
    assert completion.words_of(tmp_path) == {"tasks": 2}, "what is kept is read"
    os.utime(kept, (0, 0))
    assert completion.words_of(tmp_path) == {"tasks": 1}
