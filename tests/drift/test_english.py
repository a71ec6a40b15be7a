"""Texts are what a native speaker of the field would write; docstrings begin with a verb and name codes that exist."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.errors import CODES
from infra.settings import ROOT
from tests.drift import english
from tests.drift.repo import read


def name(path: Path) -> str:
    """Return the path of a file in the checkout."""
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", english.sources(), ids=name)
def test_messages_are_in_plain_english(path: Path) -> None:
    assert [(found, text) for text in english.texts(path) for found in english.banned(text)] == []


@pytest.mark.parametrize("path", english.sources(), ids=name)
def test_docstrings_and_comments_are_in_plain_english(path: Path) -> None:
    texts = [*english.docstrings(path), ("a comment", english.comments(path))]
    assert [(place, found) for place, text in texts for found in english.banned(text)] == []


@pytest.mark.parametrize("path", english.sources(), ids=name)
def test_docstrings_begin_with_a_verb(path: Path) -> None:
    found = [
        (place, word)
        for place, word, is_function in english.openings(path)
        if word in english.QUESTIONS or (is_function and word not in english.VERBS)
    ]
    assert found == []


@pytest.mark.parametrize("path", english.files_for_people())
def test_documents_are_in_plain_english(path: str) -> None:
    assert english.banned(read(path)) == []


@pytest.mark.parametrize("path", english.sources(), ids=name)
def test_docstrings_name_error_codes_that_exist(path: Path) -> None:
    named = {(place, code) for place, text in english.docstrings(path) for code in english.codes_raised(text)}
    assert {(place, code) for place, code in named if code not in CODES} == set()


def test_a_banned_phrase_is_found_across_lines_and_in_comments() -> None:
    assert english.banned("# The image cannot\n# be had, and `anew` is code.") == ["cannot be had"]
    assert english.banned("The image is not available.") == []


def test_codes_behind_a_platform_error_are_found() -> None:
    text = "Open it.\n\nRaises:\n    PlatformError: NOT_FOUND or NO_SUCH when it is gone; TOO_OLD when it is old.\n"
    assert english.codes_raised(text) == {"NOT_FOUND", "NO_SUCH", "TOO_OLD"}
    assert english.codes_raised("Open it. Raises PlatformError USAGE.") == {"USAGE"}
