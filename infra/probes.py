"""Is it up? One functional question per kind of service, on the standard library (and psql for SQL).

A probe is plain data, `{"kind": ..., ...}`, so that it can be kept in a file; `check` is one switch over its kinds.
"""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from infra.database import MAINTENANCE
from infra.sigv4 import Store
from infra.sqlstate import NO_DATABASE, of_text

Probe = Mapping[str, Any]
TOO_SLOW = "no answer in time"


@dataclass(frozen=True)
class Finding:
    """A probe's answer: whether it is up, what was seen, and whether waiting cannot help (wrong password)."""

    ok: bool
    detail: str = ""
    fatal: bool = False


def check(probe: Probe, limit: float = 2.0) -> Finding:
    """Ask once.

    Args:
        probe: kind (process, tcp, http, redis, sql, s3, s3-bucket, s3-write) and what that kind needs.
        limit: seconds that the question may take.
    """
    try:
        return KINDS[probe["kind"]](probe, limit)
    except (OSError, ValueError, http.client.HTTPException, subprocess.TimeoutExpired) as error:
        return Finding(False, _reason(error))


def _reason(error: Exception) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, TimeoutError | subprocess.TimeoutExpired):
        return TOO_SLOW
    return str(error) or type(error).__name__


def _process(_: Probe, __: float) -> Finding:
    return Finding(True)


def _tcp(probe: Probe, limit: float) -> Finding:
    with socket.create_connection((probe["host"], probe["port"]), timeout=limit):
        return Finding(True)


def _http(probe: Probe, limit: float) -> Finding:
    connection = http.client.HTTPConnection(probe["host"], probe["port"], timeout=limit)
    try:
        connection.request("GET", probe.get("path", "/"))
        answer = connection.getresponse()
        body = answer.read(65536)
    finally:
        connection.close()
    wanted = probe.get("contains", "").encode()
    if answer.status != 200:
        return Finding(False, f"HTTP {answer.status}: {body[:120].decode('utf-8', 'replace').strip()}")
    return Finding(wanted in body, "" if wanted in body else f"the answer lacks {probe['contains']!r}")


def _redis(probe: Probe, limit: float) -> Finding:
    """Send PING, after AUTH where there is a password (RESP: redis.io/docs/latest/develop/reference/protocol-spec)."""
    commands: list[tuple[str, ...]] = [("PING",)]
    if probe.get("password"):
        commands.insert(0, ("AUTH", probe["password"]))
    with socket.create_connection((probe["host"], probe["port"]), timeout=limit) as link:
        link.settimeout(limit)
        answer = ""
        for command in commands:
            link.sendall(_resp(command))
            answer = link.recv(512).decode("utf-8", "replace").strip()
            if answer.startswith("-"):
                return Finding(False, answer[1:], fatal=_refused(answer))
    return Finding(answer == "+PONG", "" if answer == "+PONG" else answer.lstrip("-") or "it closed the connection")


def _refused(answer: str) -> bool:
    """Return whether Redis refused the login; old versions say so with a plain error."""
    old = answer.startswith("-ERR") and ("AUTH" in answer or "password" in answer)
    return old or answer.startswith(("-NOAUTH", "-WRONGPASS"))


def _resp(command: tuple[str, ...]) -> bytes:
    parts = [word.encode() for word in command]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(p), p) for p in parts)


def _sql(probe: Probe, limit: float) -> Finding:
    # LC_ALL: the messages that are looked for below must not be translated.
    login = {"PGPASSWORD": probe["password"], "PGCONNECT_TIMEOUT": str(max(2, int(limit))), "LC_ALL": "C"}
    user, name = _quoted(probe["user"]), probe["database"] or MAINTENANCE
    where = f"host={probe['host']} port={probe['port']} user={user} dbname={name}"
    done = subprocess.run(
        [probe["psql"], "-X", "-A", "-t", "-q", "-w", "-d", where, "-c", "select 1"],
        env={**{k: v for k, v in os.environ.items() if not k.startswith("PG")}, **login},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=limit + 1,
        check=False,
    )
    if done.returncode == 0 and done.stdout.strip() == "1":
        return Finding(True)
    lines = done.stderr.strip().splitlines() or ["no answer"]
    detail = next((line for line in lines if "FATAL:" in line), lines[-1]).strip()
    if not probe["database"] and of_text(detail) == NO_DATABASE:
        return Finding(True, detail)
    return Finding(False, detail, fatal="authentication failed" in detail or "no password" in detail)


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def store_of(probe: Probe) -> Store:
    """Return the S3 server that an s3 probe speaks of."""
    more = {name: probe[name] for name in ("secure", "region") if name in probe}
    return Store(probe["host"], probe["port"], probe["access_key"], probe["secret_key"], **more)


def _s3_bucket(probe: Probe, limit: float) -> Finding:
    """Check that an external server takes our keys, asked of one of our buckets, which need not exist yet.

    Keys of a service elsewhere may often not list all its buckets.
    """
    store, path = store_of(probe), f"/{probe['bucket']}"
    if store.request("HEAD", path, limit=limit).status in (200, 404):
        return Finding(True)
    reply = store.request("GET", path, limit=limit)  # an answer to HEAD gives no reason
    found = _s3_finding(reply.status, reply.body, (200, 404))
    return replace(found, fatal=reply.status in (301, 400, 401, 403))  # another region is 301 or 400


def _s3(probe: Probe, limit: float) -> Finding:
    reply = store_of(probe).request("GET", "/", limit=limit)
    return _s3_finding(reply.status, reply.body, (200,))


def _s3_write(probe: Probe, limit: float) -> Finding:
    """Put, get and delete an object in the probe's bucket."""
    store, body = store_of(probe), os.urandom(64)
    path = f"/{probe['bucket']}/.probe-{os.getpid()}-{body[:4].hex()}"
    put = store.request("PUT", path, body, limit)
    if put.status != 200:
        return _s3_finding(put.status, put.body, (200,))
    got = store.request("GET", path, limit=limit)
    gone = store.request("DELETE", path, limit=limit)
    if got.body != body:
        return Finding(False, "an object was read back with different content")
    return _s3_finding(gone.status, gone.body, (200, 204))


def _s3_finding(status: int, body: bytes, good: tuple[int, ...]) -> Finding:
    if status in good:
        return Finding(True)
    text = body[:200].decode("utf-8", "replace").strip()
    return Finding(False, f"HTTP {status} {text}", fatal=status in (401, 403))


KINDS: Mapping[str, Callable[[Probe, float], Finding]] = {
    "process": _process,
    "tcp": _tcp,
    "http": _http,
    "redis": _redis,
    "sql": _sql,
    "s3": _s3,
    "s3-bucket": _s3_bucket,
    "s3-write": _s3_write,
}
"""By the name that a probe has for its kind."""
