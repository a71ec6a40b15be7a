"""Odd input for everything that reads text of others: a few examples with the unit tests, many with `nox -s fuzz`."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("quick", max_examples=60, deadline=None, derandomize=True, database=None)
settings.register_profile("long", max_examples=20_000, deadline=None, print_blob=True)
settings.load_profile("quick")
