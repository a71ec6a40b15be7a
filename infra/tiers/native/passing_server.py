"""A PostgreSQL of this machine that lives as long as a task: empty at its start, gone with its end."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from infra import database, endpoints
from infra.context import Context
from infra.endpoints import HOST, Endpoints, Login
from infra.errors import PlatformError
from infra.supervision import process
from infra.tiers import providers
from infra.tiers.native import postgres
from infra.tiers.native.postgres import PostgresPlace

START_LIMIT, STOP_LIMIT = 60.0, 30.0
"""Seconds until it answers; seconds until it has ended."""
CONNECTIONS = 30
NAME = "passing-"
"""Beginning of the directories' names, before the pid of their run."""


@contextlib.contextmanager
def running(context: Context, space: Path) -> Iterator[Endpoints]:
    """Run it for the block; only its `postgres` is to be used.

    Args:
        context: settings, by which the programs are found.
        space: a private directory of the caller's, for its data.

    Raises:
        PlatformError: PROGRAM_MISSING, PROGRAM_FAILED, SERVICE_FAILED.
    """
    found, ends = providers.postgres_bin(context.settings), _ends(context)
    place = postgres.place(context.settings, space, found, f"{NAME}{os.getpid()}-{secrets.token_hex(4)}")
    try:
        _sweep()
        postgres.install(place, found)
        postgres.initialise(place, space, ends.postgres.user, ends.postgres.password)
        with _served(place, ends, space / "postgres.log"):
            yield ends
    finally:
        shutil.rmtree(place.data.parent, ignore_errors=True)


def _sweep() -> None:
    """Remove those of runs that were killed; only root has them outside of the space that its caller removes."""
    import psutil

    for left in postgres.shared_home().glob(f"{NAME}*") if postgres.is_root() else ():
        pid = left.name.removeprefix(NAME).partition("-")[0]
        if not pid.isdigit() or psutil.pid_exists(int(pid)):
            continue
        if server := process.in_directory(left / "postgres", "postgres"):
            process.end_all([live for live in [server.process()] if live])
        shutil.rmtree(left, ignore_errors=True)


def _ends(context: Context) -> Endpoints:
    base = endpoints.build(context.settings, ("postgres",))
    ports = {**base.ports, "POSTGRES_PORT": _free_port()}
    return replace(base, ports=ports, postgres=Login("admin", secrets.token_urlsafe(24)), host=HOST)


def _free_port() -> int:
    with socket.create_server((HOST, 0)) as taken:
        return int(taken.getsockname()[1])


@contextlib.contextmanager
def _served(place: PostgresPlace, ends: Endpoints, log: Path) -> Iterator[None]:
    argv = postgres.server_argv(place, ends.port("postgres"), HOST, str(CONNECTIONS))
    with log.open("wb") as said:
        server = process.spawn(argv, cwd=place.data, log=said, env=process.environment({}), user=place.user)
    try:
        _await(ends, server, log)
        yield
    finally:
        postgres.stop(place, server, STOP_LIMIT)  # its data goes with it


def _await(ends: Endpoints, server: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until it answers. Raises PlatformError SERVICE_FAILED."""
    import psycopg

    end, why = time.monotonic() + START_LIMIT, ""
    while server.poll() is None and time.monotonic() < end:
        try:
            database.connect(ends.database_url(database.MAINTENANCE), name="platform").close()
            return
        except psycopg.OperationalError as error:
            why = str(error).splitlines()[0]
            time.sleep(0.05)
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-5:]
    raise PlatformError(
        "SERVICE_FAILED", "a PostgreSQL of this machine does not start", why=why, details={"log": lines}
    )
