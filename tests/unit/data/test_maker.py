from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from infra.data import maker, store
from infra.errors import PlatformError


def made(target: Path, home: Path | None, kind: str = "db") -> Path:
    """A backup of a file, published by the stack with that state directory; None: by nobody's."""
    target.mkdir(exist_ok=True)

    def publish() -> Path:
        with store.publishing(target, kind) as (draft, facts):
            draft.path("file").write_text("content")
            draft.add("file")
        return Path(facts["path"])

    if home is None:
        return publish()
    with maker.signing(home):
        return publish()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    place = tmp_path / "home"
    place.mkdir(mode=0o700)
    return place


def test_a_backup_is_known_by_the_stack_that_made_it_and_by_no_other(tmp_path: Path, home: Path) -> None:
    found = store.load(made(tmp_path / "backups", home))
    other = tmp_path / "other"
    other.mkdir(mode=0o700)
    made(tmp_path / "more", other)
    assert maker.of(home, found) == maker.HERE
    assert maker.of(other, found) == maker.of(tmp_path / "not there", found) == maker.ELSEWHERE
    assert stat.S_IMODE((home / maker.KEY).stat().st_mode) == 0o600


def test_one_key_signs_all_of_a_stack(tmp_path: Path, home: Path) -> None:
    first, second = (store.load(made(tmp_path / "backups", home)) for _ in range(2))
    assert maker.of(home, first) == maker.of(home, second) == maker.HERE


def changed(path: Path, **more: Any) -> None:
    body = {**json.loads((path / store.MANIFEST).read_text()), **more}
    (path / store.MANIFEST).write_text(json.dumps({**body, "sha256": store.digest_of(body)}))


@pytest.mark.parametrize("field", ["facts", "created", "kind", "files"])
def test_whatever_is_changed_in_a_manifest_makes_it_one_from_elsewhere(tmp_path: Path, home: Path, field: str) -> None:
    path = made(tmp_path / "backups", home)
    new = {"facts": {"databases": {"evil": 1}}, "created": "2020-01-01T00:00:00Z", "kind": "snapshot", "files": []}
    changed(path, **{field: new[field]})
    found = store.load(path)
    assert not found.problem
    assert maker.of(home, found) == maker.ELSEWHERE


def test_a_signature_of_another_backup_does_not_fit(tmp_path: Path, home: Path) -> None:
    ours, theirs = made(tmp_path / "backups", home), made(tmp_path / "foreign", None)
    assert maker.of(home, store.load(theirs)) == maker.ELSEWHERE
    changed(theirs, facts={"databases": {"evil": 1}})
    (theirs / store.SIGNATURE).write_text((ours / store.SIGNATURE).read_text())
    assert maker.of(home, store.load(theirs)) == maker.ELSEWHERE
    (theirs / store.SIGNATURE).write_bytes(b"\xff\xfe no signature")
    assert maker.of(home, store.load(theirs)) == maker.ELSEWHERE


def test_what_was_made_elsewhere_is_restored_only_where_it_is_trusted(tmp_path: Path, home: Path) -> None:
    ours, theirs = (store.load(made(tmp_path / name, h)) for name, h in (("ours", home), ("theirs", None)))
    maker.require_trust(home, ours, False)
    maker.require_trust(home, theirs, True)
    with pytest.raises(PlatformError) as caught:
        maker.require_trust(home, theirs, False)
    assert (caught.value.code, int(caught.value.exit)) == ("TRUST_NEEDED", 3)
    assert any("--trust" in step for step in caught.value.steps)
    assert not maker.lines(home, ours)
    assert "SQL" in maker.lines(home, theirs)[0]


def test_a_damaged_key_is_said(tmp_path: Path, home: Path) -> None:
    (home / maker.KEY).write_text("short")
    with pytest.raises(PlatformError, match="damaged"):
        made(tmp_path / "backups", home)
    assert list((tmp_path / "backups").iterdir()) == []


# --- a manifest that is not one


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000], ids=["lists", "objects"])
def test_a_manifest_nested_without_end_is_a_broken_backup_and_the_others_are_listed(
    tmp_path: Path, home: Path, text: str
) -> None:
    whole, odd = (made(tmp_path / "backups", home) for _ in range(2))
    (odd / store.MANIFEST).write_text(text)
    found = {b.path: b.problem for b in store.catalogue(tmp_path / "backups", "db")}
    assert found[whole] == ""
    assert "cannot be read" in found[odd]
    assert store.next_sequence(tmp_path / "backups") == 3


def test_a_manifest_of_no_size_that_one_has_is_not_read(tmp_path: Path, home: Path) -> None:
    path = made(tmp_path / "backups", home)
    with (path / store.MANIFEST).open("r+b") as file:
        file.truncate(store.LARGEST_MANIFEST + 1)
    assert "cannot be read" in store.load(path).problem
