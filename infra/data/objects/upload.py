"""One object back into a store: in one request or in parts, with its headers, and proven to be there as it was."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from infra import private
from infra.data.objects import fetch
from infra.data.objects.client import Client
from infra.data.objects.fetch import PART, Watch
from infra.data.objects.link import S3Error
from infra.data.objects.login import StoreLogin
from infra.data.objects.pool import Pool
from infra.data.objects.records import Record
from infra.data.objects.xml import ListedObject

MOST_PARTS = 10_000
"""S3's limit for one upload."""
CLEAR_LIMIT = 1.0
"""Seconds for giving up each upload that was under way when the run ended."""


@dataclass
class Uploads:
    """Multipart uploads that are under way, noted in a file so that the next run can give up those of a killed one."""

    path: Path
    alive: dict[str, tuple[str, str, str]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def begun(self, store: str, bucket: str, key: str, upload: str) -> None:
        """Note an upload before its first part is sent."""
        line = json.dumps([store, bucket, key, upload]) + "\n"
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0)
        with self._lock:
            self.alive[upload] = (store, bucket, key)
            private.make(self.path.parent)
            with os.fdopen(os.open(self.path, flags, 0o600), "a", encoding="ascii") as file:
                file.write(line)

    def ended(self, upload: str) -> None:
        """Note that an upload is complete or given up."""
        with self._lock:
            self.alive.pop(upload, None)

    def clear(self, logins: Mapping[str, StoreLogin]) -> None:
        """Give up what is under way, here and in the notes of earlier runs, with connections of its own."""
        uploads = {**_noted(self.path), **self.alive}
        clients = {name: Client(login, CLEAR_LIMIT) for name, login in logins.items()}
        left = False
        for upload, (store, bucket, key) in uploads.items():
            try:
                clients[store].abort(bucket, key, upload)
            except Exception:  # the server has gone: the note stays for the next run
                left = True
        for client in clients.values():
            client.close()
        if not left:
            self.path.unlink(missing_ok=True)


def _noted(path: Path) -> dict[str, tuple[str, str, str]]:
    found: dict[str, tuple[str, str, str]] = {}
    with contextlib.suppress(OSError):
        for line in path.read_text(encoding="ascii").splitlines():
            with contextlib.suppress(ValueError):
                store, bucket, key, upload = json.loads(line)
                found[upload] = (store, bucket, key)
    return found


def same(record: Record, entry: ListedObject | None) -> bool:
    """Return whether a listing shows the content of a record; the headers are not known from it."""
    return entry is not None and bool(entry.etag) and (entry.size, entry.etag) == (record["size"], record["etag"])


def restored(
    client: Client, pool: Pool, record: Record, entry: ListedObject | None, uploads: Uploads, watch: Watch
) -> str:
    """Bring an object back unless it is there as it was; returns `same` or `written`.

    Proven by the ETag, where it is the content's MD5; else the object is read back and hashed.

    Raises:
        S3Error: the engine refuses it, or did not keep what was written (status 0).
    """
    bucket, key = record["bucket"], record["key"]
    if same(record, entry) and not _differences(client, record):
        return "same"
    with os.fdopen(pool.open(record["sha256"]), "rb") as file:
        expected = send(client, record, file, uploads, watch)
    different = _differences(client, record, expected)
    if different == ["content"]:
        different = [] if _read_back(client, bucket, key) == record["sha256"] else ["content"]
    if different:
        raise S3Error(0, "NotKept", f"the server did not keep: {', '.join(different)}")
    return "written"


def _differences(client: Client, record: Record, etag: str = "") -> list[str]:
    """List what differs between an object and its record; with an ETag also whether its content may differ."""
    found = client.head(record["bucket"], record["key"])
    if found is None:
        return ["the object"]
    headers = {n: v for n, v in fetch.headers_of(record).items() if n != "x-amz-tagging"}
    different = [name for name, value in headers.items() if found.headers.get(name) != value]
    different += ["size"] if int(found.headers.get("content-length", "-1")) != record["size"] else []
    different += ["content"] if etag and found.headers.get("etag", "").strip('"') != etag else []
    return different


def differences(client: Client, record: Record) -> list[str]:
    """Compare an object with its record by reading it whole; returns what is not the same: headers, size, content."""
    different = _differences(client, record)
    same = "the object" in different or _read_back(client, record["bucket"], record["key"]) == record["sha256"]
    return different if same else [*different, "content"]


def _read_back(client: Client, bucket: str, key: str) -> str:
    with client.answer("GET", bucket, key) as got:
        return hashlib.file_digest(got, "sha256").hexdigest()


def send(client: Client, record: Record, file: IO[bytes], uploads: Uploads, watch: Watch) -> str:
    """Write the object; returns the ETag that it must have if ETags are MD5s."""
    headers = fetch.headers_of(record)
    if record["size"] > PART:
        return _in_parts(client, record, file, headers, uploads, watch)
    body = Slice(file, 0, record["size"])
    _, md5 = body.digests()
    client.put(record["bucket"], record["key"], body, headers, record["sha256"], record["size"])
    watch(record["size"])
    return md5.hex()


def _in_parts(
    client: Client, record: Record, file: IO[bytes], headers: Mapping[str, str], uploads: Uploads, watch: Watch
) -> str:
    bucket, key, store = record["bucket"], record["key"], record["store"]
    upload = client.begin(bucket, key, headers)
    uploads.begun(store, bucket, key, upload)
    etags, md5s = [], b""
    try:
        for number, part in enumerate(parts(file, record["size"]), 1):
            sha256, md5 = part.digests()
            etags.append(client.part(bucket, key, upload, number, part, sha256, part.length))
            md5s += md5
            watch(part.length)
        client.complete(bucket, key, upload, etags)
    except S3Error:
        client.abort(bucket, key, upload)
        uploads.ended(upload)
        raise
    uploads.ended(upload)
    return f"{hashlib.md5(md5s, usedforsecurity=False).hexdigest()}-{len(etags)}"


def parts(file: IO[bytes], size: int) -> Iterator[Slice]:
    """Return the parts of a file: of 16 MiB, or of as much as it takes to stay within S3's number of parts."""
    length = max(PART, -(-size // MOST_PARTS))
    return (Slice(file, start, min(length, size - start)) for start in range(0, size, length))


class Slice:
    """A part of a file that reads like a file; nothing of it is kept in memory."""

    def __init__(self, file: IO[bytes], start: int, length: int) -> None:
        self._file, self._start, self.length = file, start, length
        self._left = length

    def seek(self, _offset: int, _whence: int = 0, /) -> int:
        """Go back to the beginning (nothing else is needed)."""
        self._file.seek(self._start)
        self._left = self.length
        return 0

    def read(self, size: int = -1, /) -> bytes:
        """Read the next bytes, up to the end of the part."""
        chunk = self._file.read(self._left if size < 0 else min(size, self._left))
        self._left -= len(chunk)
        return chunk

    def digests(self) -> tuple[str, bytes]:
        """Return the SHA-256 in hex and MD5."""
        sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
        self.seek(0)
        while chunk := self.read(fetch.CHUNK):
            sha256.update(chunk)
            md5.update(chunk)
        return sha256.hexdigest(), md5.digest()
