"""Manifests of databases that this tool has not written, although their checksum fits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from infra.data import store
from infra.data.postgres import backups, manifest
from infra.errors import PlatformError
from tests.unit.data.manifests import manifest_facts


def _loaded(target: Path, change: dict[str, Any]) -> store.Backup:
    """A backup whose manifest says something else in some places, named by their path (`facts/server`)."""
    with store.publishing(target, backups.KIND) as (draft, noted):
        draft.path("00-users/toc.dat").write_text("content")
        draft.add("00-users/toc.dat")
        noted |= manifest_facts()
    path = Path(str(noted["path"]))
    body = json.loads((path / store.MANIFEST).read_text())
    for where, value in change.items():
        *way, last = where.split("/")
        place = body
        for step in way:
            place = place[int(step) if step.isdigit() else step]
        place[last] = value
    (path / store.MANIFEST).write_text(json.dumps({**body, "sha256": store.digest_of(body)}))
    return store.load(path)


def test_what_this_tool_writes_has_no_problem(tmp_path: Path) -> None:
    assert manifest.judged(_loaded(tmp_path, {})).problem == ""


ENTRY = "facts/databases/users"


@pytest.mark.parametrize(
    ("where", "value"),
    [
        ("files/0/path", "/etc/hostname"),
        ("files/0/path", "../../x"),
        ("files/0/path", "a\nb"),
        ("files/0/path", "a\0b"),
        ("files/0/path", 5),
        ("files/0/size", -1),
        ("files/0/size", 10**40),
        ("files/0/size", "5"),
        ("facts", {}),
        ("facts", []),
        ("created", "x\x1b[31m"),
        ("sequence", "x"),
        ("kind", 5),
        ("facts/server", None),
        ("facts/client", {"number": "x"}),
        ("facts/databases", ["users"]),
        (ENTRY, None),
        (f"{ENTRY}/name", "other"),
        (f"{ENTRY}/directory", "../../../evil"),
        (f"{ENTRY}/directory", "/evil"),
        (f"{ENTRY}/directory", 5),
        (f"{ENTRY}/tables", []),
        (f"{ENTRY}/tables/TABLE DATA public t/bytes", -(10**9)),
        (f"{ENTRY}/tables/TABLE DATA public t/bytes", 10**30),
        (f"{ENTRY}/tables/TABLE DATA public t/rows", "many"),
        (f"{ENTRY}/acl", ["nonsense"]),
        (f"{ENTRY}/connections", "x"),
        (f"{ENTRY}/settings", [["", "x=1"]]),
        (f"{ENTRY}/owner", None),
    ],
)
def test_what_it_never_writes_is_refused(tmp_path: Path, where: str, value: Any) -> None:
    found = manifest.judged(_loaded(tmp_path, {where: value}))
    assert "not written by this tool" in found.problem
    with pytest.raises(PlatformError) as caught:
        backups.find(tmp_path, str(found.path))
    assert caught.value.code == "BACKUP_DAMAGED"
    assert all(b.problem for b in backups.listing(tmp_path))


@pytest.mark.parametrize("name", ["", "a\0b", "x" * 64, "template0"])
def test_names_that_no_database_to_restore_has(tmp_path: Path, name: str) -> None:
    facts = manifest_facts(name)
    found = manifest.judged(_loaded(tmp_path, {"facts": facts}))
    assert "not a valid database name" in found.problem


def test_a_foreign_backup_does_not_count_as_one_that_is_kept(tmp_path: Path) -> None:
    for change in ({}, {"facts/databases/users/directory": "../x"}):
        (_loaded(tmp_path, change).path / "verified.json").write_text("{}")
    assert [b.verified for b in backups.listing(tmp_path)] == [True, False]
    doomed, why = store.prunable(backups.listing(tmp_path), 1)
    assert doomed == []
    assert "1 of 2" not in why


def test_two_databases_in_one_directory_are_refused(tmp_path: Path) -> None:
    both = {**manifest_facts("a")["databases"], **manifest_facts("b")["databases"]}
    found = manifest.judged(_loaded(tmp_path, {"facts/databases": both}))
    assert "one directory" in found.problem
