from __future__ import annotations

import io
from typing import Any

import pytest

from infra.data.objects import records
from infra.data.objects.records import Earlier, ObjectItem
from infra.data.objects.xml import ListedObject

KEYS = sorted(
    ["a", "a b", "a/b", "a//b", "../up", "\n\x07", "\u00e9", "e\u0301", "z\udcff", "\U0001f600", "\ufe4f"],
    key=lambda key: key.encode("utf-8", "surrogateescape"),
)


def record(key: str, **more: Any) -> records.Record:
    known = {"store": "s", "bucket": "b", "key": key, "size": 1, "etag": "e", "sha256": "0" * 64, "modified": "m"}
    return {**known, **more}


def item(key: str, **more: Any) -> ObjectItem:
    return ObjectItem(**{"store": "s", "bucket": "b", "key": key, "size": 1, "etag": "e", "modified": "m", **more})


def written(*found: records.Record) -> Earlier:
    return Earlier(io.StringIO("".join(records.line_of(r) for r in found)))


def test_any_key_survives_a_line() -> None:
    lines = [records.line_of(record(key)) for key in KEYS]
    assert all(line.isascii() and line.count("\n") == 1 for line in lines)
    past = Earlier(io.StringIO("".join(lines)))
    assert [past.find(item(key))[0]["key"] for key in KEYS] == KEYS


def test_what_is_not_there_is_not_found_and_hinders_nothing() -> None:
    past = written(record("b"), record("d"))
    assert [past.find(item(k))[0] != {} for k in "abcde"] == [False, True, False, True, False]


def test_a_listing_out_of_order_is_still_found() -> None:
    past = written(record("a"), record("b"), record("c"))
    assert [past.find(item(k))[0]["key"] for k in "cab"] == ["c", "a", "b"]


@pytest.mark.parametrize("change", [{"etag": "x"}, {"size": 2}, {"modified": "n"}, {"etag": ""}, {"version": "v2"}])
def test_an_object_that_changed_is_read_again(change: dict[str, Any]) -> None:
    assert written(record("a")).find(item("a", **change)) == ({}, "")


def test_an_object_whose_etag_proves_nothing_is_read_again() -> None:
    assert written(record("a", racy=True)).find(item("a")) == ({}, "")


def test_of_several_versions_the_right_one_is_found() -> None:
    past = written(record("a", version="2"), record("a", version="1", latest=False), record("b", version="3"))
    assert past.find(item("a", version="1"))[0]["latest"] is False
    assert past.find(item("b", version="3"))[0]["key"] == "b"


def test_the_torn_last_line_of_a_killed_run_is_passed_over() -> None:
    text = records.line_of(record("a")) + records.line_of(record("b"))[:-9]
    past = Earlier(io.StringIO(text))
    assert past.find(item("a"))[0] != {}
    assert past.find(item("b")) == ({}, "")


def test_a_delete_marker_is_nothing_to_reuse() -> None:
    marker = {"store": "s", "bucket": "b", "key": "a", "version": "1", "deleted": True}
    assert written(marker).find(item("a", version="1", etag="")) == ({}, "")


def entries(*keys: str) -> list[ListedObject]:
    return [ListedObject(key, 1, "e", "m") for key in keys]


def test_records_and_a_listing_side_by_side() -> None:
    found = records.joined([record("a"), record("c")], entries("a", "b"), "s", "b")
    assert [(r and r["key"], e and e.key) for r, e in found] == [("a", "a"), (None, "b"), ("c", None)]


def test_a_listing_out_of_order_is_noticed_and_can_be_sorted() -> None:
    with pytest.raises(records.Unsorted):
        list(records.joined([], entries("b", "a"), "s", "b"))
    assert [e.key for e in records.in_order(entries("b", "a"))] == ["a", "b"]
