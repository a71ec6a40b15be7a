"""Whatever a server answers in place of S3's XML: an odd answer, never another failure."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.data.objects import xml

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="<&\0"), max_size=40)
NAMES = st.sampled_from(
    ["Contents", "Version", "DeleteMarker", "Key", "Size", "ETag", "IsLatest", "EncodingType", "Tag", "Value", "x:y"]
)
ELEMENTS = st.recursive(
    st.tuples(NAMES, TEXT).map(lambda pair: f"<{pair[0]}>{pair[1]}</{pair[0]}>"),
    lambda inner: st.tuples(NAMES, st.lists(inner, max_size=4)).map(
        lambda pair: f"<{pair[0]}>{''.join(pair[1])}</{pair[0]}>"
    ),
    max_leaves=12,
)
PAGES = st.lists(ELEMENTS, max_size=4).map(lambda parts: f"<ListBucketResult>{''.join(parts)}</ListBucketResult>")
HEADS = st.sampled_from(["", "<?xml version='1.0' encoding='utf-16'?>", "<?xml version='1.0' encoding='odd'?>"])
BODIES = st.binary(max_size=200) | st.tuples(HEADS, PAGES).map(lambda pair: "".join(pair).encode())


@given(BODIES)
def test_any_answer_is_a_listing_or_odd(body: bytes) -> None:
    with contextlib.suppress(xml.OddAnswer):
        page = xml.parse(body)
        for entry in xml.entries(page):
            assert entry.key
            assert entry.size >= 0
        assert all(isinstance(value, str) for value in xml.following(page, versions=True).values())


@given(BODIES)
def test_any_answer_has_tags_or_is_odd(body: bytes) -> None:
    with contextlib.suppress(xml.OddAnswer):
        assert all(isinstance(part, str) for pair in xml.tags(body) for part in pair)


@given(BODIES)
def test_any_answer_is_an_error_with_words(body: bytes) -> None:
    assert all(isinstance(part, str) for part in xml.error_of(body))


def test_entities_that_multiply_are_odd() -> None:
    """A kilobyte that would become gigabytes of text."""
    levels = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 12))
    body = f'<!DOCTYPE x [<!ENTITY e0 "{"a" * 100}">{levels}]><x>&e11;</x>'
    with pytest.raises(xml.OddAnswer):
        xml.parse(body.encode())
