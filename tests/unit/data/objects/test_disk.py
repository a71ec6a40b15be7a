"""The pool, the tree, and what is verified and pruned: on real directories, without a server."""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.data import store
from infra.data.objects import keys, prune, records, verify
from infra.data.objects import tree as objects_tree
from infra.data.objects.pool import Pool
from infra.data.objects.tree import Tree, Way
from infra.errors import ExitCode, PlatformError

posix = pytest.mark.skipif(os.name == "nt", reason="links need a right on Windows")


def put(target: Path, content: bytes) -> str:
    """A content in the pool of a target; returns its SHA-256."""
    target.mkdir(exist_ok=True)
    part, sha256 = target / "part", hashlib.sha256(content).hexdigest()
    part.write_bytes(content)
    Pool(target).adopt(part, sha256)
    return sha256


def made(target: Path, contents: dict[str, bytes], verified: bool = True, bucket: str = "b") -> store.Backup:
    """A backup with these keys, as if a run had made it."""
    target.mkdir(exist_ok=True)
    with store.publishing(target, records.KIND) as (draft, facts):
        lines = [
            {"store": "s", "bucket": bucket, "key": key, "size": len(c), "etag": "", "sha256": put(target, c)}
            for key, c in contents.items()
        ]
        store.write_private(draft.path(records.MANIFEST), "".join(map(records.line_of, lines)))
        draft.add(records.MANIFEST)
        amount = {"objects": len(contents), "bytes": sum(map(len, contents.values()))}
        facts["buckets"] = [{"store": "s", "name": bucket, "versioning": "", "all_versions": False, **amount}]
        facts |= amount
    found = records.listing(target)[-1]
    assert not found.problem
    if verified:
        verify.mark_verified(found)
    return found


def pruned_to_one(target: Path) -> prune.PrunePlan:
    """Prune; returns what went."""
    plan = prune.plan(target, 1)
    prune.prune(plan)
    return plan


def code_of(call: object, *arguments: object) -> PlatformError:
    with pytest.raises(PlatformError) as caught:
        call(*arguments)  # type: ignore[operator]
    return caught.value


def test_a_content_is_where_its_hash_says_and_private(tmp_path: Path) -> None:
    sha256 = put(tmp_path, b"hello")
    path = tmp_path / "objects" / sha256[:2] / sha256
    assert path.read_bytes() == b"hello"
    if os.name == "posix":
        assert (path.parent.stat().st_mode & 0o777, path.parents[1].stat().st_mode & 0o777) == (0o700, 0o700)


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "g" * 64, "A" * 64, "0" * 63])
def test_what_is_no_hash_is_no_path(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="SHA-256"):
        Pool(tmp_path).path(name)
    assert not Pool(tmp_path).has(name, 0)
    assert Pool(tmp_path).problem(name, 0)


@posix
@pytest.mark.parametrize("what", ["file", "directory", "root"])
def test_links_in_the_pool_are_not_followed(tmp_path: Path, what: str) -> None:
    target = tmp_path / "t"
    backup = made(target, {"k": b"content"})
    sha256 = next(iter(records.reading(backup)))["sha256"]
    pool = target / "objects"
    victim = {"file": pool / sha256[:2] / sha256, "directory": pool / sha256[:2], "root": pool}[what]
    aside = tmp_path / "elsewhere"
    victim.rename(aside)
    victim.symlink_to(aside)
    assert not Pool(target).has(sha256, 7)
    error = code_of(verify.check, backup)
    assert error.exit == ExitCode.BACKUP
    assert sha256 in error.what
    with pytest.raises(OSError, match="link"):
        Pool(target).adopt(put_aside(tmp_path), sha256) if what != "file" else Pool(target).open(sha256)


def put_aside(directory: Path) -> Path:
    part = directory / "new"
    part.write_bytes(b"content")
    return part


@posix
def test_a_link_to_a_backup_is_not_followed(tmp_path: Path) -> None:
    backup = made(tmp_path / "t", {"k": b"x"})
    link = tmp_path / "t" / "chosen"
    link.symlink_to(backup.path)
    assert code_of(verify.located, tmp_path / "t", str(link)).exit == ExitCode.BACKUP


def problem_of(path: Path) -> str:
    """What a check says of a backup, with its exit code; '' when nothing."""
    try:
        verify.check(store.load(path))
    except PlatformError as error:
        return error.what if error.exit == ExitCode.BACKUP else ""
    return ""


def test_one_flipped_bit_is_found_wherever_it_is(tmp_path: Path) -> None:
    chance = random.Random(6)
    backup = made(tmp_path, {f"key {n}": chance.randbytes(3000) for n in range(3)})
    verify.check(backup)
    files = [backup.path / "manifest.json", backup.path / "manifest.jsonl", *Pool(tmp_path).contents()]
    missed = []
    for path in files:
        whole = path.read_bytes()
        for _ in range(200):
            place, bit = chance.randrange(len(whole)), 1 << chance.randrange(8)
            path.write_bytes(whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :])
            if path.name not in problem_of(backup.path):
                missed.append((path.name, place, bit))
        path.write_bytes(whole)
    assert missed == []


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"format": 99, "kind": "objects"}', '{"format": 1'])
def test_a_broken_manifest_is_never_the_latest(tmp_path: Path, text: str) -> None:
    first, second = made(tmp_path, {"k": b"1"}), made(tmp_path, {"k": b"2"})
    (second.path / "manifest.json").write_text(text)
    assert verify.located(tmp_path, "latest").path == first.path
    assert [bool(b.problem) for b in store.catalogue(tmp_path, records.KIND)] == [False, True]
    assert code_of(verify.located, tmp_path, str(second.path)).exit == ExitCode.BACKUP


def foreign(backup: store.Backup, **facts: object) -> None:
    """Facts that none of our runs has written, below a checksum that fits."""
    path = backup.path / store.MANIFEST
    body = json.loads(path.read_text())
    body["facts"] |= facts
    path.write_text(json.dumps({**body, "sha256": store.digest_of(body)}))


@pytest.mark.parametrize("facts", [{"buckets": "x"}, {"buckets": [{"name": "b"}]}, {"objects": -1}])
def test_a_foreign_manifest_is_never_the_latest_and_keeps_none_from_being_kept(
    tmp_path: Path, facts: dict[str, object]
) -> None:
    first, second = made(tmp_path, {"k": b"1"}), made(tmp_path, {"k": b"2"})
    foreign(second, **facts)
    assert verify.located(tmp_path, "latest").path == first.path
    assert pruned_to_one(tmp_path).backups == ()
    assert Pool(tmp_path).has(hashlib.sha256(b"1").hexdigest(), 1)


def test_an_object_of_a_bucket_that_the_manifest_does_not_name_is_damage(tmp_path: Path) -> None:
    backup = made(tmp_path, {"k": b"1"})
    verify.check(backup)
    foreign(backup, buckets=[{"store": "s", "name": "other", "objects": 1, "bytes": 1}])
    error = code_of(verify.check, verify.located(tmp_path, "latest"))
    assert error.exit == ExitCode.BACKUP
    assert (
        "has an object of 'b', which is not one of its buckets" in error.what
    )  # a restore would pass it over, and end with 0


def test_damage_names_the_file_and_its_keys(tmp_path: Path) -> None:
    backup = made(tmp_path, {"one": b"same", "two\x07": b"same", "three": b"other"})
    sha256 = hashlib.sha256(b"same").hexdigest()
    Pool(tmp_path).path(sha256).unlink()
    error = code_of(verify.check, backup)
    assert f"{sha256} is missing; it contains b/one, b/two\\x07" in error.what


def test_a_kept_backup_keeps_its_contents(tmp_path: Path) -> None:
    made(tmp_path, {"k": b"old", "both": b"both"})
    last = made(tmp_path, {"k": b"new", "both": b"both"})
    pruned = pruned_to_one(tmp_path)
    assert (len(pruned.backups), len(pruned.contents), pruned.size) == (1, 1, 3)
    verify.check(last)


def test_a_backup_of_some_buckets_lets_none_of_others_go(tmp_path: Path) -> None:
    first = made(tmp_path, {"k": b"1"}, bucket="precious")
    for number in range(3):
        made(tmp_path, {"k": b"%d" % number}, bucket="other")
    pruned = pruned_to_one(tmp_path)
    assert first.path.exists()
    assert len(pruned.backups) == 2
    assert "precious" in pruned.why


def test_retention_counts_only_whole_and_verified_backups(tmp_path: Path) -> None:
    good = made(tmp_path, {"k": b"1"})
    for number in range(2, 5):
        broken = made(tmp_path, {"k": b"%d" % number})
        Pool(tmp_path).path(hashlib.sha256(b"%d" % number).hexdigest()).unlink()
    made(tmp_path, {"k": b"1"}, verified=False)
    pruned = pruned_to_one(tmp_path)
    assert pruned.backups == ()
    assert good.path.name in pruned.why
    verify.check(good)
    assert not store.load(broken.path).verified


def test_nothing_is_removed_while_a_manifest_cannot_be_read(tmp_path: Path) -> None:
    made(tmp_path, {"k": b"1"})
    broken = made(tmp_path, {"k": b"2"})
    made(tmp_path, {"k": b"3"})
    (broken.path / "manifest.json").write_text("{}")
    before = sorted(str(p) for p in tmp_path.rglob("*") if p.name != "verified.json")
    assert code_of(pruned_to_one, tmp_path).exit == ExitCode.BACKUP
    assert sorted(str(p) for p in tmp_path.rglob("*") if p.name != "verified.json") == before


@pytest.fixture
def sentinel(tmp_path: Path) -> Iterator[Path]:
    """A directory beside the tree that nothing may touch."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("kept")
    yield outside
    assert sorted(p.name for p in outside.iterdir()) == ["kept"]
    assert (outside / "kept").read_text() == "kept"


def write(tree: Tree, path: str) -> None:
    with tree.writing(path) as descriptor:
        os.write(descriptor, b"new")


def write_half(tree: Tree, path: str) -> None:
    with tree.writing(path) as descriptor:
        os.write(descriptor, b"half")
        raise RuntimeError


@posix
@pytest.mark.usefixtures("sentinel")
@pytest.mark.parametrize("below", [True, False])
def test_no_link_leads_out_of_the_tree(tmp_path: Path, below: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects_tree, "BELOW", below and objects_tree.BELOW)
    root = tmp_path / "root"
    root.mkdir()
    (root / "dir").symlink_to(tmp_path / "outside")
    (root / "file").symlink_to(tmp_path / "outside" / "kept")
    tree = Tree(root)
    with pytest.raises(Way):
        write(tree, "dir/kept")
    with pytest.raises(Way):
        tree.reading("file")
    with pytest.raises(Way):
        tree.reading("dir/kept")
    write(tree, "file")  # the link itself is replaced
    assert (root / "file").read_bytes() == b"new"
    assert [p for p, problem in tree.files() if problem] == ["dir"]


@pytest.mark.parametrize("below", [True, False])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, below: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects_tree, "BELOW", below and objects_tree.BELOW)
    tree = Tree(tmp_path)
    write(tree, "a/b")
    with pytest.raises(RuntimeError):
        write_half(tree, "a/b")
    assert (tmp_path / "a" / "b").read_bytes() == b"new"
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["b"]


def test_only_unfinished_files_of_ours_are_swept(tmp_path: Path) -> None:
    for name in (".part-1-2-3", ".part-mine", "other"):
        (tmp_path / name).write_text("x")
    Tree(tmp_path).sweep()
    assert sorted(p.name for p in tmp_path.iterdir()) == [".part-mine", "other"]


def test_how_the_file_system_takes_names_is_found_out(tmp_path: Path) -> None:
    fold = objects_tree.fold_of(tmp_path)
    (tmp_path / "Aa").write_text("x")
    assert (tmp_path / "aA").exists() == (fold is keys.case_folded)
    assert [p.name for p in tmp_path.iterdir()] == ["Aa"]
