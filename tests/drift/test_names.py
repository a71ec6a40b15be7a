"""A class has its name to itself: a search for it finds one thing."""

from __future__ import annotations

import ast
from collections import Counter

from tests.drift.repo import modules


def test_no_name_is_borne_by_two_classes() -> None:
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in modules().values()]
    names = Counter(node.name for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef))
    assert [name for name, number in names.items() if number > 1] == []
