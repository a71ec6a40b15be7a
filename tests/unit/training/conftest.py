"""The dataset, built once for all tests."""

from __future__ import annotations

import pytest

from infra.training import dataset
from infra.training.dataset import Split
from tests.unit.training.fakes import MemoryStore


@pytest.fixture(scope="session")
def built() -> tuple[dict[str, bytes], bytes]:
    """All images and the manifest."""
    return dataset.build()


@pytest.fixture
def published(built: tuple[dict[str, bytes], bytes]) -> MemoryStore:
    """A store with the whole dataset in it, as if nobody had touched it since."""
    store = MemoryStore()
    files, manifest = built
    store.objects = {(dataset.BUCKET, f"{dataset.DATASET}/{key}"): data for key, data in files.items()}
    store.objects[dataset.BUCKET, f"{dataset.DATASET}/manifest.json"] = manifest
    return store


@pytest.fixture(scope="session")
def splits(built: tuple[dict[str, bytes], bytes]) -> dict[str, Split]:
    """All splits, decoded."""
    store = MemoryStore()
    store.objects = {(dataset.BUCKET, f"{dataset.DATASET}/{key}"): data for key, data in built[0].items()}
    store.objects[dataset.BUCKET, f"{dataset.DATASET}/manifest.json"] = built[1]
    return dataset.load(store, dataset.DATASET, dict.fromkeys(dataset.SPLITS, dataset.WHOLE))
