"""Whatever a program prints: nothing of it controls a terminal."""

from __future__ import annotations

import json
import re
import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from infra.terminal import OURS, visible

TEXT = st.lists(st.text(st.characters()) | st.sampled_from(["\x1b[", "m", "31", "\x1b", "[0", "\r", "\n", "\x9b"])).map(
    "".join
)


@given(TEXT)
def test_nothing_controls_the_terminal(text: str) -> None:
    shown = visible(text)
    assert [c for c in shown if unicodedata.category(c) in ("Cc", "Cs") and c not in "\n\t"] == []
    assert visible(shown) == shown


@given(TEXT)
def test_with_colours_there_are_none_but_ours(text: str) -> None:
    shown = visible(text, styled=True)
    assert set(re.findall("\x1b\\[([0-9;]*)m", shown)) <= OURS
    assert "\x1b" not in re.sub("\x1b\\[[0-9]*m", "", shown)


@given(st.dictionaries(st.text(), st.text()))
def test_json_means_the_same(data: dict[str, str]) -> None:
    assert json.loads(visible(json.dumps(data, ensure_ascii=False))) == data
