"""Checkpoints: the weights after each epoch, and which of them is the latest whole one."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from infra.training.model import from_npz, to_npz
from infra.training.output import say
from infra.training.store import ObjectStore

if TYPE_CHECKING:
    from infra.training.model import Weights

BUCKET = "training-checkpoints"
KEEP_IN_LIST = 3
_KEY = re.compile(r".*/epoch-(\d+)\.npz")


@dataclass(frozen=True)
class Checkpoint:
    """Weights as they were after an epoch."""

    epoch: int
    weights: Weights


class Checkpoints:
    """The checkpoints of one job: `<job>/epoch-0001.npz` ... and `<job>/latest.json`, written after each."""

    def __init__(self, store: ObjectStore, job: str, say: Callable[[str], None] = say) -> None:
        self._store, self._job, self._say = store, job, say
        self._recent: list[dict[str, object]] = []

    def save(self, epoch: int, weights: Weights) -> str:
        """Write a checkpoint, then name it as the latest; returns bucket/key."""
        data = to_npz(weights)
        key = f"{self._job}/epoch-{epoch:04d}.npz"
        self._store.put(BUCKET, key, data)
        entry = {"epoch": epoch, "key": key, "sha256": hashlib.sha256(data).hexdigest()}
        self._recent = [entry, *self._recent][:KEEP_IN_LIST]
        latest = {**entry, "recent": self._recent}
        self._store.put(BUCKET, f"{self._job}/latest.json", json.dumps(latest).encode(), "application/json")
        return f"{BUCKET}/{key}"

    def latest(self) -> Checkpoint | None:
        """Return the newest checkpoint that is whole; damaged ones are named and passed over. None without any."""
        self._recent = self._named()
        for entry in list(self._recent):
            found = self._read(str(entry["key"]), int(str(entry["epoch"])), str(entry["sha256"]))
            if found:
                return found
            self._recent.remove(entry)
        return next(filter(None, (self._read(key, epoch) for epoch, key in self._listed())), None)

    def _named(self) -> list[dict[str, object]]:
        """List what latest.json names, newest first; nothing when it is missing or damaged."""
        text = self._store.get(BUCKET, f"{self._job}/latest.json")
        try:
            recent = json.loads(text or b"{}").get("recent", [])
            return [{"epoch": int(e["epoch"]), "key": str(e["key"]), "sha256": str(e["sha256"])} for e in recent]
        except (ValueError, AttributeError, KeyError, TypeError):
            self._say(f"{BUCKET}/{self._job}/latest.json is damaged")
            return []

    def _listed(self) -> Iterator[tuple[int, str]]:
        """Yield the epoch and key of all checkpoints in the store, newest first."""
        found = (_KEY.fullmatch(key) for key in self._store.listing(BUCKET, f"{self._job}/"))
        yield from sorted(((int(m[1]), m[0]) for m in found if m), reverse=True)

    def _read(self, key: str, epoch: int, sha256: str = "") -> Checkpoint | None:
        data = self._store.get(BUCKET, key)
        try:
            if data is None or (sha256 and hashlib.sha256(data).hexdigest() != sha256):
                raise ValueError("missing or changed")
            # Without a digest, the checksums inside the file tell.
            return Checkpoint(epoch, from_npz(data))
        except ValueError as error:
            self._say(f"checkpoint {BUCKET}/{key} is not usable: {error}")
            return None
