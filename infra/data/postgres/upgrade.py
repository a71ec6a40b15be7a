"""Move the native tier's databases to a new major version: backup, new directory beside, restore, swap, old one kept.

To undo it, swap directories again: `invoke db.upgrade --back`, or by hand while the platform is stopped: move
`postgres` away, move `postgres-<major>-<time>` to its place, and set PLATFORM_POSTGRES_BIN to the old programs. What
was written after the upgrade is then in the directory that was moved away.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from infra import shell
from infra.console import Console
from infra.data import store
from infra.data.postgres import backup as postgres_backup
from infra.data.postgres import clients, restore, restore_plan, scratch, verify
from infra.data.store import Backup
from infra.endpoints import Endpoints
from infra.errors import PlatformError
from infra.settings import Settings
from infra.tiers.native import postgres as native
from infra.tiers.native.postgres import PostgresPlace
from infra.tiers.providers import EXE, Program
from infra.waiting import last_lines

START_LIMIT = 120.0
"""Seconds for a server to be ready; recovery after a crash counts."""
_KEPT = re.compile(r"^postgres-(\d+)-(\d{17})$")


@dataclass(frozen=True)
class UpgradePlan:
    """The old server, the new one beside it, and where the old directory will be kept."""

    old: PostgresPlace
    new: PostgresPlace
    found: Program
    old_major: str
    new_major: str
    kept: Path

    def lines(self) -> list[str]:
        """Return the plan for people."""
        return [
            f"This moves the databases in {self.old.data} from PostgreSQL {self.old_major} to {self.new_major}:",
            "  the platform is stopped; a verified backup is made with the old server",
            "  a new directory is created next to it, the backup is restored into it and compared",
            f"  the old directory is kept as {self.kept}",
        ]


def plan(settings: Settings, present: PostgresPlace, found: Program, old_bin: str = "") -> UpgradePlan | None:
    """Plan an upgrade; None when the data is of the programs' version already.

    Args:
        settings: the settings of this run.
        present: where PostgreSQL runs from, with the new programs.
        found: the new programs as they were found.
        old_bin: directory of the old version's programs; looked for when empty.

    Raises:
        PlatformError: NOT_FOUND without data; PROGRAM_MISSING without the old programs; DATA_INCOMPATIBLE when the
            programs are older than the data.
    """
    if not present.initialised:
        raise PlatformError("NOT_FOUND", f"there are no databases in {present.data}", steps=("invoke up",))
    old_major = native.data_version(present.data)
    new_major = native.program_major(replace(present, bin=found.path))
    if old_major == new_major:
        return None
    if not old_major.isdigit() or int(old_major) > int(new_major):
        raise _not_upwards(present, old_major, new_major)
    directory = _programs_of(settings, old_major, old_bin)
    when = scratch.stamp()
    beside = present.data.with_name(f".postgres-{new_major}-{when}")
    kept = present.data.with_name(f"postgres-{old_major}-{when}")
    return UpgradePlan(
        replace(present, bin=directory), replace(present, data=beside), found, old_major, new_major, kept
    )


def _not_upwards(present: PostgresPlace, old: str, new: str) -> PlatformError:
    return PlatformError(
        "DATA_INCOMPATIBLE",
        f"the data in {present.data} belongs to PostgreSQL {old}, but the programs are PostgreSQL {new}",
        why="an upgrade is only possible to a newer major version; nothing was changed",
        steps=(f"set PLATFORM_POSTGRES_BIN to the programs of PostgreSQL {old} or newer",),
    )


def _programs_of(settings: Settings, major: str, named: str) -> Path:
    candidates = [Path(named).expanduser()] if named else list(clients.directories(settings))
    for directory in candidates:
        program = directory / f"postgres{EXE}"
        if program.is_file() and re.search(rf"\b{major}[.\s]", shell.run([str(program), "--version"]).out):
            return directory
    raise PlatformError(
        "PROGRAM_MISSING",
        f"the programs of PostgreSQL {major}, which can read the current data, were not found",
        steps=(f"install PostgreSQL {major}, then: invoke db.upgrade --old-bin DIRECTORY",),
    )


def upgrade(settings: Settings, ends: Endpoints, console: Console, made: UpgradePlan, target: Path, work: Path) -> Path:
    """Carry out a plan while the platform is stopped; returns the backup that was made.

    The data directory changes names by two renames at the end; before that nothing of it has changed.

    Raises:
        PlatformError: what backup, verification and restore raise; the old directory is in its place then.
    """
    _sweep(made)
    with scratch.workspace(work) as space:
        native.install(made.new, made.found)
        with store.locked(target, "db.upgrade"), _serving(made.old, ends, space / "old.log") as there:
            backup = _saved(settings, there, console, target, work)
        native.initialise(made.new, space, ends.postgres.user, ends.postgres.password)
        with _serving(made.new, ends, space / "new.log") as there:
            _filled(settings, there, console, backup, work)
    _swap(made)
    return backup


def _saved(settings: Settings, there: Endpoints, console: Console, target: Path, work: Path) -> Path:
    server = clients.find_server(there, settings)
    return save(server, console, target, work / "verify").path


def save(server: clients.Server, console: Console, target: Path, work: Path) -> Backup:
    """Back up everything that a server holds, also what earlier restores have kept, and verify it.

    Raises:
        PlatformError: what backup and verification raise, also where one database alone cannot be restored.
    """
    console.say(f"  backing up PostgreSQL {clients.version_text(server.number)}")
    backup = postgres_backup.backup(server, console, postgres_backup.BackupOrder(target, kept=True))
    for name, why in backup.facts["left_out"].items():
        console.warn(f"{name} is not taken along: {why}")
    console.say("  verifying the backup")
    failed = verify.verify(server, backup, work).failed
    if failed:
        raise _not_taken_along(failed)
    return backup


def _not_taken_along(failed: Mapping[str, str]) -> PlatformError:
    why = "; ".join(f"{name}: {reason}" for name, reason in failed.items())
    steps = ("see to what is said of it, or drop it when it is not needed: invoke db.shell", "then: invoke db.upgrade")
    what = f"{', '.join(failed)} could not be restored; the databases are as before"
    return PlatformError("BACKUP_FAILED", what, why=why, steps=steps)


def _filled(settings: Settings, there: Endpoints, console: Console, backup: Path, work: Path) -> None:
    server = clients.find_server(there, settings)
    done = fill(server, console, store.load(backup), work / "restore")
    rows = sum(int(d["rows"]) for d in done.databases.values())
    console.say(f"  {len(done.databases)} databases with {rows:,} rows are identical in both")


_CONNECTIONS = "100"
"""For a server that only we use."""


def fill(server: clients.Server, console: Console, backup: Backup, work: Path) -> restore.Restored:
    """Restore everything on the server that replaces the one of the backup.

    Raises:
        PlatformError: what a restore raises, also where one database alone cannot be restored.
    """
    console.say(f"  restoring into PostgreSQL {clients.version_text(server.number)}")
    plan = restore_plan.plan(server, backup, restore_plan.RestoreOrder(replacing=True))
    if plan.left_out:
        raise _not_taken_along(plan.left_out)
    done = restore.restore(server, plan, work)
    if done.left_out:
        raise _not_taken_along(done.left_out)
    for text in (*plan.notes, *(f"the server refused: {text}: {why}" for text, why in done.refused.items())):
        console.warn(text)
    return done


@contextlib.contextmanager
def _serving(place: PostgresPlace, ends: Endpoints, log: Path) -> Iterator[Endpoints]:
    """Run a server on a port of its own; yields its endpoints."""
    with socket.create_server((ends.host, 0)) as probe:
        port = int(probe.getsockname()[1])
    there = replace(ends, ports={**ends.ports, "POSTGRES_PORT": port})
    argv = native.server_argv(place, port, ends.host, _CONNECTIONS)
    with open(log, "wb") as out:
        process = subprocess.Popen(
            argv,
            cwd=place.data,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            **_apart(),
            **shell.identity(place.user),
        )
    try:
        _ready(process, there, log)
        yield there
    finally:
        native.stop(place, process, START_LIMIT)


def _apart() -> dict[str, Any]:
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"start_new_session": True}


def _ready(process: subprocess.Popen[bytes], there: Endpoints, log: Path) -> None:
    end = time.monotonic() + START_LIMIT
    while True:
        try:
            with clients.connected(there):
                return
        except PlatformError as error:
            if error.code == "LOGIN_REFUSED" or process.poll() is not None or time.monotonic() > end:
                details = {"log": last_lines(log)}
                raise PlatformError(
                    error.code,
                    "the server for the upgrade is not ready",
                    why=error.why,
                    steps=error.steps,
                    details=details,
                ) from error
        time.sleep(0.1)


def _swap(made: UpgradePlan) -> None:
    os.rename(made.old.data, made.kept)
    os.rename(made.new.data, made.old.data)


def _sweep(made: UpgradePlan) -> None:
    """Remove the new directories of upgrades that were cut short; none is alive, the caller holds the stack's lock."""
    import shutil

    for entry in made.old.data.parent.glob(".postgres-*"):
        if re.fullmatch(r"\.postgres-\d+-\d{17}", entry.name) and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)


def kept(data: Path) -> list[Path]:
    """Return the directories that upgrades have kept beside the data directory, the newest last."""
    found = [e for e in data.parent.iterdir() if _KEPT.match(e.name) and (e / "PG_VERSION").is_file()]
    return sorted(found, key=lambda e: e.name.rsplit("-", 1)[1])


def back(data: Path) -> tuple[Path, Path, str]:
    """Put the directory kept last in the place of the present one, while the platform is stopped.

    Returns the data directory, where the present one is kept now, and the major version that runs it.

    Raises:
        PlatformError: NOT_FOUND when none is kept.
    """
    found = kept(data)
    if not found:
        raise PlatformError("NOT_FOUND", f"no earlier directory is kept next to {data}", steps=("invoke db.list",))
    major = native.data_version(data)
    away = data.with_name(f"postgres-{major}-{scratch.stamp()}")
    os.rename(data, away)
    os.rename(found[-1], data)
    return data, away, native.data_version(data)
