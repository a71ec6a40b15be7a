from __future__ import annotations

from dataclasses import replace

import pytest

from infra.data.postgres import reasons
from infra.data.postgres.needs import Needs
from infra.errors import PlatformError
from infra.shell import Result
from tests.unit.data.postgres.test_facts import FACTS

CHECK = """\
pg_restore: error: COPY failed for table "t""x": ERROR:  new row for relation "t""x" violates check constraint "c"
DETAIL:  Failing row contains (1).
"""
IGNORED = """\
pg_restore: error: could not execute query: ERROR:  extension "nosuch" is not available
DETAIL:  Could not open extension control file.
Command was: CREATE EXTENSION IF NOT EXISTS nosuch;
pg_restore: error: could not execute query: ERROR:  type "v" does not exist
Command was: CREATE TABLE t (v v);
pg_restore: warning: errors ignored on restore: 2
"""


def test_a_table_that_its_own_check_refuses_is_known_by_name() -> None:
    assert reasons.checked(Result(1, CHECK, "")) == 't"x'
    assert reasons.checked(Result(1, IGNORED, "")) == ""


def test_what_a_restore_has_left_out_is_said_where_it_came_to_its_end() -> None:
    found = reasons.ignored(Result(1, IGNORED, ""))
    assert [text.split("ERROR:")[1].split()[:2] for text in found] == [["extension", '"nosuch"'], ["type", '"v"']]
    assert reasons.ignored(Result(1, IGNORED.replace("errors ignored", "x"), "")) == []
    assert reasons.ignored(Result(-9, IGNORED, "")) == []
    assert reasons.ignored(Result(1, IGNORED + "FATAL:  the database system is shutting down", "")) == []


@pytest.mark.parametrize(("details", "alone"), [({"database": "a"}, True), ({}, False)])
def test_what_concerns_one_database_says_which(details: dict[str, object], alone: bool) -> None:
    assert reasons.of_one(PlatformError("BACKUP_FAILED", "x", details=details)) is alone


def test_an_earlier_manifest_says_extensions_by_their_entries() -> None:
    entry = {**FACTS.data(), "objects": ["EXTENSION - vector ", "COMMENT - EXTENSION vector ", "TABLE public t admin"]}
    assert Needs.of(entry).extensions == {"vector": ""}
    assert Needs.of(entry).collations == ((None, "b", "C.UTF-8"),)
    assert Needs.of(entry).lines() == ["extension vector"]


def test_what_a_database_needs_goes_through_a_manifest() -> None:
    needs = Needs(("a",), ("fast",), {"vector": "0.8"}, (("de-x-icu", "i", "de"),), True)
    own = (None, "b", "C.UTF-8")
    found = Needs.of({**FACTS.data(), "objects": [], **needs.data()})
    assert found == replace(needs, collations=(own, *needs.collations))
    assert found.lines() == ["extension vector 0.8", "locale de-x-icu (icu)", "XML", "tablespace fast"]
