"""Rows and digests of COPY text, packing and unpacking, and the files of an archive as they grow."""

from __future__ import annotations

import hashlib
import os
import random
import sys
from pathlib import Path

import pytest

from infra.data import page_cache
from infra.data.postgres import digest, dump, packing

END = b"\\.\n\n\n"
ROWS = b"".join(b"%d\trow %d\n" % (n, n) for n in range(1000))


def _measured(text: bytes, size: int) -> digest.Content:
    meter = digest.Meter()
    for start in range(0, len(text), size):
        meter.feed(text[start : start + size])
    return meter.content()


@pytest.mark.parametrize("size", [1, 2, 7, 4096, 1 << 20])
def test_rows_and_digest_do_not_depend_on_how_the_text_arrives(size: int) -> None:
    found = _measured(ROWS + END, size)
    assert (found.rows, found.size) == (1000, len(ROWS))
    assert found == _measured(ROWS + END, 333)
    assert _measured(END, size).rows == 0
    assert found.digest != _measured(ROWS.replace(b"row 7\n", b"row 8\n") + END, size).digest


def test_a_packed_file_is_private_and_comes_back(tmp_path: Path) -> None:
    source, packed, again = tmp_path / "1.dat", tmp_path / "1.dat.zst", tmp_path / "again"
    source.write_bytes(ROWS + END)
    file, content = packing.pack(source, packed, "d/1.dat.zst", lambda: False)
    assert content.rows == 1000
    assert (file.path, file.size) == ("d/1.dat.zst", packed.stat().st_size)
    assert file.sha256 == hashlib.sha256(packed.read_bytes()).hexdigest()
    assert packing.unpack(os.open(packed, os.O_RDONLY), again) == len(ROWS + END)
    assert again.read_bytes() == ROWS + END
    if os.name != "nt":
        assert packed.stat().st_mode & 0o777 == 0o600


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    source, packed = tmp_path / "1.dat", tmp_path / "1.dat.zst"
    source.write_bytes(ROWS + END)
    packing.pack(source, packed, "x", lambda: False)
    content = bytearray(packed.read_bytes())
    content[len(content) // 2] ^= 1
    packed.write_bytes(content)
    with pytest.raises(ValueError, match=r"."):
        packing.unpack(os.open(packed, os.O_RDONLY), tmp_path / "again")


@pytest.mark.skipif(sys.platform != "linux", reason="there is advice to the page cache on Linux only")
def test_large_files_alone_leave_the_page_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = []
    monkeypatch.setattr(os, "posix_fadvise", lambda number, start, size, advice: told.append((start, size, advice)))
    for size in (page_cache.LARGE - 1, page_cache.LARGE):
        with open(tmp_path / str(size), "wb", buffering=0) as file:
            file.write(bytes(size))
            page_cache.forget(file)
    assert told == [(0, 0, os.POSIX_FADV_DONTNEED)]


def _rows(text: bytes, size: int) -> tuple[int, int]:
    rows = digest.Rows()
    for start in range(0, len(text), size):
        rows.write(text[start : start + size])
    return rows.sum


@pytest.mark.parametrize("size", [1, 3, 100])
def test_the_order_of_rows_can_be_left_out_of_account(size: int) -> None:
    one = _rows(b"1\n2\n30\n", 100)
    assert one == _rows(b"30\n1\n2\n", size)
    assert one != _rows(b"30\n1\n1\n", size)
    assert _rows(b"\n1\n", size) != _rows(b"1\n", size)


def test_rows_are_the_same_with_their_fields_in_another_order() -> None:
    one, other = digest.Rows(columns=(1, 0)), digest.Rows()
    one.write(b"a\\t\t1\nb\t2\n\\.\n")
    other.write(b"2\tb\n1\ta\\t\n\\.\n")
    assert one.sum == other.sum


@pytest.mark.skipif(sys.platform != "linux", reason="holes are made on Linux only")
def test_what_has_been_read_of_a_growing_file_is_gone_from_the_disk(tmp_path: Path) -> None:
    source = tmp_path / "1.dat"
    text = random.Random(1).randbytes(4 * page_cache.STEP).replace(b"\n", b" ") + b"\n" + END
    source.write_bytes(text)
    seen = []

    def growing() -> bool:
        seen.append(source.stat().st_blocks * 512)
        return len(seen) == 1

    assert digest.measure(source, growing) == _measured(text, 1 << 20)
    assert seen[0] >= len(text) - page_cache.STEP
    assert seen[-1] <= page_cache.STEP + (1 << 20)
    assert source.stat().st_size == len(text)


def test_where_no_holes_can_be_made_a_file_is_read_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_cache, "_punch", lambda: None)
    source = tmp_path / "1.dat"
    text = b"x" * 2 * page_cache.STEP + b"\n" + END
    source.write_bytes(text)
    source.chmod(0o400)
    assert digest.measure(source, lambda: False) == _measured(text, 1 << 20)
    assert source.read_bytes() == text


def test_data_files_are_taken_once_and_in_order(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    states = iter([False, False, True, True, True, True, True, True])
    taken = []
    raw.mkdir()
    for number, name in enumerate(["toc.dat", "10.dat", "9.dat", "blobs.toc"]):
        (raw / name).write_bytes(b"x")
        os.utime(raw / name, (number, number))
    for path, growing in dump.data_files(raw, lambda: next(states)):
        taken.append((path.name, growing()))
        path.unlink()
    assert taken == [("10.dat", False), ("9.dat", False)]


def test_a_file_that_is_written_to_while_it_is_looked_at_is_not_taken_for_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "10.dat"
    path.write_bytes(b"x")
    real = dump._by_age

    def by_age(raw: Path) -> list[Path]:
        os.utime(path, (10**9, 10**9 + 5))  # pg_dump writes on, between two looks
        return real(raw)

    os.utime(path, (10**9, 10**9))
    monkeypatch.setattr(dump, "_by_age", by_age)
    assert dump._newest(path, tmp_path)


def test_rows_without_their_end_mark_are_not_whole() -> None:
    assert _measured(ROWS + END, 4096).whole
    assert not _measured(ROWS, 4096).whole
    assert not _measured((ROWS + END)[:-1], 4096).whole


def test_names_of_databases_are_no_connection_strings() -> None:
    assert dump.quoted("users") == "dbname='users'"
    assert dump.quoted("a'b\\ host=x") == "dbname='a\\'b\\\\ host=x'"


def test_archives_are_compared_by_object_and_content() -> None:
    one = dump.Archive(("TABLE a", "TABLE b"), {"a": digest.Content(1, 2, "x")})
    other = dump.Archive(("TABLE a", "TABLE c"), {"a": digest.Content(1, 2, "y")})
    assert dump.other_objects(one, other) == ["missing: TABLE b", "unexpected: TABLE c"]
    assert dump.other_objects(one, other, same_version=False) == ["missing: TABLE b", "unexpected: TABLE c"]
    assert dump.different(one, other) == ["a"]
    large = dump.Archive(dump.objects(["BLOB - 1 me", "TABLE a", "ENCODING ENCODING"]), {})
    assert large.objects == ("TABLE a",)
    assert dump.from_summary(dump.summary(one)) == one
