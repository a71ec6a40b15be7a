"""What every unit test gets: a clean environment, and a look at the end for processes that were left behind."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator

import psutil
import pytest

from infra import catalog

_MARK = "UNIT_TESTS_RUN"
_TERMINAL = ("CI", "COLUMNS", "FORCE_COLOR", "NO_COLOR", "TERM")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The developer's own settings and terminal decide over no test."""
    for name in list(os.environ):
        if name in catalog.SETTINGS or name in _TERMINAL or name.startswith("PLATFORM_"):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True, scope="session")
def no_process_left() -> Iterator[None]:
    """Every process that a test starts inherits a mark; none that has it may be there at the end."""
    os.environ[_MARK] = mark = uuid.uuid4().hex
    yield
    left = _marked(mark)
    described = [f"{p.pid}: {' '.join(p.cmdline())}" for p in left]
    for process in left:
        process.kill()
    assert not described, f"the tests left processes behind: {described}"


def _marked(mark: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get(_MARK) == mark:
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return [p for p in found if p.status() != psutil.STATUS_ZOMBIE]
