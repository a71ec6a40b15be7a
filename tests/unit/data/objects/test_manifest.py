"""Manifests of objects that this tool has not written, although their checksum fits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from infra.data import store
from infra.data.objects import records

BUCKET = {"store": "minio-datasets", "name": "b", "objects": 5, "bytes": 500}
FACTS: dict[str, Any] = {"buckets": [BUCKET], "objects": 5, "bytes": 500}


def _judged(facts: dict[str, Any]) -> str:
    return records.judged(store.Backup(Path("/b"), "objects", 1, "", facts)).problem


def test_what_this_tool_writes_has_no_problem() -> None:
    assert _judged(FACTS) == ""


@pytest.mark.parametrize(
    "facts",
    [
        {},
        {**FACTS, "buckets": "x"},
        {**FACTS, "buckets": ["b"]},
        {**FACTS, "buckets": [{**BUCKET, "name": "a\nb"}]},
        {**FACTS, "buckets": [{**BUCKET, "bytes": "x"}]},
        {**FACTS, "objects": -5},
        {**FACTS, "bytes": 10**40},
    ],
)
def test_what_it_never_writes_is_refused(facts: dict[str, Any]) -> None:
    assert "not written by this tool" in _judged(facts)
