"""Manifests of snapshots that this tool has not written, although their checksum fits."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from infra.data import store
from infra.data.snapshot import manifest

FACTS: dict[str, Any] = {
    "label": "monday",
    "why": "",
    "tier": "native",
    "leftOut": {},
    "quiesce": [],
    "recipients": [],
    "parts": {
        "databases": {"databases": {"users": {"rows": 3}}, "bytes": 30},
        "objects": {"buckets": [], "objects": 0, "bytes": 0},
        "redis": {"keys": 1},
        "temporal": {"storage": "file"},
    },
}


def _judged(facts: dict[str, Any]) -> str:
    return manifest.judged(store.Backup(Path("/b"), "snapshot", 1, "", facts)).problem


def test_what_this_tool_writes_has_no_problem() -> None:
    assert _judged(FACTS) == ""


@pytest.mark.parametrize(
    ("where", "value"),
    [
        ("tier", 5),
        ("parts", ["databases"]),
        ("recipients", 5),
        ("recipients", [5]),
        ("label", "x\n\x1b[31m"),
        ("leftOut", None),
        ("parts/databases", None),
        ("parts/databases/databases", ["users"]),
        ("parts/objects/bytes", "x"),
        ("parts/redis/keys", "x"),
        ("parts/temporal/storage", "elsewhere"),
        ("parts/other", {}),
    ],
)
def test_what_it_never_writes_is_refused(where: str, value: Any) -> None:
    facts = copy.deepcopy(FACTS)
    *way, last = where.split("/")
    place = facts
    for step in way:
        place = place[step]
    place[last] = value
    assert "not written by this tool" in _judged(facts)
