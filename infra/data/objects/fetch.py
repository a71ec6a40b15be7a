"""One object from a store into the pool: hashed as it comes, resumed when it breaks off, never of two versions."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import itertools
import os
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

from infra import private
from infra.data import page_cache
from infra.data.objects import keys, link, xml
from infra.data.objects.client import Client
from infra.data.objects.link import LinkReply, S3Error
from infra.data.objects.pool import Pool
from infra.data.objects.records import ObjectItem, Record

PART = 16 << 20
"""Bytes above which an object is large: it is sent in parts, and its ETag is not an MD5 of the whole."""
CHUNK = 1 << 20
CHANGES = 5
"""Number of times an object may change while it is read before it is left out and reported."""
STANDARD = (
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "expires",
    "x-amz-website-redirect-location",
)
"""Headers of an object that are kept beside Content-Type and the user's metadata."""
_META = "x-amz-meta-"
_MD5 = re.compile(r"^[0-9a-f]{32}$")
_MULTIPART = re.compile(r"^[0-9a-f]{32}-\d+$")
_RACE = 2.0
"""Seconds within which a second change may leave no trace in the time of modification."""

Watch = Callable[[int], None]


class Changed(Exception):
    """The object is no longer the one that was listed."""


@dataclass
class Scratch:
    """A directory for files that are being written; names are made here, so threads do not meet."""

    directory: Path
    _numbers: Any = field(default_factory=itertools.count)

    def new(self) -> Path:
        """Return a name that nobody else uses."""
        return self.directory / f"{os.getpid()}-{threading.get_ident()}-{next(self._numbers)}"


@dataclass
class _Copy:
    """The part of a copy that has arrived so far."""

    file: IO[bytes]
    watch: Watch
    done: int = 0
    sha256: Any = field(default_factory=hashlib.sha256)
    md5: Any = field(default_factory=lambda: hashlib.md5(usedforsecurity=False))

    def take(self, chunk: bytes | memoryview, small: bool) -> None:
        self.file.write(chunk)
        self.sha256.update(chunk)
        if small:
            self.md5.update(chunk)
        self.done += len(chunk)
        self.watch(len(chunk))

    def restart(self) -> None:
        self.watch(-self.done)
        self.file.seek(0)
        self.file.truncate()
        self.done, self.sha256, self.md5 = 0, hashlib.sha256(), hashlib.md5(usedforsecurity=False)


def fetch(client: Client, pool: Pool, scratch: Scratch, item: ObjectItem, watch: Watch = lambda size: None) -> Record:
    """Copy an object; returns its record, with `gone` when it was deleted, `failed` when it cannot be read.

    An object that was replaced since the listing is looked at again and taken as it is now.

    Raises:
        PlatformError: UNREACHABLE or LOGIN_REFUSED; Stopped; OSError of the target's disk.
    """
    for _ in range(CHANGES):
        try:
            return _fetched(client, pool, scratch, item, watch)
        except Changed:
            newer = again(client, item)
            if newer is None:
                return _absent(client, item)
            item = newer
        except S3Error as error:
            return _absent(client, item) if error.status == 404 else _noted(item, failed=str(error))
    return _noted(item, failed=f"it changed {CHANGES} times while it was read")


def _noted(item: ObjectItem, **facts: object) -> Record:
    return {"store": item.store, "bucket": item.bucket, "key": item.key, **facts}


def _absent(client: Client, item: ObjectItem) -> Record:
    """Return the record of an object that is not found: deleted since, unless the server goes on listing it.

    A key that no file can have was never there: rclone refuses such a write, and lists the key until it restarts.
    """
    found = itertools.islice(client.listing(item.bucket, item.key, versions=bool(item.version)), 1000)
    listed = any((entry.key, entry.version) == (item.key, item.version) and not entry.deleted for entry in found)
    if listed and not keys.too_long(item.key):
        why = f"the server lists it but cannot find it; if a write failed, invoke restart -s {item.store} ends that"
        return _noted(item, failed=why)
    return _noted(item, gone=True)


def again(client: Client, item: ObjectItem) -> ObjectItem | None:
    """Return the object as it is now; None when it is gone."""
    found = client.head(item.bucket, item.key, item.version)
    if found is None:
        return None
    modified = _iso(found.headers.get("last-modified", ""))
    size = int(found.headers.get("content-length", "0"))
    return item._replace(size=size, etag=_etag(found.headers), modified=modified)


def _iso(date: str) -> str:
    """Return a Last-Modified header as listings write it (an object whose time has fractions is read once more)."""
    try:
        return parsedate_to_datetime(date).strftime("%Y-%m-%dT%H:%M:%S.000Z")
    except (TypeError, ValueError):
        return ""


def _etag(headers: Mapping[str, str]) -> str:
    return headers.get("etag", "").removeprefix("W/").strip('"')


def _fetched(client: Client, pool: Pool, scratch: Scratch, item: ObjectItem, watch: Watch) -> Record:
    part = scratch.new()
    descriptor = private.new_file(part, os.O_RDWR)
    try:
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            headers, sha256, sure = download(client, item, file, watch)
            os.fsync(file.fileno())
            page_cache.forget(file)
        pool.adopt(part, sha256)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink()
        raise
    return _record(client, item, headers, sha256, sure)


def download(client: Client, item: ObjectItem, file: IO[bytes], watch: Watch) -> tuple[Mapping[str, str], str, bool]:
    """Write an object's content to a new file; returns its headers, its SHA-256, and whether its ETag tells it.

    Raises:
        Changed: it is not (or no longer) the object that was listed.
        S3Error, PlatformError, Stopped: as the client does.
    """
    copy = _Copy(file, watch)
    headers = _download(client, item, copy)
    sure = _settled(client, item, headers, copy)
    return headers, copy.sha256.hexdigest(), sure


def _download(client: Client, item: ObjectItem, copy: _Copy) -> Mapping[str, str]:
    """Read the whole body, going on where it broke off; returns the headers of the last answer."""
    tries = 0
    while True:
        before = copy.done
        try:
            with client.answer("GET", item.bucket, item.key, _query(item), _conditions(item, copy.done)) as got:
                headers = link.lower(got)
                _same_object(item, copy, got.status, headers)
                _body(got, copy, item.size)
            return headers
        except S3Error as error:
            if error.status == 412:
                raise Changed from error
            if error.status not in link.TEMPORARY or tries + 1 >= link.TRIES:
                raise
        except link.LOST as error:
            if tries + 1 >= link.TRIES:
                raise client.unreachable(error) from error
        tries = 1 if copy.done > before else tries + 1
        client.pause(tries)


def _query(item: ObjectItem) -> dict[str, str]:
    return {"versionId": item.version} if item.version else {}


def _conditions(item: ObjectItem, done: int) -> dict[str, str]:
    headers = {"if-match": f'"{item.etag}"'} if item.etag else {}
    return {**headers, "range": f"bytes={done}-"} if done else headers


def _same_object(item: ObjectItem, copy: _Copy, status: int, headers: Mapping[str, str]) -> None:
    """Compare an answer with the listing, since some engines ignore If-Match. Raises Changed."""
    if item.etag and _etag(headers) not in ("", item.etag):
        raise Changed
    length = int(headers.get("content-length", item.size - copy.done))
    if length == item.size - copy.done:
        return  # also where an engine answers a range with 200
    if status == 200 and length == item.size:
        copy.restart()
        return
    raise Changed


def _body(got: http.client.HTTPResponse, copy: _Copy, size: int) -> None:
    small = size <= PART
    if size - copy.done <= CHUNK:
        copy.take(got.read(size - copy.done + 1), small)
    else:
        buffer = memoryview(bytearray(CHUNK))
        while copy.done <= size and (count := got.readinto(buffer)):
            copy.take(buffer[:count], small)
    if copy.done < size:
        raise http.client.IncompleteRead(b"", size - copy.done)
    if copy.done > size:
        raise Changed


def _settled(client: Client, item: ObjectItem, headers: Mapping[str, str], copy: _Copy) -> bool:
    """Prove that the bytes are of one version, and say whether the ETag tells its content.

    A plain ETag is the content's MD5. Where it is not, the object must still be the same after the last byte.

    Raises:
        Changed: they may be of two.
    """
    if item.size <= PART and item.etag == copy.md5.hexdigest():
        return True
    after = client.head(item.bucket, item.key, item.version)
    if after is None or _identity(after.headers) != _identity(headers, item.size):
        raise Changed
    return bool(_MULTIPART.match(item.etag)) or (item.size > PART and bool(_MD5.match(item.etag)))


def _identity(headers: Mapping[str, str], size: int | None = None) -> tuple[str, str, str]:
    length = headers.get("content-length", "") if size is None else str(size)
    return _etag(headers), length, headers.get("last-modified", "")


def _record(client: Client, item: ObjectItem, headers: Mapping[str, str], sha256: str, sure: bool) -> Record:
    record = _noted(item, size=item.size, etag=item.etag, sha256=sha256, modified=item.modified)
    record["type"] = headers.get("content-type", "")
    record["headers"] = {name: headers[name] for name in STANDARD if name in headers}
    record["metadata"] = {n.removeprefix(_META): v for n, v in headers.items() if n.startswith(_META)}
    tags = _tags(client, item) if headers.get("x-amz-tagging-count", "0") != "0" else ""
    facts = {"tags": tags, "version": item.version, "racy": not sure and _recent(headers)}
    record |= {name: value for name, value in facts.items() if value}
    return record if item.latest else {**record, "latest": False}


def _recent(headers: Mapping[str, str]) -> bool:
    """Return whether it was changed so shortly before that another change could look the same."""
    try:
        now, then = (parsedate_to_datetime(headers[name]) for name in ("date", "last-modified"))
    except (KeyError, TypeError, ValueError):
        return True
    return (now - then).total_seconds() < _RACE


def _tags(client: Client, item: ObjectItem) -> str:
    """Return the tags of an object as a query string, which is also how they are written again."""
    reply: LinkReply = client.request("GET", item.bucket, item.key, {"tagging": "", **_query(item)})
    try:
        pairs = xml.tags(reply.body)
    except xml.OddAnswer as error:
        raise S3Error(reply.status, "", str(error)) from error
    return "&".join(f"{quote(key, safe='')}={quote(value, safe='')}" for key, value in pairs)


def headers_of(record: Record) -> dict[str, str]:
    """Return the request headers that give an object its type, headers, metadata and tags back."""
    headers = {"content-type": record["type"]} if record.get("type") else {}
    headers |= record.get("headers", {})
    headers |= {_META + name: value for name, value in record.get("metadata", {}).items()}
    return {**headers, "x-amz-tagging": record["tags"]} if record.get("tags") else headers
