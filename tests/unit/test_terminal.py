"""Text of programs on its way to a terminal."""

from __future__ import annotations

import pytest

from infra.console import Answer, Table
from infra.errors import PlatformError
from infra.terminal import visible
from tests.unit.helpers import console

TITLE, CLEAR, C1 = "\x1b]0;owned\x07", "\x1b[2J\x1b[H", "\x9b2J"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, 한글 and µ\tand a tab\nand a line", "plain, 한글 and µ\tand a tab\nand a line"),
        ("\x1b[31mred\x1b[0m \x1b[38;5;196mred\x1b[m", "red red"),
        (TITLE, "\\u001b]0;owned\\u0007"),
        (CLEAR, "\\u001b[2J\\u001b[H"),
        (C1, "\\u009b2J"),
        ("shown\rhidden", "shown\\u000dhidden"),
        ("a line of Windows\r\n", "a line of Windows\n"),
        ("user\u202etxt.exe", "user\\u202etxt.exe"),
        ("\ud800", "\\ud800"),
        ("\x1b[8mhidden\x1b[0m", "hidden"),
    ],
)
def test_what_controls_a_terminal_is_seen_and_does_nothing(text: str, shown: str) -> None:
    assert visible(text) == shown
    assert "\x1b" not in visible(text)


def test_our_own_styles_stay_where_there_are_colours() -> None:
    assert visible(f"\x1b[31mfailed\x1b[0m {CLEAR}", styled=True) == "\x1b[31mfailed\x1b[0m \\u001b[2J\\u001b[H"
    assert visible("\x1b[8mhidden\x1b[5;31m!", styled=True) == "hidden!"


def test_answers_warnings_and_error_blocks_carry_no_escapes() -> None:
    said = console()
    said.say(f"job {TITLE}")
    said.warn(CLEAR)
    said.fail(PlatformError("TASK_FAILED", TITLE, why=C1, steps=(CLEAR,), details={"log": [CLEAR]}))
    said.answer(Answer({}, Table(("A",), ((TITLE,),)), (f"  | {CLEAR}",)))
    assert not {"\x1b", "\x9b", "\x07"} & set(said.out + said.err)
    assert said.err.count("2J") == 4


def test_json_means_the_same() -> None:
    import json

    said = console("json")
    text = f"{TITLE}{C1}\u202e"
    said.answer(Answer({"text": text}))
    assert "\x9b" not in said.out
    assert json.loads(said.out)["data"] == {"text": text}


def test_what_a_shell_reads_is_not_touched() -> None:
    said = console("env")
    said.answer(Answer({}, env={"PASSWORD": "a\x9bb"}))
    assert "a\x9bb" in said.out
