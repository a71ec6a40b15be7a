"""A private stack on every tier: random logins while it runs, end to end, and back without loss."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.smoke import logins
from tests.smoke.platform import PYTHON, Platform

LIMIT = 600.0


def contract(platform: Platform) -> dict[str, str]:
    """The contract as it is now."""
    found: dict[str, str] = platform.data("env")
    return found


@pytest.fixture
def filled(platform: Platform) -> Iterator[Platform]:
    logins.fill(contract(platform))
    yield platform
    platform.invoke("up", "--no-private", timeout=LIMIT)
    logins.forget(contract(platform))


def done(platform: Platform, *arguments: str) -> None:
    result = platform.invoke(*arguments, timeout=LIMIT)
    assert result.returncode == 0, result.stderr


def test_a_private_stack_works_from_end_to_end(filled: Platform) -> None:
    public = contract(filled)
    done(filled, "up", "--private")
    hidden = contract(filled)
    assert hidden != public
    logins.works(hidden)
    logins.refused(public, hidden)
    done(filled, "train.run", "--command", f"{PYTHON} -c pass")
    done(filled, "doctor")
    done(filled, "secrets.rotate")
    rotated = contract(filled)
    assert rotated != hidden
    logins.works(rotated)
    logins.refused(hidden, rotated)
    done(filled, "train.run", "--command", f"{PYTHON} -c pass")
    done(filled, "up", "--no-private")
    assert contract(filled) == public
    logins.works(public)
