from __future__ import annotations

import json

import numpy as np
import pytest

from infra.training.checkpoints import BUCKET, Checkpoints
from tests.unit.training.fakes import MemoryStore


def weights(number: float) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float64]]]:
    return {"coef_0": np.full((3, 2), number)}


class Said(list[str]):
    """What was said."""


@pytest.fixture
def said() -> Said:
    return Said()


@pytest.fixture
def store(said: Said) -> MemoryStore:
    """Three checkpoints."""
    made = MemoryStore()
    checkpoints = Checkpoints(made, "job", said.append)
    for epoch in (1, 2, 3):
        checkpoints.save(epoch, weights(epoch))
    return made


def latest_epoch(store: MemoryStore, said: Said) -> int:
    found = Checkpoints(store, "job", said.append).latest()
    if found is None:
        return 0
    assert np.array_equal(found.weights["coef_0"], weights(found.epoch)["coef_0"])
    return found.epoch


def test_latest_is_named_after_the_file_is_there(store: MemoryStore) -> None:
    assert store.writes[-2:] == [f"{BUCKET}/job/epoch-0003.npz", f"{BUCKET}/job/latest.json"]
    assert json.loads(store.objects[BUCKET, "job/latest.json"])["key"] == "job/epoch-0003.npz"


def test_the_latest_is_found(store: MemoryStore, said: Said) -> None:
    assert latest_epoch(store, said) == 3
    assert said == []


def test_none_without_any(said: Said) -> None:
    assert latest_epoch(MemoryStore(), said) == 0


def test_a_damaged_one_is_passed_over_and_named(store: MemoryStore, said: Said) -> None:
    store.objects[BUCKET, "job/epoch-0003.npz"] = store.objects[BUCKET, "job/epoch-0002.npz"]
    assert latest_epoch(store, said) == 2
    assert "epoch-0003" in said[0]


def test_a_missing_one_is_passed_over(store: MemoryStore, said: Said) -> None:
    del store.objects[BUCKET, "job/epoch-0003.npz"]
    del store.objects[BUCKET, "job/epoch-0002.npz"]
    assert latest_epoch(store, said) == 1


@pytest.mark.parametrize("text", [b"{", b"[]", b'{"recent": [{"epoch": 3}]}', b'{"recent": 3}', None])
def test_without_a_usable_latest_file_the_newest_whole_one_counts(
    store: MemoryStore, said: Said, text: bytes | None
) -> None:
    del store.objects[BUCKET, "job/latest.json"]
    if text is not None:
        store.objects[BUCKET, "job/latest.json"] = text
    store.objects[BUCKET, "job/epoch-0003.npz"] = store.objects[BUCKET, "job/epoch-0003.npz"][:-40]
    assert latest_epoch(store, said) == 2


def test_other_jobs_do_not_count(store: MemoryStore, said: Said) -> None:
    assert Checkpoints(store, "jo", said.append).latest() is None
