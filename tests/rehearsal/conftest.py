"""The stage of the rehearsal: a new one, or one that stands already; and the table at the end."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.rehearsal.stage import Stage
from tests.rig import images, operators
from tests.rig.kind import up

_ROWS = pytest.StashKey[list[tuple[str, str, str, str]]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rehearsal", default="", help="directory of a stage that stands already; it is left standing")


@pytest.fixture(scope="session")
def stage(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A deployed site."""
    missing = [recipe.name for recipe in operators.OPERATORS[:3] if not images.present(recipe)]
    if missing or not up.values():
        pytest.skip(f"not made: {', '.join(missing)}: python -m tests.rig.up --kind --operators (Linux, root)")
    standing = request.config.getoption("--rehearsal")
    made = Stage(Path(standing) if standing else tmp_path_factory.mktemp("rehearsal"))
    try:
        made.up()
        yield made
    finally:
        if not standing:
            made.down()


@dataclass
class Table:
    """What was done, what was expected, what was seen, and the longest gap in seconds."""

    rows: list[tuple[str, str, str, str]] = field(default_factory=list)

    def add(self, fault: str, expected: str, seen: str, gap: float | None = None) -> None:
        """Add a line."""
        self.rows.append((fault, expected, seen, "" if gap is None else f"{gap:.1f}"))


@pytest.fixture(scope="session")
def table(request: pytest.FixtureRequest) -> Table:
    """The table of this run."""
    made = Table()
    request.config.stash[_ROWS] = made.rows
    return made


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the table."""
    rows = config.stash.get(_ROWS, [])
    if rows:
        terminalreporter.section("rehearsal")
        for row in (("fault", "expected", "seen", "gap in s"), *rows):
            terminalreporter.write_line("| " + " | ".join(row) + " |")
