"""A laptop's snapshot for a site: what is brought, how it is compared, and how names change hands."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

import pytest

from infra.data.postgres.digest import Meter
from infra.data.store import Backup
from infra.errors import PlatformError
from infra.prod import moved
from infra.prod.postgres import SiteServer
from tests.unit.prod.played import Played

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
HELD = ("platform", "users", "labeler", "mlflow", "temporal", "mine")


def _snapshot(*names: str, **parts: Any) -> Any:
    class Saved:  # what a plan reads of a backup
        path = Path("0001")
        facts: ClassVar[Any] = {"parts": {"databases": {"databases": {name: {} for name in names}}, **parts}}

    return Saved()


def test_temporal_redis_and_what_is_not_ours_stay_where_they_are() -> None:
    made = moved.plan(_snapshot(*HELD, objects={}, redis={}, temporal={"storage": "databases"}), NOW)
    assert made.databases == ("platform", "users", "labeler", "mlflow")
    assert made.objects
    assert set(made.left_out) == {"temporal", "mine", "redis"}
    assert "shards" in made.left_out["temporal"]
    assert made.old("platform") == "platform_old_20261130120000"


def test_an_empty_database_does_not_replace_what_a_site_has() -> None:
    held = {"platform": {"tables": 4}, "mlflow": {"tables": 0}}
    saved = _snapshot("platform")
    saved.facts["parts"]["databases"]["databases"] = held
    made = moved.plan(saved, NOW)
    assert made.databases == ("platform",)
    assert "empty" in made.left_out["mlflow"]


def test_a_snapshot_without_our_databases_is_refused() -> None:
    with pytest.raises(PlatformError) as refused:
        moved.plan(_snapshot("mine"), NOW)
    assert refused.value.code == "NOT_FOUND"


@dataclass(frozen=True)
class Asked(SiteServer):
    """A server that notes what it is asked, and answers by the beginning of the script."""

    answers: dict[str, Any] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)

    def ask(self, script: str, database: str = "postgres", **variables: str) -> str:
        self.log.append(f"{database}: {script}")
        for begin, answer in self.answers.items():
            if begin in script:
                if isinstance(answer, Exception):
                    raise answer
                return str(answer[database] if isinstance(answer, dict) else answer)
        return ""


def _move() -> moved.Move:
    return moved.plan(_snapshot("platform", "users"), NOW)


def test_names_change_hands_in_one_transaction_and_nobody_is_connected() -> None:
    server = Asked(Played(), "postgresql")
    moved.swap(server, _move())
    (script,) = server.log
    begin, end = script.index("begin;\n"), script.index("commit;\n")
    inside = script[begin:end]
    assert inside.count("rename to") == 4
    assert inside.index('"platform" rename to "platform_old_') < inside.index(
        '"platform_new_20261130120000" rename to "platform"'
    )
    assert script.index('alter database "users" allow_connections false') < script.index("pg_terminate_backend") < begin
    assert 'alter database "platform_old_20261130120000" allow_connections true' in script[end:]


def test_a_swap_that_fails_opens_the_databases_again() -> None:
    server = Asked(Played(), "postgresql", {"begin;": PlatformError("SQL_FAILED", "in use")})
    with pytest.raises(PlatformError, match="in use"):
        moved.swap(server, _move())
    assert 'alter database "platform" allow_connections true' in server.log[-1]


def test_another_schema_is_refused() -> None:
    versions = {"mlflow": "(one)", "new": "(two)"}
    server = Asked(Played(), "postgresql", {"to_regclass": "t", "string_agg": versions})
    with pytest.raises(PlatformError) as refused:
        moved._same_schema(server, "mlflow", "new")
    assert refused.value.code == "DATA_INCOMPATIBLE"
    versions["new"] = "(one)"
    moved._same_schema(server, "mlflow", "new")


ROWS = b"1\tone\n2\ttwo\n"


class Printing(Asked):
    """A server whose psql prints the rows of two tables."""

    marks: ClassVar[list[str]] = []

    def ask(self, script: str, database: str = "postgres", **variables: str) -> str:
        self.marks.append(variables["mark"])
        return super().ask(script, database, **variables)

    def argv(self, database: str, pod: str = "", first: str = "", **variables: str) -> list[str]:
        mark = self.marks[-1]
        text = f"{mark} public jobs\n" + ROWS.decode() + f"{mark} public empty table\n"
        return [sys.executable, "-c", f"import sys; sys.stdin.read(); sys.stdout.write({text!r})"]


def _digest(rows: bytes) -> str:
    meter = Meter()
    meter.feed(rows)
    return meter.content().digest


def _entry(rows: int = 2, digest: str = "") -> dict[str, Any]:
    return {
        "tables": {
            "TABLE DATA public jobs admin": {"rows": rows, "bytes": 1, "digest": digest or _digest(ROWS)},
            "TABLE DATA public empty table admin": {"rows": 0, "bytes": 0, "digest": _digest(b"")},
        }
    }


def test_rows_are_those_of_the_snapshot_whoever_owns_the_table() -> None:
    assert moved.compare(Printing(Played(), "postgresql"), "new", _entry()) == 2


@pytest.mark.parametrize("entry", [_entry(rows=3), _entry(digest="0" * 32), {"tables": {}}])
def test_a_difference_names_the_table(entry: dict[str, Any]) -> None:
    with pytest.raises(PlatformError) as differs:
        moved.compare(Printing(Played(), "postgresql"), "new", entry)
    assert differs.value.code == "RESTORE_DIFFERS"
    assert "public jobs" in str(differs.value.details["tables"])


def test_a_backup_is_what_a_snapshot_holds() -> None:
    assert {"path", "facts", "files"} <= set(Backup.__dataclass_fields__)
