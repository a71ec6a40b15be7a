from __future__ import annotations

import collections
import hashlib
import json

import numpy as np
import pytest
from sklearn.datasets import load_digits

from infra.errors import PlatformError
from infra.training import dataset
from infra.training.dataset import Split
from tests.unit.training.fakes import MemoryStore

Built = tuple[dict[str, bytes], bytes]
MANIFEST = f"{dataset.BUCKET}/{dataset.DATASET}/manifest.json"


def test_building_twice_gives_the_same_bytes(built: Built) -> None:
    assert dataset.build() == built


def test_who_is_held_out_never_changes() -> None:
    """The digest of the split: another value means that digits/v1 would mean something else than yesterday."""
    splits = dataset.assign([int(label) for label in load_digits().target])
    assert hashlib.sha256(",".join(splits).encode()).hexdigest()[:16] == "ca21280226cb91bd"


def test_splits_are_disjoint_whole_and_stratified(built: Built) -> None:
    items = json.loads(built[1])["items"]
    assert len({i["key"] for i in items}) == len(items) == 1797
    by_split = {s: {i["sha256"] for i in items if i["split"] == s} for s in dataset.SPLITS}
    assert not by_split["test"] & (by_split["train"] | by_split["val"])
    for label, total in collections.Counter(i["label"] for i in items).items():
        test = sum(i["label"] == label and i["split"] == "test" for i in items)
        assert abs(test - 0.2 * total) <= 1


def test_the_images_are_the_scans(splits: dict[str, Split]) -> None:
    everything = np.concatenate([s.images for s in splits.values()])
    original = load_digits().data
    assert sorted(map(tuple, np.rint(everything * 16).astype(int))) == sorted(map(tuple, original.astype(int)))


def test_first_publication_sends_all_and_the_manifest_last() -> None:
    store = MemoryStore()
    assert dataset.publish(store) == dataset.Published(1797, 1797)
    assert store.writes[-1] == MANIFEST
    assert len(store.writes) == 1798


def test_second_publication_sends_nothing(published: MemoryStore) -> None:
    assert dataset.publish(published) == dataset.Published(1797, 0)
    assert published.writes == []


def test_half_an_upload_is_completed_without_sending_the_rest_again(published: MemoryStore) -> None:
    keys = [k for k in published.objects if not k[1].endswith("manifest.json")]
    del published.objects[dataset.BUCKET, f"{dataset.DATASET}/manifest.json"]
    for key in keys[:40]:
        del published.objects[key]
    published.objects[keys[50]] = b"cut"
    assert dataset.publish(published) == dataset.Published(1797, 41)
    assert published.writes[-1] == MANIFEST


@pytest.mark.parametrize("text", [b"", b"{", b'{"items": [], "count": 3}', b'{"items": [{"key": "a"}]}', b"[]"])
def test_a_damaged_manifest_is_written_anew(published: MemoryStore, text: bytes) -> None:
    published.objects[dataset.BUCKET, f"{dataset.DATASET}/manifest.json"] = text
    assert dataset.publish(published).sent == 0
    assert published.writes == [MANIFEST]


def test_a_lost_image_is_sent_again(published: MemoryStore) -> None:
    del published.objects[next(iter(published.objects))]
    assert dataset.publish(published).sent == 1


def test_loading_reads_no_other_split(published: MemoryStore) -> None:
    found = dataset.load(published, dataset.DATASET, dict.fromkeys(("train", "val"), dataset.WHOLE))
    assert {name: len(s.labels) for name, s in found.items()} == {"train": 1266, "val": 176}
    assert not [r for r in published.reads if "/test/" in r]


@pytest.mark.parametrize(("damage", "word"), [(None, "missing"), (b"not an image", "damaged")])
def test_a_bad_image_is_named(published: MemoryStore, damage: bytes | None, word: str) -> None:
    key = next(k for k in published.objects if "/val/" in k[1])
    if damage is None:
        del published.objects[key]
    else:
        published.objects[key] = damage
    with pytest.raises(PlatformError, match=word) as caught:
        dataset.load(published, dataset.DATASET, {"val": dataset.WHOLE})
    assert key[1] in caught.value.what


def test_no_dataset_is_not_found() -> None:
    with pytest.raises(PlatformError) as caught:
        dataset.load(MemoryStore(), "digits/v9", {"train": dataset.WHOLE})
    assert caught.value.code == "NOT_FOUND"
