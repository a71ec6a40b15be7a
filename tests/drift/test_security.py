"""SECURITY.md: every threat has a test, and every test that is named exists."""

from __future__ import annotations

import re

from infra.settings import ROOT

DEFAULT = "tests/faults/security"


def rows() -> list[list[str]]:
    """The cells of the table of threats."""
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    table = text.partition("| threat | what protects | test |\n")[2].partition("\n\n")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[1:]]


def test_every_threat_has_a_test_that_exists() -> None:
    found = rows()
    assert len(found) > 10
    for threat, what, tests in found:
        named = re.findall(r"`([^`]+)`", tests)
        assert named, f"no test shows: {threat}"
        assert what, threat
        for name in named:
            place = ROOT / (name if "/" in name else f"{DEFAULT}/{name}")
            assert place.exists(), f"{threat}: {name}"


def test_every_file_of_the_security_tests_is_named() -> None:
    said = " ".join(cells[2] for cells in rows())
    files = {path.name for path in (ROOT / DEFAULT).glob("test_*.py")}
    assert {name for name in files if f"`{name}`" not in said} == set()


def test_a_session_that_ci_runs_has_them() -> None:
    assert f'"{DEFAULT}"' in (ROOT / "noxfile.py").read_text(encoding="utf-8")
