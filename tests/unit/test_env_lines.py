"""Variables as shells and readers of .env files take them: each form is read back by what it is made for."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from dotenv import dotenv_values

from infra.console import SHELLS, env_lines

ODD = {
    "PLAIN": "postgresql://admin:devpass@localhost:5432/platform",
    "EMPTY": "",
    "BLANKS": "  two  words ",
    "SINGLE": "it's",
    "DOUBLE": 'say "hi"',
    "DOLLAR": "$HOME ${HOME} $(id) `id`",
    "BACKSLASH": "a\\b \\n \\\\ end\\",
    "PERCENT": "100% %PATH% %%",
    "SPECIAL": "a&b|c<d>e^f;g!h#i*j?k(l)m~n",
    "QUOTED_SPECIAL": 'a"&calc|x"<y>^',
    "TYPOGRAPHIC": "a\u2018b\u2019c\u201ad\u201be",
    "UNICODE": "한글 ✓ é",
    "EVERYTHING": "'\"\\$`%&",
}


def _lines(shell: str) -> str:
    return "\n".join(env_lines(ODD, shell)) + "\n"


def _printed(names: dict[str, str]) -> str:
    return "".join(f'printf "%s\\n" "${name}"\n' for name in names)


@pytest.mark.skipif(os.name == "nt", reason="needs a POSIX shell")
@pytest.mark.parametrize("shell", ["", "sh"])
@pytest.mark.parametrize("program", ["sh", "bash", "dash"])
def test_posix_shells_read_back_every_value(shell: str, program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"no {program} here")
    text = _lines(shell) + _printed(ODD)
    done = subprocess.run([program, "-eu"], input=text, capture_output=True, encoding="utf-8", check=True)
    assert done.stdout.splitlines() == list(ODD.values())


@pytest.mark.skipif(os.name == "nt", reason="needs a POSIX shell")
def test_eval_of_the_lines_exports_the_values() -> None:
    text = f"eval {_as_word(_lines('sh'))}\nprintenv DOLLAR SINGLE\n"
    done = subprocess.run(["sh", "-eu"], input=text, capture_output=True, encoding="utf-8", check=True)
    assert done.stdout.splitlines() == [ODD["DOLLAR"], ODD["SINGLE"]]


def _as_word(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


# A quote or a backslash together with what double quotes expand has no form that both shells and .env readers take.
DOTENV = {name: value for name, value in ODD.items() if name != "EVERYTHING"}


def test_readers_of_env_files_read_back_every_value(tmp_path: Path) -> None:
    text = "\n".join(env_lines(DOTENV)) + "\n"
    assert dotenv_values(stream=io.StringIO(text), interpolate=False) == DOTENV


def _fish(line: str) -> tuple[str, str]:
    """Fish: in single quotes only the backslash and the quote are special (fishshell.com/docs, Quotes)."""
    found = re.fullmatch(r"set -gx (\w+) '((?:[^'\\]|\\.)*)'", line)
    assert found is not None, line
    return found[1], re.sub(r"\\([\\'])", r"\1", found[2])


def _powershell(line: str) -> tuple[str, str]:
    """PowerShell: five characters are single quotes, and two of them stand for the second (about_Quoting_Rules)."""
    found = re.fullmatch("\\$Env:(\\w+) = '((?:[^'\u2018-\u201b]|['\u2018-\u201b]{2})*)'", line)
    assert found is not None, line
    return found[1], re.sub("['\u2018-\u201b](['\u2018-\u201b])", r"\1", found[2])


def _cmd(line: str) -> tuple[str, str]:
    """cmd in a batch file: %% is %, carets count outside of quotes only, and `set "` takes all up to the last quote."""
    text, quoted, kept = iter(line.replace("%%", "\0").replace("%", "").replace("\0", "%")), False, ""
    for character in text:
        quoted ^= character == '"'
        assert quoted or character not in "&|<>()", f"cmd would run a part of {line}"
        kept += next(text) if character == "^" and not quoted else character
    found = re.fullmatch(r'set "(\w+)=(.*)"', kept)
    assert found is not None, line
    return found[1], found[2]


@pytest.mark.parametrize(("shell", "read"), [("fish", _fish), ("powershell", _powershell), ("cmd", _cmd)])
def test_other_shells_read_back_every_value(shell: str, read: Callable[[str], tuple[str, str]]) -> None:
    assert dict(map(read, env_lines(ODD, shell))) == ODD


def test_the_shells_that_can_be_named() -> None:
    assert set(SHELLS) == {"sh", "fish", "powershell", "cmd"}


def test_what_needs_no_quotes_has_none_so_that_docker_takes_it() -> None:
    plain = {"URL": "postgresql://a:b%40@localhost:5432/c", "EMPTY": "", "LIST": "a,b", "WORD": "a-b_c.d=e+f"}
    assert env_lines(plain) == [f"{name}={value}" for name, value in plain.items()]
    assert env_lines({"HOME": "~", "TWO": "a b"}) == ["HOME='~'", "TWO='a b'"]
