"""Redis from its port alone: an RDB as a replica gets it, and each key as DUMP has it, which RESTORE puts back.

The RDB is the state of one moment, and any Redis starts from it; the keys (`keys.jsonl`) are what a running server can
be filled from. `keys.jsonl`: a line about the server, then one for each key with db, key and dump (base64), type and
`expires` (milliseconds since 1970, 0: never).
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra import private
from infra.endpoints import Endpoints
from infra.errors import PlatformError

if TYPE_CHECKING:
    import redis

KEYS, RDB = "keys.jsonl", "dump.rdb"
FORMAT = 1
BATCH = 256
"""Keys that are read or written in one transaction: each batch is of one moment, and the server waits no longer."""
CONNECT_LIMIT = 5.0
SILENCE = 60.0
"""Seconds without a byte after which a server counts as gone (it sends a keep-alive every ten)."""
_SCRATCH = "platform:verify:"

Tick = Callable[[int, int], None]
"""Called with the number of keys and bytes done."""


@dataclass(frozen=True)
class Key:
    """A key as it was saved: database number, name, DUMP of its value, type, end of life in ms since 1970 (0: none)."""

    db: int
    name: bytes
    dump: bytes
    type: str
    expires: int


def _quiet(keys: int, size: int) -> None:
    """Tell nobody."""


@contextlib.contextmanager
def connected(ends: Endpoints, db: int = 0) -> Iterator[redis.Redis]:
    """Open a connection.

    Raises:
        PlatformError: UNREACHABLE or LOGIN_REFUSED, for the connection as for what is done over it.
    """
    import redis

    client = redis.Redis(
        host=ends.host,
        port=ends.port("redis"),
        db=db,
        password=ends.password("redis") or None,
        socket_connect_timeout=CONNECT_LIMIT,
        socket_timeout=SILENCE,
    )
    try:
        client.ping()
        yield client
    except redis.AuthenticationError as error:
        steps = ("check REDIS_PASSWORD in .env", "invoke doctor")
        raise PlatformError(
            "LOGIN_REFUSED", f"Redis refused the login on {ends.address('redis')}", why=str(error), steps=steps
        ) from error
    except (redis.ConnectionError, redis.TimeoutError) as error:
        raise _unreachable(ends, error) from error
    finally:
        client.close()


def _unreachable(ends: Endpoints, error: Exception) -> PlatformError:
    what = f"Redis does not answer on {ends.address('redis')}"
    return PlatformError("UNREACHABLE", what, why=str(error), steps=("invoke status", "invoke logs -s redis"))


def save(ends: Endpoints, directory: Path, tick: Tick = _quiet) -> dict[str, Any]:
    """Write both files (0600) into a directory; returns what a manifest says of them.

    Raises:
        PlatformError: UNREACHABLE, LOGIN_REFUSED.
    """
    with connected(ends) as client:
        info: dict[str, Any] = client.info()
        refused = _rdb(ends, directory / RDB)
        number = _keys(client, ends, directory / KEYS, _about(client, info), tick)
    return {
        "server": _version(info),
        "keys": number,
        "offset": info.get("master_repl_offset"),
        "rdb": not refused,
        "rdb_refused": refused,
    }


def _version(info: Mapping[str, Any]) -> str:
    """Name and version of the server."""
    if "valkey_version" in info:
        return f"Valkey {info['valkey_version']}"
    return f"Redis {info.get('redis_version', '?')}"


def _about(client: redis.Redis, info: Mapping[str, Any]) -> dict[str, Any]:
    import redis

    try:
        functions = client.function_dump()
    except redis.ResponseError:  # before version 7
        functions = None
    return {"format": FORMAT, "server": _version(info), "functions": _text(functions) if functions else ""}


def _text(value: bytes) -> str:
    return base64.b64encode(value).decode("ascii")


def _keys(client: redis.Redis, ends: Endpoints, path: Path, about: Mapping[str, Any], tick: Tick) -> int:
    number = size = 0
    with os.fdopen(private.new_file(path), "w", encoding="ascii", newline="\n") as file:
        file.write(json.dumps(about) + "\n")
        for db in databases(client):
            with connected(ends, db) as there:
                for key in _scanned(there, db):
                    line = {"db": db, "key": _text(key.name), "type": key.type, "expires": key.expires}
                    file.write(json.dumps({**line, "dump": _text(key.dump)}, separators=(",", ":")) + "\n")
                    number, size = number + 1, size + len(key.dump)
                    tick(number, size)
        file.flush()
        os.fsync(file.fileno())
    return number


def databases(client: redis.Redis) -> list[int]:
    """Return the numbers of the databases that hold keys."""
    found: dict[str, Any] = client.info("keyspace")
    return sorted(int(name.removeprefix("db")) for name in found if name.startswith("db"))


def _scanned(client: redis.Redis, db: int) -> Iterator[Key]:
    seen = set[bytes]()  # SCAN may tell a key twice
    for batch in _batches(client.scan_iter(count=BATCH)):
        fresh = [name for name in dict.fromkeys(batch) if name not in seen]
        seen.update(fresh)
        yield from _dumped(client, db, fresh)


def _batches(names: Iterator[Any]) -> Iterator[list[Any]]:
    while batch := list(itertools.islice(names, BATCH)):
        yield batch


def _dumped(client: redis.Redis, db: int, names: list[bytes]) -> Iterator[Key]:
    """Yield the keys of one moment; one that has gone meanwhile is left out."""
    with client.pipeline(transaction=True) as pipe:
        pipe.time()
        for name in names:
            pipe.dump(name)
            pipe.pttl(name)
            pipe.type(name)
        (seconds, micros), *rest = pipe.execute()
    now = int(seconds) * 1000 + int(micros) // 1000
    for name, (dump, left, kind) in zip(names, _threes(rest), strict=True):
        if dump is not None:
            yield Key(db, name, dump, kind.decode(), now + left if left >= 0 else 0)


def _threes(values: list[Any]) -> Iterator[tuple[Any, Any, Any]]:
    return zip(values[0::3], values[1::3], values[2::3], strict=True)


def _rdb(ends: Endpoints, path: Path) -> str:
    """Take an RDB as a replica does; '' or why the server gives none (some services do not)."""
    try:
        with socket.create_connection((ends.host, ends.port("redis")), CONNECT_LIMIT) as link:
            link.settimeout(SILENCE)
            with link.makefile("rb") as answer:
                return _synced(link, answer, path, ends.password("redis"))
    except OSError as error:
        raise _unreachable(ends, error) from error


def _synced(link: socket.socket, answer: Any, path: Path, password: str) -> str:
    if password:
        secret = password.encode()
        link.sendall(b"*2\r\n$4\r\nAUTH\r\n$%d\r\n%s\r\n" % (len(secret), secret))
        answer.readline()  # a wrong one was refused on the other connection
    link.sendall(b"*1\r\n$4\r\nSYNC\r\n")
    line = b"\n"
    while line == b"\n":  # signs of life while the server writes
        line = answer.readline()
    if not line.startswith(b"$"):
        return line.strip().lstrip(b"-").decode("utf-8", "replace") or "it closed the connection"
    left = int(line[1:])
    with os.fdopen(private.new_file(path), "wb") as file:
        while left:
            block = answer.read(min(left, 1 << 20))
            if not block:
                raise ConnectionError("the server closed the connection within the RDB")
            file.write(block)
            left -= len(block)
        file.flush()
        os.fsync(file.fileno())
    return ""


def read(path: Path) -> tuple[dict[str, Any], Iterator[Key]]:
    """Return the line about the server, and the keys as a stream.

    Raises:
        PlatformError: BACKUP_DAMAGED, also while the keys are read.
    """
    lines = _lines(path)
    about = next(lines, {})
    if about.get("format") != FORMAT:
        raise _damaged(path, "has a different format")
    return about, (_key(path, line) for line in lines)


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
    with os.fdopen(descriptor, "rb") as file:
        for line in file:
            try:
                yield dict(json.loads(line.decode("ascii")))
            except (ValueError, TypeError, RecursionError) as error:
                raise _damaged(path, "contains a line that cannot be read") from error


def _key(path: Path, line: Mapping[str, Any]) -> Key:
    try:
        name, dump = (base64.b64decode(line[part], validate=True) for part in ("key", "dump"))
        return Key(int(line["db"]), name, dump, str(line["type"]), int(line["expires"]))
    except (KeyError, ValueError, TypeError) as error:
        raise _damaged(path, "contains a line that cannot be read") from error


def _damaged(path: Path, how: str) -> PlatformError:
    return PlatformError("BACKUP_DAMAGED", f"{path} {how}", steps=("use another snapshot: invoke snapshot.list",))


def verify(ends: Endpoints, path: Path) -> int:
    """Have the server take every key under a passing name, which proves that it can; returns how many.

    Raises:
        PlatformError: DATA_INCOMPATIBLE when the server is too old for them, BACKUP_DAMAGED, UNREACHABLE.
    """
    about, keys = read(path)
    mark, number = f"{_SCRATCH}{secrets.token_hex(8)}:".encode(), 0
    with connected(ends) as client:
        for batch in _batches(keys):
            names = [mark + b"%d" % i for i in range(len(batch))]
            with client.pipeline(transaction=False) as pipe:
                for name, key in zip(names, batch, strict=True):
                    pipe.restore(name, 60_000, key.dump)  # gone in a minute, come what may
                answers = pipe.execute(raise_on_error=False)
                pipe.unlink(*names)
                pipe.execute()
            _all_taken(path, about, batch, answers)
            number += len(batch)
    return number


def _all_taken(path: Path, about: Mapping[str, Any], batch: list[Key], answers: list[Any]) -> None:
    for key, answer in zip(batch, answers, strict=True):
        if isinstance(answer, Exception):
            raise PlatformError(
                "DATA_INCOMPATIBLE",
                f"this Redis does not accept the key {key.name[:80]!r} that {about['server']} saved",
                why=str(answer),
                steps=(f"use {about['server']} or newer", "or leave Redis out: --skip redis"),
                details={"path": str(path)},
            )


def restore(ends: Endpoints, path: Path, tick: Tick = _quiet) -> tuple[int, int]:
    """Make the server hold exactly the saved keys; returns how many were written and how many others removed.

    A key whose time has run out since is left out. All are written before any other is removed.

    Raises:
        PlatformError: DATA_INCOMPATIBLE, BACKUP_DAMAGED, UNREACHABLE, LOGIN_REFUSED.
    """
    about, keys = read(path)
    saved: dict[int, set[bytes]] = {}
    written = size = 0
    now = int(time.time() * 1000)
    for db, group in itertools.groupby(keys, key=lambda key: key.db):
        names = saved.setdefault(db, set())
        with connected(ends, db) as client:
            for batch in _batches(group):
                live = [key for key in batch if not key.expires or key.expires > now]
                _write(client, path, about, live)
                names.update(key.name for key in live)
                written, size = written + len(live), size + sum(len(key.dump) for key in live)
                tick(written, size)
    removed = _remove_others(ends, saved)
    if about["functions"]:
        with connected(ends) as client:
            client.function_restore(base64.b64decode(about["functions"]), "REPLACE")  # type: ignore[arg-type] # bytes
    return written, removed


def _write(client: redis.Redis, path: Path, about: Mapping[str, Any], keys: list[Key]) -> None:
    with client.pipeline(transaction=True) as pipe:
        for key in keys:
            pipe.restore(key.name, key.expires, key.dump, replace=True, absttl=True)
        answers = pipe.execute(raise_on_error=False)
    _all_taken(path, about, keys, answers)


def _remove_others(ends: Endpoints, saved: Mapping[int, set[bytes]]) -> int:
    removed = 0
    with connected(ends) as client:
        numbers = databases(client)
    for db in numbers:
        keep = saved.get(db, set())
        with connected(ends, db) as client:
            for batch in _batches(client.scan_iter(count=BATCH)):
                others = [name for name in batch if name not in keep]
                removed += int(client.unlink(*others)) if others else 0
    return removed
