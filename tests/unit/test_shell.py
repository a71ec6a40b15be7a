from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from infra import shell
from infra.errors import PlatformError
from tests.unit.helpers import everything


def test_a_command_is_shown_so_that_it_can_be_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("invoke", "minio.verify", "--from", "/a dir/$HOME")
    monkeypatch.setattr(sys, "platform", "linux")
    assert shell.typed(*words) == "invoke minio.verify --from '/a dir/$HOME'"
    monkeypatch.setattr(sys, "platform", "win32")
    assert shell.typed(*words) == 'invoke minio.verify --from "/a dir/$HOME"'


PYTHON = sys.executable


def failing(*arguments: str, limit: float = 20.0) -> PlatformError:
    with pytest.raises(PlatformError) as caught:
        shell.run([PYTHON, "-c", *arguments], limit=limit)
    return caught.value


def test_what_a_program_says_and_its_code() -> None:
    code = "import sys; print('한글'); print('x', file=sys.stderr); sys.exit(3)"
    result = shell.run([PYTHON, "-c", code], env={"PYTHONUTF8": "1"}, check=False)
    assert (result.code, result.out.strip(), result.err.strip(), result.last_line) == (3, "한글", "x", "x")


def test_arguments_are_passed_as_they_are() -> None:
    odd = ["two words", "a'b\"c", "$HOME", "한글", "*", ""]
    code = "import sys; print(ascii(sys.argv[1:]))"
    assert shell.run([PYTHON, "-c", code, *odd]).out.strip() == ascii(odd)


def test_variables_are_added_and_the_input_is_given(tmp_path: Path) -> None:
    code = "import os, sys; print(os.environ['X'], sys.stdin.read(), os.getcwd())"
    assert shell.run([PYTHON, "-c", code], env={"X": "1"}, stdin="in", cwd=tmp_path).out.split() == [
        "1",
        "in",
        str(tmp_path),
    ]


def test_a_program_that_asks_gets_no_answer_instead_of_the_terminal() -> None:
    assert shell.run([PYTHON, "-c", "import sys; print(repr(sys.stdin.read()))"]).out.strip() == "''"


def test_a_failure_names_program_code_cause_and_command() -> None:
    error = failing("import sys; print('why', file=sys.stderr); sys.exit(7)")
    assert error.code == "PROGRAM_FAILED"
    assert error.what == f"{Path(PYTHON).name} ended with 7"
    assert error.why == "why"
    assert PYTHON in error.steps[0]


def test_a_failure_keeps_the_last_lines_for_the_error_block() -> None:
    error = failing("import sys; [print(n, file=sys.stderr) for n in range(50)]; sys.exit(1)")
    assert error.details["log"] == [str(n) for n in range(30, 50)]


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_a_killed_program_is_told_from_one_that_failed() -> None:
    error = failing("import os; os.kill(os.getpid(), 9)")
    assert error.what == f"{Path(PYTHON).name} was killed by signal 9"


def test_a_program_that_takes_too_long_is_ended() -> None:
    error = failing("import time; time.sleep(60)", limit=0.2)
    assert (error.code, error.exit) == ("WAIT_TIMEOUT", 6)


def test_a_program_that_is_not_there() -> None:
    with pytest.raises(PlatformError) as caught:
        shell.run(["no-such-program-anywhere"])
    assert (caught.value.code, caught.value.exit) == ("PROGRAM_MISSING", 5)
    assert "no-such-program-anywhere" in everything(caught.value)


@pytest.mark.skipif(os.name == "nt", reason="permissions of POSIX")
@pytest.mark.parametrize("mode", [0o644, 0o755], ids=["not executable", "of a foreign format"])
def test_a_file_that_is_no_program(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "tool"
    path.write_bytes(b"\x7fELF\0 is not enough")
    path.chmod(mode)
    with pytest.raises(PlatformError) as caught:
        shell.run([str(path)])
    assert caught.value.code == "PROGRAM_MISSING"
    assert caught.value.what == "tool cannot be started"


def test_find_gives_an_absolute_path_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "tool"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert shell.find("tool") == shell.find("./tool") == shell.find(str(program)) == str(program)
    assert shell.find("other") is None


def test_find_does_not_take_what_cannot_be_run(tmp_path: Path) -> None:
    (tmp_path / "tool").write_text("data")
    assert shell.find(str(tmp_path / "tool")) is None


def test_identity_of_another_user_drops_all_groups() -> None:
    assert shell.identity((7, 8)) == {"user": 7, "group": 8, "extra_groups": []}
    assert shell.identity(None) == {}
