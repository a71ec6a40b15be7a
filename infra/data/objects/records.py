"""The lines of an object backup's `manifest.jsonl`: one for each object, version or delete marker, sorted by key.

Fields: store, bucket, key (verbatim), size (bytes), etag, sha256, modified, type (Content-Type), headers (the other
standard ones), metadata (of the user), tags; with versions also version, latest, deleted. An object that vanished
between listing and reading has `gone`, one that could not be read has `failed` with the reason.
Files of 100,000 lines are read as streams; nothing here holds more than one key's versions.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from infra.data import store
from infra.data.objects.xml import ListedObject

if TYPE_CHECKING:
    from infra.stack import Stack

MANIFEST = "manifest.jsonl"
KIND = "objects"

Record = dict[str, Any]
Place = tuple[str, str, bytes]
"""Store, bucket and the key's bytes: the order of a manifest, which is also the order of S3 listings."""


def default_target(home: Stack) -> Path:
    """Return the default directory for backups of objects."""
    return home.backups / KIND


class ObjectItem(NamedTuple):
    """An object to read: where it is, and what the listing said of it."""

    store: str
    bucket: str
    key: str
    size: int
    etag: str
    modified: str
    version: str = ""
    latest: bool = True


def item_of(service: str, bucket: str, entry: ListedObject) -> ObjectItem:
    """Return the item of a line of a listing."""
    return ObjectItem(service, bucket, entry.key, entry.size, entry.etag, entry.modified, entry.version, entry.latest)


def place(service: str, bucket: str, key: str) -> Place:
    """Return the place of a key in the order."""
    return service, bucket, key.encode("utf-8", "surrogateescape")


def place_of(record: Record) -> Place:
    """Return the place of a record in the order."""
    return place(record["store"], record["bucket"], record["key"])


def line_of(record: Record) -> str:
    """Return a record as a line (ASCII, so that any key survives any reader)."""
    return json.dumps(record, separators=(",", ":")) + "\n"


def has_content(record: Record) -> bool:
    """Return whether the record refers to a content of the pool."""
    return "sha256" in record


def is_current(record: Record) -> bool:
    """Return whether the record is an object that a listing without versions shows."""
    return has_content(record) and bool(record.get("latest", True))


def listing(target: Path) -> list[store.Backup]:
    """Return every backup of objects in a target, oldest first, broken ones with their problem."""
    return [judged(b) for b in store.catalogue(target, KIND)]


def judged(backup: store.Backup) -> store.Backup:
    """Return a backup of objects, with a problem where its manifest says what this tool never writes."""
    return store.judged(backup, lambda facts: "" if _are_facts(facts) else "the buckets, or how much they hold")


def _are_facts(facts: Mapping[str, Any]) -> bool:
    buckets = facts.get("buckets")
    if not isinstance(buckets, list) or not all(isinstance(b, dict) for b in buckets):
        return False
    named = all(isinstance(b.get(key), str) and b[key].isprintable() for b in buckets for key in ("store", "name"))
    return named and all(store.is_amount(part.get(key)) for part in (facts, *buckets) for key in ("objects", "bytes"))


def reading(backup: store.Backup) -> Iterator[Record]:
    """Yield the records of a backup, as a stream; its checksum is not looked at here (`store.check_files` does that).

    Raises:
        PlatformError: BACKUP_DAMAGED when the file is missing, a link, or has a line that is none.
    """
    noted = next((f for f in backup.files if f.path == MANIFEST), None)
    if noted is None:
        raise store.damaged(backup, MANIFEST, "is not listed in its manifest")
    with os.fdopen(store.open_file(backup, noted), "rb") as file:
        for number, line in enumerate(file, 1):
            try:
                yield _checked(json.loads(line.decode("ascii")))
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise store.damaged(backup, MANIFEST, f"cannot be read in line {number}") from error


def _checked(record: Any) -> Record:
    """Return the record, provided that it has what everything rests on. Raises KeyError or TypeError."""
    if not all(isinstance(record[name], str) for name in ("store", "bucket", "key")):
        raise TypeError("no text")
    return dict(record)


@dataclass
class Earlier:
    """Records of an earlier run, looked up in the order in which they were written."""

    file: IO[str]
    _group: list[tuple[Record, str]] = field(default_factory=list)
    _at: Place | None = None
    _next: tuple[Record, str] | None = None
    _over: bool = False

    def find(self, item: ObjectItem) -> tuple[Record, str]:
        """Return the record of the same object as it was listed then, with its line; ({}, '') when there is none."""
        wanted = place(item.store, item.bucket, item.key)
        if self._at is not None and wanted < self._at:
            self._rewind()  # an engine that does not sort its listings: slower, still right
        while not self._over and (self._at is None or self._at < wanted):
            self._advance()
        if self._at == wanted:
            return next((found for found in self._group if _same(found[0], item)), ({}, ""))
        return {}, ""

    def _rewind(self) -> None:
        self.file.seek(0)
        self._group, self._at, self._next, self._over = [], None, None, False

    def _advance(self) -> None:
        """Go on to the records of the next key."""
        first = self._next or self._line()
        self._group, self._next = [], None
        if first is None:
            self._over, self._at = True, None
            return
        self._at = place_of(first[0])
        while first is not None and place_of(first[0]) == self._at:
            self._group.append(first)
            first = self._line()
        self._next = first

    def _line(self) -> tuple[Record, str] | None:
        line = self.file.readline()
        try:
            return (_checked(json.loads(line)), line) if line.endswith("\n") else None
        except (ValueError, KeyError, TypeError, RecursionError):
            return None  # the last line of a run that was killed, or damage: from here on nothing is reused


def _same(record: Record, item: ObjectItem) -> bool:
    """Return whether the listing shows the object that the record describes, so that it need not be read again."""
    if not item.etag or record.get("racy") or not has_content(record):
        return False
    then = (record.get("etag"), record.get("size"), record.get("modified"), record.get("version", ""))
    return then == (item.etag, item.size, item.modified, item.version)


def earlier(path: Path) -> Earlier | None:
    """Open what an earlier run wrote; None when it is not there (or is a link)."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
    except OSError:
        return None
    return Earlier(os.fdopen(descriptor, encoding="ascii", errors="replace", newline="\n"))


def selected(records: Iterable[Record], buckets: tuple[str, ...]) -> Iterator[Record]:
    """Yield the records of these buckets, or all."""
    return (r for r in records if not buckets or r["bucket"] in buckets)


class Unsorted(Exception):
    """An engine does not list its keys in S3's order."""


def joined(
    records: Iterable[Record], entries: Iterable[ListedObject], service: str, bucket: str
) -> Iterator[tuple[Record | None, ListedObject | None]]:
    """Yield the records and the listing of one bucket side by side, both as streams; None where one has no such key.

    Raises:
        Unsorted: the listing is out of order; give it as a sorted list then.
    """
    rest = iter(records)
    record = next(rest, None)
    for entry in _in_order(entries):
        here = place(service, bucket, entry.key)
        while record is not None and place_of(record) < here:
            yield record, None
            record = next(rest, None)
        if record is not None and place_of(record) == here:
            yield record, entry
            record = next(rest, None)
        else:
            yield None, entry
    while record is not None:
        yield record, None
        record = next(rest, None)


def _in_order(entries: Iterable[ListedObject]) -> Iterator[ListedObject]:
    before = b""
    for entry in entries:
        key = entry.key.encode("utf-8", "surrogateescape")
        if key < before:
            raise Unsorted
        before = key
        yield entry


def in_order(entries: Iterable[ListedObject]) -> list[ListedObject]:
    """Return a listing, sorted as manifests are."""
    return sorted(entries, key=lambda entry: entry.key.encode("utf-8", "surrogateescape"))
