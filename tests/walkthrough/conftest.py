"""The clone that all walkthroughs share: the README comes first, what comes after it finds everything installed."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.settings import ROOT
from tests.walkthrough.clone import START, Clone, git


@pytest.fixture(scope="session")
def clone() -> Iterator[Clone]:
    """A clone of HEAD below a private directory with blanks and non-ASCII letters in its name."""
    if not git("rev-parse", "--verify", "--quiet", "HEAD"):
        pytest.skip("this checkout is no git repository with a commit")
    place = Path(tempfile.mkdtemp(prefix="walk through ü 플랫폼 ")).resolve()
    made = Clone(place / "the checkout")
    try:
        git("clone", "--quiet", str(ROOT), str(made.root))
        yield made
    finally:
        made.end()


@pytest.fixture(scope="module")
def running(clone: Clone) -> Iterator[Clone]:
    """The same with a platform that runs."""
    done = clone.script(START)
    assert done.returncode == 0, done.stderr
    yield clone
    clone.script(START, "--stop")
