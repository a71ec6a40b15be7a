"""Numbered SQL migrations of the database `platform`: each applied once, in order, in its own transaction."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from infra.errors import PlatformError

if TYPE_CHECKING:
    import psycopg

DIRECTORY = Path(__file__).parent / "migrations"
_NAME = re.compile(r"(\d{4})_([a-z0-9_]+)\.sql")
# Any fixed number will do; it only has to be the same for all who migrate.
_LOCK = 7_233_001
_LEDGER = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    number      integer PRIMARY KEY,
    name        text NOT NULL,
    sha256      text NOT NULL,
    applied_at  timestamptz NOT NULL DEFAULT now()
)
"""


@dataclass(frozen=True)
class Migration:
    """One SQL file: its number, name, text and the SHA-256 of that text."""

    number: int
    name: str
    sql: str

    @property
    def sha256(self) -> str:
        """Hex digest of the text."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


def known(directory: Path = DIRECTORY) -> list[Migration]:
    """Return the migrations of this version, in order.

    Raises:
        ValueError: for a file with another name, or a gap or repetition in the numbers.
    """
    found = []
    for path in sorted(directory.glob("*.sql")):
        match = _NAME.fullmatch(path.name)
        if match is None:
            raise ValueError(f"{path.name} is not named NNNN_name.sql")
        # read_text translates line ends, so a checkout with CRLF has the same digest.
        found.append(Migration(int(match[1]), match[2], path.read_text(encoding="utf-8")))
    if [m.number for m in found] != list(range(1, len(found) + 1)):
        raise ValueError(f"the numbers in {directory} are not 1, 2, 3, ...")
    return found


def pending(migrations: list[Migration], applied: Mapping[int, str]) -> list[Migration]:
    """Return the migrations that are still to be applied.

    Args:
        migrations: those of this version, in order.
        applied: SHA-256 by number of those that the database has.

    Raises:
        PlatformError: DATA_INCOMPATIBLE when the database has one that is unknown here, or another text of one.
    """
    by_number = {m.number: m for m in migrations}
    for number, sha256 in sorted(applied.items()):
        if number not in by_number:
            raise _newer(number)
        if by_number[number].sha256 != sha256:
            raise _changed(by_number[number])
    return [m for m in migrations if m.number not in applied]


def migrate(connection: psycopg.Connection[tuple[object, ...]], migrations: list[Migration] | None = None) -> list[int]:
    """Bring the schema up to date and return the numbers that were applied now.

    Args:
        connection: to the database `platform`, in autocommit mode.
        migrations: default: those of this version.

    Raises:
        PlatformError: DATA_INCOMPATIBLE; the database is left as it was.
    """
    migrations = known() if migrations is None else migrations
    connection.execute("SELECT pg_advisory_lock(%s)", (_LOCK,))
    try:
        todo = pending(migrations, _applied(connection))
        for migration in todo:
            _apply(connection, migration)
    finally:
        connection.execute("SELECT pg_advisory_unlock(%s)", (_LOCK,))
    return [m.number for m in todo]


def _applied(connection: psycopg.Connection[tuple[object, ...]]) -> dict[int, str]:
    # IF NOT EXISTS alone would print a notice each time.
    if connection.execute("SELECT to_regclass('public.schema_migrations')").fetchone() == (None,):
        connection.execute(_LEDGER)
    rows = connection.execute("SELECT number, sha256 FROM schema_migrations").fetchall()
    return {int(str(number)): str(sha256) for number, sha256 in rows}


def _apply(connection: psycopg.Connection[tuple[object, ...]], migration: Migration) -> None:
    with connection.transaction():
        connection.execute(migration.sql.encode())
        connection.execute(
            "INSERT INTO schema_migrations (number, name, sha256) VALUES (%s, %s, %s)",
            (migration.number, migration.name, migration.sha256),
        )


def _newer(number: int) -> PlatformError:
    return PlatformError(
        "DATA_INCOMPATIBLE",
        f"the database platform has migration {number:04d}, which this version does not have",
        why="a newer version of the platform wrote it; nothing was changed",
        steps=("use that newer version (git pull)", "or another state directory: PLATFORM_STATE_DIR"),
    )


def _changed(migration: Migration) -> PlatformError:
    return PlatformError(
        "DATA_INCOMPATIBLE",
        f"migration {migration.number:04d}_{migration.name} has changed since it was applied",
        why="its SHA-256 differs from the one in schema_migrations; nothing was changed",
        steps=("restore that file (git checkout) and make the change in a new migration",),
    )
