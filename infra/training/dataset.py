"""The reference dataset: scans of handwritten digits as PNG files with a manifest, in the datasets store.

Source: `sklearn.datasets.load_digits`, 1,797 grey images of 8x8 pixels with 17 levels (0 to 16), the test part of
"Optical Recognition of Handwritten Digits", https://archive.ics.uci.edu/dataset/80.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from infra.errors import PlatformError
from infra.training.store import ObjectStore, get_all, put_all

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BUCKET = "training-datasets"
NAME, VERSION = "digits", "v1"
DATASET = f"{NAME}/{VERSION}"
SIDE = 8
CLASSES = 10
LEVELS = 16
SPLITS = ("train", "val", "test")
# In hundredths of each class; the rest is for training.
TEST_SHARE, VAL_SHARE = 20, 10
SPLIT_SEED = "digits-v1"


@dataclass(frozen=True)
class LabelledImage:
    """One image: its key below the dataset, its digit, its split and the SHA-256 of the file."""

    key: str
    label: int
    split: str
    sha256: str


@dataclass(frozen=True)
class Split:
    """Images as rows of pixels, shape (n, 64), 0 to 1, and their digits, shape (n,)."""

    images: NDArray[np.float64]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class Published:
    """Numbers of images in the dataset, and of those that had to be sent."""

    count: int
    sent: int


def assign(labels: Sequence[int]) -> list[str]:
    """Return the split of each image: the same shares of every class, drawn by a hash.

    A hash instead of a random generator: no library's version can change who is held out.
    """
    splits = ["train"] * len(labels)
    for label in sorted(set(labels)):
        members = sorted((i for i, found in enumerate(labels) if found == label), key=_draw)
        test, val = len(members) * TEST_SHARE // 100, len(members) * VAL_SHARE // 100
        for index in members[:test]:
            splits[index] = "test"
        for index in members[test : test + val]:
            splits[index] = "val"
    return splits


def _draw(index: int) -> bytes:
    return hashlib.sha256(f"{SPLIT_SEED}:{index}".encode()).digest()


def build() -> tuple[dict[str, bytes], bytes]:
    """Return all PNG files by key below the dataset, and the text of the manifest; always the same."""
    from sklearn.datasets import load_digits

    found = load_digits()
    labels = [int(label) for label in found.target]
    files, items = {}, []
    for index, (pixels, label, split) in enumerate(zip(found.images, labels, assign(labels), strict=True)):
        key = f"{split}/{label}/{index:04d}.png"
        files[key] = encode(pixels)
        items.append(LabelledImage(key, label, split, hashlib.sha256(files[key]).hexdigest()))
    return files, manifest(items)


def manifest(items: Sequence[LabelledImage]) -> bytes:
    """Return the manifest's JSON."""
    head = {
        "name": NAME,
        "version": VERSION,
        "count": len(items),
        "source": "https://archive.ics.uci.edu/dataset/80 as in sklearn.datasets.load_digits",
        "image": {"format": "png", "width": SIDE, "height": SIDE, "mode": "L"},
        "classes": list(range(CLASSES)),
        "splits": {split: sum(i.split == split for i in items) for split in SPLITS},
    }
    return json.dumps({**head, "items": [asdict(i) for i in items]}, indent=1).encode()


def encode(pixels: NDArray[np.float64]) -> bytes:
    """Return a PNG file, 8-bit grey, of an 8x8 image with levels 0 to 16."""
    import numpy as np
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.rint(pixels * 255 / LEVELS).astype(np.uint8)).save(buffer, format="PNG")
    return buffer.getvalue()


def decode(png: bytes) -> NDArray[np.float64]:
    """Return the pixels of a PNG file as a row of 64 numbers, 0 to 1."""
    import numpy as np
    from PIL import Image

    with Image.open(io.BytesIO(png)) as image:
        return np.asarray(image.convert("L"), dtype=np.float64).ravel() / 255


def publish(store: ObjectStore) -> Published:
    """Make the dataset complete in the store; sends only what is missing or differs, the manifest last.

    Raises:
        Unavailable: the store is away.
    """
    present = store.listing(BUCKET, f"{DATASET}/")
    count = _complete(store, present)
    if count:
        return Published(count, 0)
    files, text = build()
    missing = [(f"{DATASET}/{k}", data) for k, data in files.items() if present.get(f"{DATASET}/{k}") != _md5(data)]
    put_all(store, BUCKET, missing, "image/png")
    store.put(BUCKET, f"{DATASET}/manifest.json", text, "application/json")
    return Published(len(files), len(missing))


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def _complete(store: ObjectStore, present: Iterable[str]) -> int:
    """Return the number of images when the manifest and everything it names are there, else 0."""
    if f"{DATASET}/manifest.json" not in present:
        return 0
    text = store.get(BUCKET, f"{DATASET}/manifest.json")
    items = _items(text) if text else []
    there = set(present)
    return len(items) if all(f"{DATASET}/{i.key}" in there for i in items) else 0


def _items(text: bytes) -> list[LabelledImage]:
    """Return the items of a manifest; none when it is damaged or cut."""
    try:
        found: dict[str, Any] = json.loads(text)
        items = [LabelledImage(**entry) for entry in found["items"]]
    except (ValueError, TypeError, KeyError):
        return []
    return items if len(items) == found.get("count") else []


WHOLE = slice(None)
"""All of a split."""


def load(store: ObjectStore, dataset: str, parts: Mapping[str, slice]) -> dict[str, Split]:
    """Read splits of a dataset, every file checked against the manifest.

    Args:
        dataset: name/version, e.g. `digits/v1`.
        parts: by split (of `SPLITS`), which of its images, by their place in the manifest; nothing else is read.

    Raises:
        PlatformError: NOT_FOUND without a manifest, TASK_FAILED for an image that is missing or damaged.
        Unavailable: the store is away.
    """
    text = store.get(BUCKET, f"{dataset}/manifest.json")
    items = _items(text) if text else []
    if not items:
        raise PlatformError(
            "NOT_FOUND", f"the dataset {dataset} is not in the bucket {BUCKET}, or its manifest is damaged"
        )
    return {split: _read(store, dataset, [i for i in items if i.split == split][part]) for split, part in parts.items()}


def _read(store: ObjectStore, dataset: str, items: Sequence[LabelledImage]) -> Split:
    import numpy as np

    files = get_all(store, BUCKET, [f"{dataset}/{item.key}" for item in items])
    checked = [_checked(dataset, item, data) for item, data in zip(items, files, strict=True)]
    images = np.stack([decode(data) for data in checked])
    return Split(images, np.array([item.label for item in items], dtype=np.int64))


def _checked(dataset: str, item: LabelledImage, data: bytes | None) -> bytes:
    if data is not None and hashlib.sha256(data).hexdigest() == item.sha256:
        return data
    raise PlatformError(
        "TASK_FAILED",
        f"{BUCKET}/{dataset}/{item.key} is {'missing' if data is None else 'damaged'}",
        why="its SHA-256 is not the one in the manifest" if data else "",
        steps=(f"delete {BUCKET}/{dataset}/manifest.json and train again: the images are uploaded again",),
    )
