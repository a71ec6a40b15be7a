"""The space that unpacked databases share."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import zstandard

from infra.data import store
from infra.data.postgres import load
from infra.data.postgres.children import Children
from infra.data.postgres.clients import Server
from infra.data.postgres.load import LoadOrder, Room
from infra.errors import PlatformError


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Room:
    """A directory on a disk with 100 bytes left."""
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=100))
    return Room(tmp_path)


def test_what_does_not_fit_beside_another_waits_for_it(room: Room) -> None:
    seen: list[str] = []
    first_has_it, second_asks = threading.Event(), threading.Event()

    def first() -> None:
        with room.of(60, Children()):
            first_has_it.set()
            second_asks.wait(10)
            seen.append("first is done")

    def second() -> None:
        first_has_it.wait(10)
        second_asks.set()
        with room.of(60, Children()):
            seen.append("second begins")

    threads = [threading.Thread(target=work) for work in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert seen == ["first is done", "second begins"]
    assert room.taken == 0


def test_what_fits_beside_another_does_not_wait(room: Room) -> None:
    with room.of(40, Children()), room.of(60, Children()):
        assert room.taken == 100


def test_what_never_fits_is_refused_with_what_is_needed(room: Room) -> None:
    with pytest.raises(PlatformError) as caught, room.of(101_000_000, Children()):
        pass
    assert caught.value.code == "BACKUP_FAILED"
    assert "101 MB" in caught.value.what


def test_a_run_that_is_stopped_waits_no_longer(room: Room) -> None:
    children = Children()
    children.stop()
    with room.of(60, Children()), pytest.raises(PlatformError) as caught, room.of(60, children):
        pass
    assert caught.value.code == "INTERRUPTED"


def test_a_file_that_unpacks_to_far_more_than_it_says_leaves_room_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kilobyte of zstd can stand for gigabytes."""
    bomb = zstandard.compress(bytes(128 << 20))
    source = tmp_path / "backup"
    source.mkdir()
    (source / "bomb.dat.zst").write_bytes(bomb)
    file = store.File("bomb.dat.zst", len(bomb), "")
    work = tmp_path / "work"
    work.mkdir()
    backup = store.Backup(source, "db", 1, "", files=(file,))
    order = LoadOrder(cast(Server, None), backup, {}, Room(work), Children())
    monkeypatch.setattr(load, "RESERVE", 1 << 62)
    with pytest.raises(PlatformError) as raised:
        load.unpack(order, file, work / "bomb.dat.zst")
    assert raised.value.code == "BACKUP_FAILED"
    assert sum(path.stat().st_size for path in work.iterdir()) <= load.STEP + store.CHUNK
