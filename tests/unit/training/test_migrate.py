from __future__ import annotations

from pathlib import Path

import pytest

from infra.errors import PlatformError
from infra.provision import migrate
from infra.provision.migrate import Migration

ONE, TWO = Migration(1, "one", "CREATE TABLE a ()"), Migration(2, "two", "CREATE TABLE b ()")


def test_our_own_files_are_numbered_without_gaps() -> None:
    found = migrate.known()
    assert [m.number for m in found] == list(range(1, len(found) + 1))
    assert found[0].name == "training"


def test_an_empty_database_gets_all() -> None:
    assert migrate.pending([ONE, TWO], {}) == [ONE, TWO]


def test_only_what_is_missing() -> None:
    assert migrate.pending([ONE, TWO], {1: ONE.sha256}) == [TWO]
    assert migrate.pending([ONE, TWO], {1: ONE.sha256, 2: TWO.sha256}) == []


def test_a_changed_migration_is_refused() -> None:
    with pytest.raises(PlatformError, match="0001_one has changed") as caught:
        migrate.pending([ONE, TWO], {1: "other"})
    assert caught.value.code == "DATA_INCOMPATIBLE"


def test_a_newer_database_is_refused() -> None:
    with pytest.raises(PlatformError, match="0002, which this version does not have") as caught:
        migrate.pending([ONE], {1: ONE.sha256, 2: TWO.sha256})
    assert caught.value.code == "DATA_INCOMPATIBLE"


@pytest.mark.parametrize("names", [["0001_a.sql", "0003_b.sql"], ["0002_a.sql"], ["1_a.sql"], ["0001-a.sql"]])
def test_wrong_names_are_a_defect(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        (tmp_path / name).write_text("select 1")
    with pytest.raises(ValueError, match=r"sql|numbers"):
        migrate.known(tmp_path)


def test_line_ends_do_not_change_the_digest(tmp_path: Path) -> None:
    digests = []
    for ending in (b"\n", b"\r\n"):
        (tmp_path / "0001_a.sql").write_bytes(b"select 1;" + ending + b"select 2;" + ending)
        digests.append(migrate.known(tmp_path)[0].sha256)
    assert digests[0] == digests[1]
