"""The trash on directories of a native tier: what goes in comes out, nothing is lost on the way."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path
from typing import Any

import pytest

from infra import settings, stack
from infra.console import Console
from infra.context import Context
from infra.data import trash
from infra.errors import PlatformError
from infra.tiers.base import Removal
from infra.tiers.native import object_store
from infra.tiers.native import postgres as native_postgres
from infra.tiers.native.tier import Native


@pytest.fixture
def context(tmp_path: Path) -> Context:
    loaded = settings.load(root=tmp_path, environ={})
    return Context(loaded, stack.of(loaded), Console(environ={}))


def filled(context: Context, *names: str) -> Path:
    data = context.stack.tier_home("native") / "data"
    for name in names:
        (data / name).mkdir(parents=True)
        (data / name / "rows").write_text(name)
    return data


def removed(context: Context, *names: str) -> list[trash.Entry]:
    tier = Native(context)
    return trash.put(tier, tier.removals(names), "reset")


def test_what_is_put_away_is_listed_with_size_and_expiry_and_comes_back(context: Context) -> None:
    data = filled(context, "redis", "temporal")
    (entry,) = removed(context, "redis")
    assert not (data / "redis").exists()
    (found,) = trash.entries(context.stack)
    assert (found.service, found.tier, found.size, found.what) == ("redis", "native", 5, "reset")
    assert 6.9 < (found.expires - found.created) / 86400 < 7.1
    assert entry.path.stat().st_mode & 0o777 == 0o700
    assert (entry.path / trash.NOTE).stat().st_mode & 0o777 == 0o600
    trash.bring_back(Native(context), found)
    assert (data / "redis" / "rows").read_text() == "redis"
    assert trash.entries(context.stack) == []


def test_a_store_comes_back_with_its_versions_and_its_engine(context: Context) -> None:
    data = filled(context, "minio-datasets", "minio-datasets-versions")
    object_store.record(data.parent, "rclone")
    (entry,) = removed(context, "minio-datasets")
    assert object_store.recorded(data.parent) == ""
    trash.bring_back(Native(context), entry)
    assert sorted(p.name for p in data.iterdir()) == ["minio-datasets", "minio-datasets-versions"]
    assert object_store.recorded(data.parent) == "rclone"


def test_a_store_of_another_engine_stays_in_the_trash_and_the_present_one_in_its_place(context: Context) -> None:
    data = filled(context, "minio-datasets", "minio-results")
    object_store.record(data.parent, "rclone")
    (entry,) = removed(context, "minio-datasets")
    (entry.path / "0" / "store-engine").write_text("minio")
    filled(context, "minio-datasets")
    with pytest.raises(PlatformError) as caught:
        trash.bring_back(Native(context), entry)
    assert caught.value.code == "DATA_INCOMPATIBLE"
    assert [e.name for e in trash.entries(context.stack)] == [entry.name]
    assert (data / "minio-datasets" / "rows").read_text() == "minio-datasets"


def test_what_is_in_the_place_goes_into_the_trash(context: Context) -> None:
    data = filled(context, "redis")
    (entry,) = removed(context, "redis")
    (data / "redis").mkdir()
    (data / "redis" / "rows").write_text("newer")
    (away,) = trash.bring_back(Native(context), entry)
    assert (data / "redis" / "rows").read_text() == "redis"
    assert (away.path / "0" / "data" / "rows").read_text() == "newer"


def test_two_removals_within_a_second_are_two_entries(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    now = float(int(time.time()))
    monkeypatch.setattr("infra.data.trash.time.time", lambda: now)
    for text in ("first", "second"):
        (filled(context, "redis") / "redis" / "rows").write_text(text)
        removed(context, "redis")
    first, second = trash.entries(context.stack)
    assert second.name == f"{first.name}-2"
    assert trash.find(context.stack, "redis").name == second.name


def test_a_removal_that_was_cut_short_can_be_undone(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    data = filled(context, "minio-datasets", "minio-datasets-versions")
    real = Native.stash

    def cut(self: Native, removal: Removal, into: Path) -> None:
        if "versions" in removal.place:
            raise KeyboardInterrupt
        real(self, removal, into)

    monkeypatch.setattr(Native, "stash", cut)
    with pytest.raises(KeyboardInterrupt):
        removed(context, "minio-datasets")
    (data / "minio-datasets-versions").rename(data / "aside")  # else it would be in the way
    (entry,) = trash.entries(context.stack)
    trash.bring_back(Native(context), entry)
    assert (data / "minio-datasets" / "rows").read_text() == "minio-datasets"


def test_where_the_trash_is_on_another_disk(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    data, real = filled(context, "redis"), os.rename

    def refuse(source: Any, target: Any) -> None:
        if trash.DIRECTORY in Path(target).parts and Path(target).name == "data":
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        real(source, target)

    monkeypatch.setattr(os, "rename", refuse)
    (entry,) = removed(context, "redis")
    assert [p.name.startswith(".redis-trash-") for p in data.iterdir()] == [True]
    trash.bring_back(Native(context), entry)
    assert (data / "redis" / "rows").read_text() == "redis"
    (again,) = removed(context, "redis")
    trash.remove(again)
    assert list(data.iterdir()) == []


def test_only_what_has_expired_is_swept(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(context, "redis", "temporal")
    removed(context, "redis")
    later = time.time() + trash.DAYS * 86400 - 60
    monkeypatch.setattr(time, "time", lambda: later)
    removed(context, "temporal")
    assert trash.sweep(context.stack) == []
    monkeypatch.setattr(time, "time", lambda: later + 120)
    assert [e.service for e in trash.sweep(context.stack)] == ["redis"]
    assert [e.service for e in trash.entries(context.stack)] == ["temporal"]


def test_an_entry_with_a_damaged_note_is_shown_and_kept(context: Context) -> None:
    filled(context, "redis")
    (entry,) = removed(context, "redis")
    (entry.path / trash.NOTE).write_text("{")
    (found,) = trash.entries(context.stack)
    assert found.problem
    assert not found.expired
    with pytest.raises(PlatformError) as caught:
        trash.find(context.stack, entry.name)
    assert caught.value.code == "BACKUP_DAMAGED"
    assert (entry.path / "0" / "data" / "rows").exists()


def test_databases_come_back_where_they_are_looked_for(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native_postgres, "is_root", lambda: True)
    data = filled(context, "redis").parent / "elsewhere" / "postgres"
    data.mkdir(parents=True)
    tier, removal = Native(context), Removal("postgres", data, 0)
    (entry,) = trash.put(tier, [removal], "reset")
    trash.bring_back(tier, entry)
    assert data.is_dir()
    assert (context.stack.tier_home("native") / "postgres-data").read_text().strip() == str(data)
