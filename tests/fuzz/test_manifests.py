"""Whatever stands in place of a backup's manifest: a backup with a problem, never a failure, and no way out of it."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from infra.data import redis_dump, store
from infra.data.objects import records
from infra.data.postgres import manifest as postgres_manifest
from infra.data.snapshot import manifest as snapshot_manifest
from infra.errors import PlatformError

ANY_TEXT = st.text(st.characters(codec="utf-8"), max_size=40)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.integers(10**300, 10**320) | st.floats() | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANY_TEXT, inner, max_size=3),
    max_leaves=10,
)
KINDS = st.sampled_from(["db", "objects", "snapshot"]) | VALUES
PATHS = st.sampled_from(["d/toc.dat", "../out", "/etc/passwd", "", ".", "a/../../b", "a\nb"]) | ANY_TEXT
FILES = st.lists(st.fixed_dictionaries({"path": PATHS, "size": VALUES, "sha256": VALUES}) | VALUES, max_size=3)
TABLES = st.dictionaries(ANY_TEXT, st.fixed_dictionaries({"rows": VALUES, "bytes": VALUES, "digest": VALUES}))
DATABASE = st.fixed_dictionaries(
    {"name": st.just("x"), "directory": PATHS, "tables": TABLES | VALUES, "owner": VALUES, "acl": VALUES}
)
PARTS = st.dictionaries(st.sampled_from(["databases", "objects", "redis", "temporal"]) | ANY_TEXT, VALUES, max_size=3)
FACTS = st.fixed_dictionaries(
    {},
    optional={
        **{part: st.fixed_dictionaries({"number": VALUES}) for part in ("server", "client")},
        "databases": st.dictionaries(st.just("x"), DATABASE | VALUES, max_size=1),
        "buckets": st.lists(st.fixed_dictionaries({"store": VALUES, "name": VALUES}), max_size=2) | VALUES,
        "parts": PARTS | VALUES,
        "recipients": st.lists(VALUES, max_size=2),
        **dict.fromkeys(("objects", "bytes", "label", "tier", "leftOut", "quiesce", "why"), VALUES),
    },
)
MANIFESTS = st.fixed_dictionaries(
    {
        "format": st.just(store.FORMAT) | VALUES,
        "kind": KINDS,
        "sequence": st.integers(0, 9) | VALUES,
        "created": st.just("2026-11-30T12:00:00Z") | VALUES,
        "facts": FACTS | VALUES,
        "files": FILES | VALUES,
    }
)


def _signed(body: dict[str, Any]) -> bytes:
    with contextlib.suppress(ValueError):
        body = {**body, "sha256": store.digest_of(body)}
    return json.dumps(body).encode()


def check(content: bytes) -> None:
    """Read it as every kind of backup."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "000001-20261130T120000Z"
        path.mkdir()
        (path / store.MANIFEST).write_bytes(content)
        found = store.load(path)
    for backup in (found, *(judge(found) for judge in JUDGES)):
        assert isinstance(backup.problem, str)
        if not backup.problem:
            assert all(not Path(file.path).is_absolute() for file in backup.files)
            assert all(".." not in Path(file.path).parts for file in backup.files)
            assert backup.size >= 0
    databases = postgres_manifest.judged(found)
    if not databases.problem:
        assert all("/" not in entry["directory"] for entry in databases.facts["databases"].values())


JUDGES = (postgres_manifest.judged, snapshot_manifest.judged, records.judged)


@given(st.binary(max_size=200) | VALUES.map(lambda value: json.dumps(value).encode()))
def test_anything_in_place_of_a_manifest(content: bytes) -> None:
    check(content)


@given(MANIFESTS)
def test_almost_a_manifest(body: dict[str, Any]) -> None:
    check(_signed(body))


@given(st.integers(1, 200_000), st.sampled_from(["[", '{"a":', '[{"a":[']))
def test_a_manifest_of_nested_beginnings(depth: int, beginning: str) -> None:
    check((beginning * depth).encode())


LINES = st.lists(st.binary(max_size=60) | VALUES.map(lambda value: json.dumps(value).encode()), max_size=5)


@given(LINES)
def test_anything_in_place_of_the_lines_about_objects(lines: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / records.MANIFEST).write_bytes(b"\n".join(lines))
        backup = store.Backup(Path(directory), "objects", 1, "", {}, (store.File(records.MANIFEST, 0, ""),))
        found = list[records.Record]()
        code = _code_of(lambda: found.extend(records.reading(backup)))
    assert code in ("", "BACKUP_DAMAGED")
    assert all(isinstance(record["key"], str) for record in found)


@given(LINES, st.booleans())
def test_anything_in_place_of_the_keys_of_redis(lines: list[bytes], begun: bool) -> None:
    first = [json.dumps({"format": redis_dump.FORMAT}).encode()] if begun else []
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / redis_dump.KEYS
        path.write_bytes(b"\n".join([*first, *lines]))
        found = list[redis_dump.Key]()
        code = _code_of(lambda: found.extend(redis_dump.read(path)[1]))
    assert code in ("", "BACKUP_DAMAGED")
    assert all(isinstance(key.dump, bytes) for key in found)


def _code_of(work: Callable[[], object]) -> str:
    try:
        work()
    except PlatformError as error:
        return error.code
    return ""
