from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from infra.errors import CODES, EXIT_MEANING, ExitCode, PlatformError
from infra.settings import ROOT

# The table of exit codes that scripts rely on (design/cli.md, 1.3), written down a second time on purpose.
PROMISED = {
    "OK": 0,
    "FAILED": 1,
    "USAGE": 2,
    "CONFIRM": 3,
    "PREFLIGHT": 4,
    "DEPENDENCY": 5,
    "TIMEOUT": 6,
    "SERVICE_FAILED": 7,
    "INCOMPATIBLE": 8,
    "NOTHING": 9,
    "BACKUP": 10,
    "PARTIAL": 11,
    "LOCKED": 12,
    "INTERRUPTED": 130,
    "TERMINATED": 143,
}

# What a user meets in each case, and the number that the same table gives for it.
CODE_EXITS = {
    "INTERNAL": 1,
    "TASK_FAILED": 1,
    "USAGE": 2,
    "SETTING_INVALID": 2,
    "SETTING_UNKNOWN": 2,
    "SETTINGS_UNREADABLE": 2,
    "CONFIRMATION_NEEDED": 3,
    "PREFLIGHT_FAILED": 4,
    "PORT_TAKEN": 4,
    "STATE_UNWRITABLE": 4,
    "PROGRAM_MISSING": 5,
    "UNREACHABLE": 5,
    "LOGIN_REFUSED": 5,
    "TIER_UNAVAILABLE": 5,
    "WAIT_TIMEOUT": 6,
    "SERVICE_FAILED": 7,
    "DATA_INCOMPATIBLE": 8,
    "NOT_RUNNING": 9,
    "PARTIAL": 11,
    "LOCKED": 12,
    "INTERRUPTED": 130,
    "TERMINATED": 143,
}


def test_exit_numbers_are_the_promised_ones() -> None:
    assert {code.name: int(code) for code in ExitCode} == PROMISED


def test_every_exit_number_has_a_meaning_of_its_own() -> None:
    assert set(EXIT_MEANING) == set(ExitCode)
    assert len(set(EXIT_MEANING.values())) == len(ExitCode)


@pytest.mark.parametrize(("code", "number"), CODE_EXITS.items())
def test_a_code_ends_with_its_number(code: str, number: int) -> None:
    assert PlatformError(code, "x").exit == number


@pytest.mark.parametrize("code", CODES)
def test_every_code_says_what_it_stands_for(code: str) -> None:
    kind = CODES[code]
    assert re.fullmatch(r"[A-Z]+(_[A-Z]+)*", code)
    assert len(kind.summary) > 10
    assert kind.exit != ExitCode.OK


def test_waiting_again_can_help_only_where_the_code_says_so() -> None:
    retryable = {code for code, kind in CODES.items() if kind.retryable}
    assert {"LOCKED", "UNREACHABLE", "WAIT_TIMEOUT"} <= retryable
    assert not retryable & {"USAGE", "DATA_INCOMPATIBLE", "LOGIN_REFUSED", "SETTING_INVALID"}


def test_an_unknown_code_is_a_defect_and_not_an_error_for_users() -> None:
    with pytest.raises(KeyError):
        PlatformError("NO_SUCH_CODE", "x")


def test_an_error_keeps_its_own_copy_of_the_details() -> None:
    details: dict[str, object] = {"pid": 1}
    error = PlatformError("LOCKED", "what", why="why", steps=("a", "b"), details=details)
    details["pid"] = 2
    assert error.details == {"pid": 1}
    assert (str(error), error.what, error.why, error.steps) == ("what", "what", "why", ("a", "b"))


def _sources() -> list[Path]:
    return sorted((ROOT / "infra").rglob("*.py"))


@pytest.mark.parametrize("path", _sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_only_known_codes_are_raised(path: Path) -> None:
    """A typing error in a code would turn the error block into a KeyError, in a branch that is seldom taken."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not (isinstance(node, ast.Call) and getattr(node.func, "id", "") == "PlatformError"):
            continue
        constants = [c.value for c in ast.walk(node.args[0]) if isinstance(c, ast.Constant)]
        used = [c for c in constants if isinstance(c, str) and c.isupper()]
        assert set(used) <= set(CODES), f"line {node.lineno}"
