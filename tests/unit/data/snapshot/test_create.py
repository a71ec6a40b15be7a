"""Snapshots without servers: what can cross between tiers, sealed contents, Temporal's file, keys of Redis."""

from __future__ import annotations

import base64
import io
import json
import os
import sqlite3
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from infra import tier_choice
from infra.data import redis_dump, temporal_file
from infra.data.objects.pool import Pool
from infra.data.snapshot import age, create, restore
from infra.data.store import Backup
from infra.errors import PlatformError
from infra.tasks import collection
from infra.tiers.base import Tier
from tests.unit.helpers import context_of
from tests.unit.test_lifecycle import FakeTier

PARTS = {
    "databases": {"databases": {"platform": {"tables": 1, "rows": 2}}},
    "objects": {"objects": 3, "buckets": [{}]},
    "redis": {"keys": 4},
}


def held(tier: str = "native", storage: str = "file") -> Backup:
    parts = {**PARTS, "temporal": {"storage": storage}}
    facts = {"label": "mine", "tier": tier, "parts": parts, "recipients": []}
    return Backup(Path("/x/000001"), "snapshot", 1, "2026-01-02T03:04:05Z", facts)


def on(tier: str, *, light: bool = False) -> Tier:
    return tier_choice.tier_of(tier, context_of(Path("/x"), PLATFORM_LIGHT="yes" if light else ""))


def code(caught: pytest.ExceptionInfo[PlatformError]) -> str:
    return caught.value.code


def test_all_parts_are_restored_on_the_tier_they_are_of() -> None:
    made = restore.plan(held(), on("native"))
    assert made.parts == ("databases", "objects", "redis", "temporal")
    assert made.left_out == {}
    assert "_old_" in "\n".join(made.lines())


@pytest.mark.parametrize(("tier", "storage", "to"), [("native", "file", "compose"), ("compose", "databases", "native")])
def test_temporal_cannot_cross_and_that_is_said_first(tier: str, storage: str, to: str) -> None:
    with pytest.raises(PlatformError) as caught:
        restore.plan(held(tier, storage), on(to))
    assert code(caught) == "DATA_INCOMPATIBLE"
    assert "--skip temporal" in caught.value.steps[0]
    made = restore.plan(held(tier, storage), on(to), skip=("temporal",))
    assert made.parts == ("databases", "objects", "redis")
    assert "SQLite" in made.left_out["temporal"]


@pytest.mark.parametrize(("tier", "storage"), [("compose", "databases"), ("kind", "databases"), ("native", "file")])
def test_the_light_stack_takes_no_storage_of_temporal(tier: str, storage: str) -> None:
    with pytest.raises(PlatformError) as caught:
        restore.plan(held(tier, storage), on("compose", light=True))
    assert code(caught) == "DATA_INCOMPATIBLE"
    assert "--skip temporal" in caught.value.steps[0]
    assert "inside a container" in caught.value.why
    made = restore.plan(held(tier, storage), on("compose", light=True), skip=("temporal",))
    assert made.parts == ("databases", "objects", "redis")


def test_light_means_nothing_to_the_native_tier() -> None:
    assert restore.plan(held(), on("native", light=True)).left_out == {}


def test_from_compose_to_kind_everything_crosses() -> None:
    assert restore.plan(held("compose", "databases"), on("kind")).left_out == {}


def test_unknown_and_missing_parts() -> None:
    with pytest.raises(PlatformError) as caught:
        restore.plan(held(), on("native"), skip=("rediss",))
    assert code(caught) == "USAGE"
    lacking = held()
    del lacking.facts["parts"]["redis"]
    with pytest.raises(PlatformError) as caught:
        restore.plan(lacking, on("native"), only=("redis",))
    assert code(caught) == "NOT_FOUND"


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["invoke", "snapshot.create"], False),
        (["invoke", "snapshot.create", "mine"], True),
        (["invoke", "snapshot.create", "--fence"], False),
        (["invoke", "status"], False),
    ],
)
def test_the_name_of_a_snapshot_may_be_left_out(words: list[str], named: bool) -> None:
    assert collection._named_snapshot(words) is named


@pytest.fixture
def keeping(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, Any]], list[create.SnapshotOrder]]:
    """`keep` where two snapshots are there and one with these facts is made; returns what was asked for."""

    def keep(facts: dict[str, Any]) -> list[create.SnapshotOrder]:
        taken = [replace(held(), facts={"label": name}) for name in ("kind-down", "kind-down-2")]
        asked = list[create.SnapshotOrder]()

        def made(tier: Tier, order: create.SnapshotOrder) -> Backup:
            asked.append(order)
            return replace(held(), facts=facts)

        monkeypatch.setattr(create, "listing", lambda target: taken)
        monkeypatch.setattr(create, "create", made)
        create.keep(FakeTier().of(context_of(tmp_path)), "kind-down", "before")
        return asked

    return keep


def test_what_is_kept_on_the_way_to_something_gets_a_name_that_is_free(
    keeping: Callable[[dict[str, Any]], list[create.SnapshotOrder]],
) -> None:
    assert [o.label for o in keeping({"parts": {}})] == ["kind-down-3"]


@pytest.mark.parametrize(
    "facts",
    [
        {"parts": {"databases": {"left_out": {"archive": "it takes no connections"}}}},
        {"parts": {"databases": {}}, "verified": {"failed": {"odd": "not the same"}}},
    ],
)
def test_nothing_is_removed_where_a_database_is_not_in_the_snapshot_or_not_verified(
    keeping: Callable[[dict[str, Any]], list[create.SnapshotOrder]], facts: dict[str, Any]
) -> None:
    with pytest.raises(PlatformError) as caught:
        keeping(facts)
    assert caught.value.code == "PARTIAL"


# --- sealed contents


def filled(directory: Path) -> Path:
    (directory / "a" / "b").mkdir(parents=True)
    (directory / "a" / "b" / "large").write_bytes(os.urandom(300_000))
    (directory / "Ünïcode 한글").write_text("x")
    (directory / "empty").write_bytes(b"")
    return directory


def tree(directory: Path) -> dict[str, bytes]:
    return {p.relative_to(directory).as_posix(): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


def test_what_is_sealed_opens_with_its_key_only(tmp_path: Path) -> None:
    content = filled(tmp_path / "content")
    recipient = age.new_key(tmp_path / "key")
    age.new_key(tmp_path / "other")
    sealed = tmp_path / "sealed"
    age.seal(content, sealed, age.recipients([recipient]))
    assert sealed.stat().st_mode & 0o777 == 0o600
    with open(sealed, "rb") as source:
        age.unseal(source, tmp_path / "out", age.identities(tmp_path / "key"), sealed.stat().st_size)
    assert tree(tmp_path / "out") == tree(content)
    with open(sealed, "rb") as source, pytest.raises(PlatformError) as caught:
        age.unseal(source, tmp_path / "no", age.identities(tmp_path / "other"), sealed.stat().st_size)
    assert code(caught) == "LOGIN_REFUSED"


@pytest.mark.parametrize("where", [200, 150_000, -20])
def test_damage_to_what_is_sealed_is_found(tmp_path: Path, where: int) -> None:
    recipient = age.new_key(tmp_path / "key")
    age.seal(filled(tmp_path / "content"), tmp_path / "sealed", age.recipients([recipient]))
    data = bytearray((tmp_path / "sealed").read_bytes())
    data[where] ^= 1
    with pytest.raises(PlatformError) as caught:
        age.unseal(io.BytesIO(data), tmp_path / "out", age.identities(tmp_path / "key"), len(data))
    assert code(caught) in ("BACKUP_DAMAGED", "LOGIN_REFUSED")


@pytest.mark.parametrize("name", ["../out", "/abs", "a/../../b"])
def test_an_archive_writes_nothing_outside(tmp_path: Path, name: str) -> None:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        member = tarfile.TarInfo(name)
        member.size = 1
        tar.addfile(member, io.BytesIO(b"x"))
    archive.seek(0)
    (tmp_path / "into").mkdir()
    with pytest.raises(PlatformError):
        age._unpack(archive, tmp_path / "into", 1 << 20)
    assert list((tmp_path / "into").iterdir()) == []


def _sparse(size: int) -> bytes:
    """A tar of two kilobytes with a file whose holes have `size` bytes."""
    archive, told = io.BytesIO(), b"1\n0\n1\n".ljust(512, b"\0") + b"x"
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.PAX_FORMAT) as tar:
        member = tarfile.TarInfo("holes")
        member.size = len(told)
        marks = {"major": "1", "minor": "0", "name": "holes", "realsize": str(size)}
        member.pax_headers = {f"GNU.sparse.{name}": value for name, value in marks.items()}
        tar.addfile(member, io.BytesIO(told))
    return archive.getvalue()


@pytest.mark.parametrize("size", [100, 1 << 40])
def test_an_archive_unpacks_to_no_more_than_it_holds(tmp_path: Path, size: int) -> None:
    data = _sparse(size)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert tar.getmembers()[0].size == size
    (tmp_path / "into").mkdir()
    with pytest.raises(PlatformError) as caught:
        age._unpack(io.BytesIO(data), tmp_path / "into", len(data))
    assert code(caught) == "BACKUP_DAMAGED"
    assert list((tmp_path / "into").iterdir()) == []


def test_the_files_of_an_archive_together_are_no_more_than_it_holds(tmp_path: Path) -> None:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name in ("a", "b"):
            member = tarfile.TarInfo(name)
            member.size = 600
            tar.addfile(member, io.BytesIO(bytes(600)))
    archive.seek(0)
    (tmp_path / "into").mkdir()
    with pytest.raises(PlatformError, match="more than it holds, at 'b'"):
        age._unpack(archive, tmp_path / "into", 1000)


def test_a_key_file_is_never_overwritten_and_no_recipient_is_said(tmp_path: Path) -> None:
    age.new_key(tmp_path / "key")
    for attempt in (
        lambda: age.new_key(tmp_path / "key"),
        lambda: age.recipients(["age1wrong"]),
        lambda: age.recipients(["ssh-ed25519 wrong"]),
        lambda: age.identities(tmp_path / "nowhere"),
    ):
        with pytest.raises(PlatformError) as caught:
            attempt()
        assert code(caught) == "USAGE"


# --- Temporal's file


def test_a_column_that_is_computed_as_those_of_temporal_are_hinders_no_copy(tmp_path: Path) -> None:
    source = sqlite3.connect(tmp_path / "temporal.db")
    source.execute("create table visible (what text, word as (json_extract(what, '$.word')))")
    source.execute("""insert into visible values ('{"word": "here"}')""")
    source.commit()
    facts = temporal_file.copy(tmp_path / "temporal.db", tmp_path / "copy")
    source.close()
    assert (facts["rows"], temporal_file.check(tmp_path / "copy", facts)) == ({"visible": 1}, 1)


def test_the_file_is_copied_while_it_is_written_to(tmp_path: Path) -> None:
    source = sqlite3.connect(tmp_path / "temporal.db")
    source.execute("pragma journal_mode=wal")
    source.execute("create table executions (id)")
    source.executemany("insert into executions values (?)", [(n,) for n in range(100)])
    source.commit()
    source.execute("begin immediate")
    source.execute("insert into executions values (100)")  # not committed: not in the copy
    facts = temporal_file.copy(tmp_path / "temporal.db", tmp_path / "copy")
    assert facts["rows"] == {"executions": 100}
    assert temporal_file.check(tmp_path / "copy", facts) == 100
    assert (tmp_path / "copy").stat().st_mode & 0o777 == 0o600
    source.close()
    data = bytearray((tmp_path / "copy").read_bytes())
    data[4096:4200] = b"\xff" * 104
    (tmp_path / "copy").write_bytes(data)
    with pytest.raises(PlatformError) as caught:
        temporal_file.check(tmp_path / "copy", facts)
    assert code(caught) == "BACKUP_DAMAGED"


# --- keys of Redis


def lines(path: Path, *keys: dict[str, Any], about: dict[str, Any] | None = None) -> Path:
    head = {"format": 1, "server": "Valkey 8", "functions": ""} if about is None else about
    path.write_text("".join(json.dumps(line) + "\n" for line in (head, *keys)))
    return path


def test_keys_are_read_as_they_were_written(tmp_path: Path) -> None:
    text = base64.b64encode(b"\x00\xff").decode()
    line = {"db": 3, "key": text, "dump": text, "type": "string", "expires": 7}
    _, keys = redis_dump.read(lines(tmp_path / "keys", line))
    assert list(keys) == [redis_dump.Key(3, b"\x00\xff", b"\x00\xff", "string", 7)]


@pytest.mark.parametrize("line", [{}, {"db": 0, "key": "%", "dump": "", "type": "", "expires": 0}])
def test_a_line_that_is_none_is_damage(tmp_path: Path, line: dict[str, Any]) -> None:
    _, keys = redis_dump.read(lines(tmp_path / "keys", line))
    with pytest.raises(PlatformError) as caught:
        list(keys)
    assert code(caught) == "BACKUP_DAMAGED"
    with pytest.raises(PlatformError):
        redis_dump.read(lines(tmp_path / "newer", about={"format": 2}))


# --- contents that are taken over


def test_a_content_is_taken_over_only_when_it_is_whole(tmp_path: Path) -> None:
    import hashlib

    name = hashlib.sha256(b"content").hexdigest()
    there = Pool(tmp_path / "there")
    there.path(name).parent.mkdir(parents=True)
    there.path(name).write_bytes(b"content")
    here = Pool(tmp_path / "here")
    assert here.take_over(there, name, 7)
    assert here.path(name).read_bytes() == b"content"
    there.path(name).unlink()
    there.path(name).write_bytes(b"CONTENT")
    third = Pool(tmp_path / "third")
    assert not third.take_over(there, name, 7)
    assert not third.has(name, 7)


def test_a_content_is_copied_where_links_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import hashlib

    def no_link(*given: Any, **named: Any) -> None:
        raise OSError(18, "Invalid cross-device link")

    name = hashlib.sha256(b"content").hexdigest()
    there, here = Pool(tmp_path / "there"), Pool(tmp_path / "here")
    there.path(name).parent.mkdir(parents=True)
    there.path(name).write_bytes(b"content")
    monkeypatch.setattr(os, "link", no_link)
    assert here.take_over(there, name, 7)
    assert here.path(name).stat().st_mode & 0o777 == 0o600
    assert [p.name for p in here.path(name).parent.iterdir()] == [name]
