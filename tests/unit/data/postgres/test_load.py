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


@pytest.fixture
def bombed(tmp_path: Path) -> tuple[LoadOrder, store.File, Path]:
    """A backup with a file that unpacks to 128 MiB, of which its manifest knows nothing, and where it would go."""
    bomb = zstandard.compress(bytes(128 << 20))
    source = tmp_path / "backup"
    (source / "d").mkdir(parents=True)
    (source / "d" / "1.dat.zst").write_bytes(bomb)
    work = tmp_path / "work"
    work.mkdir()
    file = store.File("d/1.dat.zst", len(bomb), "")
    tables = {"TABLE DATA public t admin": {"rows": 3, "bytes": 12, "digest": ""}}
    facts = {"databases": {"x": {"directory": "d", "tables": tables}}}
    backup = store.Backup(source, "db", 1, "", facts, (file,))
    return LoadOrder(cast(Server, None), backup, {"x": "x"}, Room(work), Children()), file, work


def test_a_file_that_unpacks_to_more_than_its_manifest_says_is_refused(
    bombed: tuple[LoadOrder, store.File, Path],
) -> None:
    order, file, work = bombed
    with pytest.raises(PlatformError) as raised:
        load.unpack(order, file, work / "1.dat.zst", order.budget("x"))
    written = [path.stat().st_size for path in work.iterdir()]
    assert raised.value.code == "BACKUP_DAMAGED"
    assert "more than the manifest says" in raised.value.what
    assert sum(written) <= 12 + 2 * load.SLACK


def test_many_files_share_what_their_manifest_says(bombed: tuple[LoadOrder, store.File, Path]) -> None:
    order, file, work = bombed
    budget = load.Budget(200 << 20)
    load.unpack(order, file, work / "1.dat.zst", budget)
    with pytest.raises(PlatformError):
        load.unpack(order, file, work / "2.dat.zst", budget)


def test_what_may_unpack_leaves_room_on_the_disk(
    bombed: tuple[LoadOrder, store.File, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    order, file, work = bombed
    monkeypatch.setattr(load, "RESERVE", 1 << 62)
    with pytest.raises(PlatformError) as raised:
        load.unpack(order, file, work / "1.dat.zst", load.Budget(1 << 40))
    assert raised.value.code == "BACKUP_FAILED"
    assert sum(path.stat().st_size for path in work.iterdir()) <= load.STEP + store.CHUNK
