"""What differs between tiers is a method or an attribute of the tier: no code asks which one it has."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence

import pytest

from infra import catalog, tier_choice
from tests.drift.repo import modules


def branches(source: str) -> Iterator[int]:
    """Lines that compare something with the name of a tier, written out or as a constant of the module."""
    tree = ast.parse(source)
    named = [n for n in tree.body if isinstance(n, ast.Assign) and _names(n.value, ())]
    constants = [t.id for n in named for t in n.targets if isinstance(t, ast.Name)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            if any(_names(part, constants) for part in (node.left, *node.comparators)):
                yield node.lineno
        elif isinstance(node, ast.MatchValue) and _names(node.value, constants):
            yield node.value.lineno


def _names(node: ast.expr, constants: Sequence[str]) -> bool:
    """Whether an expression is the name of a tier, or a collection with one."""
    parts = node.elts if isinstance(node, ast.Tuple | ast.List | ast.Set) else [node]
    literal = any(isinstance(p, ast.Constant) and p.value in catalog.TIERS for p in parts)
    return literal or any(isinstance(p, ast.Name) and p.id in constants for p in parts)


@pytest.mark.parametrize("source", ['tier.name == "compose"', 'name in ("native", "kind")', "JOBS != name"])
def test_a_branch_on_a_name_is_seen(source: str) -> None:
    assert list(branches(f'JOBS = "kind"\nfound = {source}')) == [2]


@pytest.mark.parametrize("module", modules())
def test_no_code_asks_which_tier_it_has(module: str) -> None:
    assert list(branches(modules()[module].read_text(encoding="utf-8"))) == []


def test_each_tier_of_the_catalogue_has_its_class() -> None:
    assert set(tier_choice.TIERS) == set(catalog.TIERS)
