from __future__ import annotations

import pytest

from infra.data.objects import keys as objects_keys
from infra.data.objects.keys import Sieve

UNSAFE = {
    "../x": "..",
    "a/../b": "..",
    "..": "..",
    ".": "part .",
    "./x": "part .",
    "/abs": "absolute",
    "//x": "absolute",
    "a//b": "two consecutive slashes",
    "dir/": "ends with /",
    "a\\b": "backslash",
    "CON": "reserved",
    "a/nul.txt": "reserved",
    "com1 .log": "reserved",
    "trailing.": "dot or a space",
    "a /b": "dot or a space",
    "a:b": "Windows",
    "what?": "Windows",
    "bell\x07": "control",
    "new\nline": "control",
    "\udcff": "UTF-8",
    ".part-1-2-3": "being written",
    "x" * 256: "255 bytes",
}
SAFE = ["a", "a/b/c.txt", "-lead", "$(x)", "it's", "é", "é", "한글/x", "..a", "a..b", "console", "a b/c d", "x" * 255]


@pytest.mark.parametrize(("key", "why"), UNSAFE.items())
def test_unsafe_keys_are_refused_with_the_reason(key: str, why: str) -> None:
    assert why in objects_keys.problem(key)


@pytest.mark.parametrize("key", SAFE)
def test_safe_keys_are_taken(key: str) -> None:
    assert objects_keys.problem(key) == ""


@pytest.mark.parametrize("key", ["runs/2025-01-01T10:00:00/a.png", "a\\b", "CON", "a/nul.txt", "end.", "a /b", "what?"])
def test_what_only_windows_refuses_is_taken_elsewhere(key: str) -> None:
    assert objects_keys.problem(key, portable=True)
    assert objects_keys.problem(key, portable=False) == ""


@pytest.mark.parametrize("key", ["../x", "a/..", ".", "/abs", "a//b", "dir/", "a\0b", "new\nline", "\udcff", "x" * 256])
def test_what_no_system_takes_is_refused_everywhere(key: str) -> None:
    assert objects_keys.problem(key, portable=False)


def sieved(fold: objects_keys.Fold, *keys: str) -> dict[str, str]:
    sieve = Sieve(fold)
    for key in keys:
        sieve.add(key)
    return {key: problem for key in keys if (problem := sieve.problem(key))}


def test_a_key_that_is_file_and_directory_is_refused_and_what_is_below_is_not() -> None:
    refused = sieved(objects_keys.exact, "dir", "dir-a", "dir/x", "other")
    assert list(refused) == ["dir"]
    assert "prefix of other keys" in refused["dir"]


def test_upper_and_lower_case_meet_only_where_the_file_system_says_so() -> None:
    assert sieved(objects_keys.exact, "File", "file", "D/a", "d/b") == {}
    assert list(sieved(objects_keys.case_folded, "File", "file", "x")) == ["File", "file"]


def test_directories_that_fall_together_are_refused() -> None:
    assert list(sieved(objects_keys.case_folded, "D/a", "d/b", "e/a")) == ["D/a", "d/b"]


def test_the_two_spellings_of_an_accent_meet() -> None:
    both = ("caf\u00e9", "cafe\u0301")
    assert sieved(objects_keys.exact, *both) == {}
    assert list(sieved(objects_keys.composed, *both)) == list(both)


def test_a_file_and_a_directory_may_also_meet_by_case() -> None:
    assert list(sieved(objects_keys.case_folded, "Dir", "dir/x")) == ["Dir"]


def test_an_unsafe_key_hinders_no_other() -> None:
    assert list(sieved(objects_keys.exact, "a/../b", "a")) == ["a/../b"]
