from __future__ import annotations

import sys
from pathlib import Path

import pytest

from infra.errors import PlatformError
from infra.training import command_line


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("python train.py", ["python", "train.py"]),
        ("python 'my train.py' --name \"a b\"", ["python", "my train.py", "--name", "a b"]),
        (r"python a\ b.py", ["python", "a b.py"]),
        ("python -c 'print(1); print(2)' | cat", ["python", "-c", "print(1); print(2)", "|", "cat"]),
        ("run $HOME `id`", ["run", "$HOME", "`id`"]),
    ],
)
def test_posix_rules_and_no_shell(text: str, words: list[str]) -> None:
    assert command_line.split(text, windows=False) == words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (r"python C:\work\train.py", ["python", r"C:\work\train.py"]),
        (r'"C:\Program Files\py.exe" train.py', [r"C:\Program Files\py.exe", "train.py"]),
        ("python 'a b.py'", ["python", "a b.py"]),
    ],
)
def test_windows_rules(text: str, words: list[str]) -> None:
    assert command_line.split(text, windows=True) == words


@pytest.mark.parametrize("text", ["", "   ", "python 'a", '""'])
@pytest.mark.parametrize("windows", [False, True])
def test_what_cannot_be_a_command(text: str, windows: bool) -> None:
    with pytest.raises(PlatformError) as caught:
        command_line.split(text, windows=windows)
    assert caught.value.code == "USAGE"


def test_a_program_is_found_before_anything_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert command_line.located([sys.executable, "x"]) == [str(Path(sys.executable).absolute()), "x"]
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PlatformError) as caught:
        command_line.located(["no-such-program"])
    assert caught.value.code == "PROGRAM_MISSING"
    assert "'python3 train.py'" in caught.value.steps[0], "nothing is called python there"
