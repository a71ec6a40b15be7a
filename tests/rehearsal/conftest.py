"""The stage of the rehearsal: a new one, or one that stands already; and the table at the end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.rehearsal.stage import Stage, lines
from tests.rig import images, operators
from tests.rig.kind import up

_LINES = pytest.StashKey[list[str]]()
PHASES = (
    *("test_deployed", "test_failures", "test_archive", "test_changes", "test_guards", "test_snapshot"),
    "test_remains",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rehearsal", default="", help="directory of a stage, made if need be; it is left standing")
    parser.addoption("--as-it-is", action="store_true", help="nothing is deployed before: the stage is as it should be")


@pytest.fixture(scope="session")
def stage(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A deployed site."""
    missing = [recipe.name for recipe in operators.OPERATORS[:3] if not images.present(recipe)]
    if missing or not up.values():
        pytest.skip(f"not made: {', '.join(missing)}: python -m tests.rig.up --kind --operators (Linux, root)")
    standing = request.config.getoption("--rehearsal")
    made = Stage(Path(standing) if standing else tmp_path_factory.mktemp("rehearsal"))
    try:
        if not request.config.getoption("--as-it-is"):
            made.up()
        yield made
    finally:
        request.config.stash[_LINES] = lines(made)
        if not standing:
            made.down()


@dataclass(frozen=True)
class Table:
    """What was done, what was expected, what was seen, and the longest gap in seconds."""

    stage: Stage

    def add(self, fault: str, expected: str, seen: str, gap: float | None = None) -> None:
        """Add a line."""
        row = (fault, expected, seen, "" if gap is None else f"{gap:.1f}")
        with self.stage.table.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


@pytest.fixture(scope="session")
def table(stage: Stage) -> Table:
    """The table of this stage."""
    return Table(stage)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the phases into their order: what takes most away comes last."""
    items.sort(key=lambda item: PHASES.index(item.path.stem) if item.path.stem in PHASES else -1)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the table."""
    if rows := config.stash.get(_LINES, []):
        terminalreporter.section("rehearsal")
        for row in rows:
            terminalreporter.write_line(row)
