"""Images of releases that start first come first; the others wait for theirs, and for nothing else."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import pytest

from infra.errors import PlatformError
from infra.tiers.kind.convoy import HELD, Convoy
from infra.tiers.kind.images import Load
from infra.tiers.kind.loading import Streams

OF = {"postgresql": ["pg:1"], "redis": ["redis:1"], "temporal": ["temporal:1", "pg:1"]}


class Way:
    """What loads: later images only when told, and with an error where one is given."""

    def __init__(self, error: PlatformError | None = None) -> None:
        self.loaded: list[list[str]] = []
        self.noted: dict[str, str] = {}
        self.go = threading.Event()
        self.error = error

    def load(self, references: Sequence[str], streams: Streams) -> None:
        if "temporal:1" in references:
            assert self.go.wait(20)
            if self.error:
                raise self.error
        self.loaded.append(list(references))

    def note(self, loaded: dict[str, str]) -> None:
        self.noted |= loaded


def convoy(way: Way, *missing: str) -> Convoy:
    given: Any = way
    return Convoy(Load(given, missing, dict.fromkeys(missing, "id")), OF, ["postgresql", "redis"])


def test_what_starts_first_is_there_while_the_rest_is_under_way() -> None:
    way = Way()
    made = convoy(way, "pg:1", "redis:1", "temporal:1")
    made.begin()
    assert way.loaded == [["pg:1", "redis:1"]]
    assert (made.held("redis"), made.held("temporal")) == ("", HELD)
    way.go.set()
    made.finish()
    assert made.held("temporal") == ""
    assert way.loaded[1:] == [["temporal:1"]], "what is there already is not loaded twice"
    assert set(way.noted) == {"pg:1", "redis:1", "temporal:1"}


def test_nothing_is_held_when_only_the_first_miss_something() -> None:
    way = Way()
    made = convoy(way, "pg:1")
    made.begin()
    assert made.held("temporal") == ""
    made.finish()
    assert way.loaded == [["pg:1"]]


def test_nothing_is_loaded_or_written_when_all_is_there() -> None:
    way = Way()
    made = convoy(way)
    made.begin()
    made.finish()
    assert (way.loaded, way.noted) == ([], {})


def test_what_goes_wrong_in_the_background_ends_the_wait() -> None:
    way = Way(PlatformError("PROGRAM_FAILED", "kind ended with 1"))
    made = convoy(way, "pg:1", "temporal:1")
    made.begin()
    way.go.set()
    for look in (made.finish, lambda: made.held("temporal")):
        with pytest.raises(PlatformError) as caught:
            look()
        assert caught.value.code == "PROGRAM_FAILED"
    assert set(way.noted) == {"pg:1"}, "what did not get there is not noted"


def test_what_nobody_waits_for_is_ended() -> None:
    way = Way()
    made = convoy(way, "pg:1", "temporal:1")
    made.begin()
    made.stop()
    assert made.load.streams.ended
    way.go.set()
