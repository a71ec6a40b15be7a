"""Objects of real S3 servers: every legal key back, changes during a run, listings that fail, retries."""

from __future__ import annotations

import contextlib
import hashlib
import random
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from infra import catalog
from infra.data import store
from infra.data.objects import backup as objects_backup
from infra.data.objects import client as objects_client
from infra.data.objects import fetch as objects_fetch
from infra.data.objects import mirror as objects_mirror
from infra.data.objects import records
from infra.data.objects import restore as objects_restore
from infra.data.objects import verify as objects_verify
from infra.data.objects.backup import Tally
from infra.data.objects.login import StoreLogin
from infra.data.objects.mirror import Mirrored
from infra.data.objects.restore import Restore, RestoredObjects
from infra.data.objects.upload import Uploads
from infra.errors import ExitCode, PlatformError
from tests.rig import ceph, engines
from tests.rig.engines import boto, open_uploads
from tests.rig.proxy import Asked, Spoiled, proxy
from tests.smoke import test_gaps as gaps

BUCKET = "bucket-one"
HOSTILE = [
    "../up", "/abs/f", "a/../b", "a/b", ".", "..", "a//b", "./x", "x", "//", "dir/", "dir", "dir/x",
    "two words", "it's", 'say "x"', "$(touch pwned)", "`id`", "new\nline", "bell\x07", "tab\t", "-lead", "+plus%2B",
    "back\\slash", "\U0001f600", "caf\u00e9", "cafe\u0301", "File", "file", "CON",
    "trail.", "&amp;<x>", "?query=1#f", "한글/키", "runs/2025-01-01T10:00:00/img.png",
]  # fmt: skip
"""Legal keys of S3 that programs stumble over."""


@pytest.fixture(scope="session")
def ceph_gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreLogin]:
    """One gateway for all tests: it takes long to start."""
    with ceph.gateway(tmp_path_factory.mktemp("ceph")) as login:
        yield login


@pytest.fixture(params=["rclone", "weed", "minio", "ceph"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreLogin]:
    """A running server of each kind that this machine has, with nothing in it."""
    with contextlib.ExitStack() as stack:
        try:
            if request.param == "ceph":
                login = request.getfixturevalue("ceph_gateway")
                stack.callback(clear, login)
            else:
                login = stack.enter_context(engines.engine(request.param, tmp_path_factory.mktemp(request.param)))
        except FileNotFoundError as error:
            pytest.skip(f"there is no {error} on this machine")
        yield login


@pytest.fixture
def bucket(server: StoreLogin) -> str:
    """An empty bucket."""
    boto(server).create_bucket(Bucket=BUCKET)
    return BUCKET


@pytest.mark.parametrize("name", ["rclone", "weed", "minio"])
def test_keys_that_an_engine_refuses_are_told(name: str, tmp_path: Path) -> None:
    try:
        with engines.engine(name, tmp_path) as login:
            refused = {feature for feature in gaps.KEYS if not gaps.KEYS[feature](boto(login), _fresh(login, feature))}
    except FileNotFoundError as error:
        pytest.skip(f"there is no {error} on this machine")
    assert refused == {gap.feature for gap in catalog.gaps(name)} & set(gaps.KEYS)


def _fresh(login: StoreLogin, name: str) -> str:
    boto(login).create_bucket(Bucket=name)
    return name


def clear(login: StoreLogin) -> None:
    """Remove everything of a server that other tests use, too."""
    ours = objects_client.Client(login)
    for name in ours.buckets():
        for entry in list(ours.listing(name, versions=True)):
            ours.request("DELETE", name, entry.key, {"versionId": entry.version})
        ours.request("DELETE", name)
    ours.close()


def run_backup(login: StoreLogin, target: Path, **options: Any) -> tuple[store.Backup, Tally]:
    """A backup of everything (or of `named` buckets), as the task makes it."""
    tally, missing = Tally(), list[str]()
    with objects_backup.connected([login]) as clients, store.locked(target, "test"):
        found = objects_backup.sources(clients, options.pop("named", ()), missing)
        return objects_backup.backup(clients, target, found, options.pop("versions", False), tally), tally


def run_restore(login: StoreLogin, backup: store.Backup, **options: Any) -> RestoredObjects:
    """A restore of everything, as the task makes it."""
    objects_verify.check(backup)
    done, uploads = RestoredObjects(), Uploads(backup.path.parent / "uploads")
    with objects_backup.connected([login]) as clients:
        plans = objects_restore.plan(clients, backup, ())
        objects_restore.restore(Restore(clients, backup, plans, uploads, **options), done)
    return done


def contents(login: StoreLogin) -> dict[str, bytes]:
    """What the reference client finds in the bucket."""
    client = boto(login)
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
    keys = [entry["Key"] for page in pages for entry in page.get("Contents", [])]
    return {key: client.get_object(Bucket=BUCKET, Key=key)["Body"].read() for key in keys}


def wipe(login: StoreLogin) -> None:
    """Delete everything in the bucket."""
    client = objects_client.Client(login)
    for entry in list(client.listing(BUCKET)):
        client.delete(BUCKET, entry.key)
    client.close()


def put_all(login: StoreLogin, keys: list[str]) -> dict[str, bytes]:
    """Write a different content under each key that the engine takes; returns what is there."""
    client = boto(login)
    for number, key in enumerate(keys):
        with contextlib.suppress(Exception):
            client.put_object(Bucket=BUCKET, Key=key, Body=f"content {number}".encode(), Metadata={"n": str(number)})
    return contents(login)


@pytest.mark.usefixtures("bucket")
@pytest.mark.fault(15, 16, 18)
def test_every_key_that_an_engine_takes_comes_back(server: StoreLogin, tmp_path: Path) -> None:
    before = put_all(server, HOSTILE)
    backup, tally = run_backup(server, tmp_path / "t")
    assert (tally.failed, tally.gone) == ([], 0)
    assert [r["key"] for r in records.reading(backup)] == sorted(before, key=lambda k: k.encode())
    wipe(server)
    done = run_restore(server, backup)
    assert done.refused == {}
    assert contents(server) == before


@pytest.mark.usefixtures("bucket")
@pytest.mark.parametrize("key", ["k" * 1024, "s/" + "t" * 300])
@pytest.mark.fault(16)
def test_long_keys_come_back(server: StoreLogin, tmp_path: Path, key: str) -> None:
    client = boto(server)
    try:
        client.put_object(Bucket=BUCKET, Key=key, Body=b"long")
    except client.exceptions.ClientError:
        pytest.skip("this engine refuses a name of that length")
    backup, _ = run_backup(server, tmp_path)
    wipe(server)
    assert run_restore(server, backup).refused == {}
    assert contents(server) == {key: b"long"}


@pytest.mark.usefixtures("bucket")
def test_headers_and_metadata_come_back(server: StoreLogin, tmp_path: Path) -> None:
    client = boto(server)
    headers = {"ContentType": "image/x-test", "CacheControl": "max-age=3", "ContentDisposition": 'attachment; x="a  b"'}
    client.put_object(Bucket=BUCKET, Key="k", Body=b"x", Metadata={"who": "me", "empty": ""}, **headers)
    client.put_object(Bucket=BUCKET, Key="gz", Body=b"\x1f\x8bnot really", ContentEncoding="gzip")

    def seen() -> list[Any]:
        found = [client.head_object(Bucket=BUCKET, Key=key) for key in ("k", "gz")]
        names = ("ContentType", "CacheControl", "ContentDisposition", "ContentEncoding", "ContentLength", "ETag")
        return [[f.get(n) for n in names] + [{k.lower(): v for k, v in f["Metadata"].items()}] for f in found]

    before = seen()
    backup, _ = run_backup(server, tmp_path / "t")
    wipe(server)
    assert run_restore(server, backup).refused == {}
    assert seen() == before


@pytest.mark.usefixtures("bucket")
@pytest.mark.fault(19)
def test_large_objects_go_in_parts_and_leave_no_upload(server: StoreLogin, tmp_path: Path) -> None:
    content = random.Random(1).randbytes(objects_fetch.PART * 2 + 1)
    client = boto(server)
    client.put_object(Bucket=BUCKET, Key="large", Body=content, ContentType="a/b", Metadata={"n": "1"})
    backup, _ = run_backup(server, tmp_path / "t")
    wipe(server)
    assert run_restore(server, backup).written == 1
    assert hashlib.sha256(contents(server)["large"]).digest() == hashlib.sha256(content).digest()
    assert client.head_object(Bucket=BUCKET, Key="large")["ContentType"] == "a/b"
    assert open_uploads(server, BUCKET) == []
    assert not (tmp_path / "t" / "uploads").exists()


@pytest.mark.usefixtures("bucket")
def test_nothing_is_read_twice(server: StoreLogin, tmp_path: Path) -> None:
    put_all(server, [f"k{n}" for n in range(30)])
    with proxy(server) as between:
        first, _ = run_backup(between.login, tmp_path)
        assert len(between.reads()) == 30
        second, tally = run_backup(between.login, tmp_path)
        assert (len(between.reads()), tally.new, tally.objects) == (30, 0, 30)
        boto(server).put_object(Bucket=BUCKET, Key="k7", Body=b"another content")
        run_backup(between.login, tmp_path)
        assert between.reads()[30:] == [f"/{BUCKET}/k7"]
    lines = [(b.path / records.MANIFEST).read_bytes() for b in (first, second)]
    assert lines[0] == lines[1]
    assert len(list((tmp_path / "objects").rglob("*"))) < 3 * 31


@pytest.mark.usefixtures("bucket")
def test_a_content_that_is_lost_from_the_pool_is_read_again(server: StoreLogin, tmp_path: Path) -> None:
    put_all(server, ["a", "b"])
    first, _ = run_backup(server, tmp_path)
    lost = next(iter(records.reading(first)))["sha256"]
    (tmp_path / "objects" / lost[:2] / lost).unlink()
    second, tally = run_backup(server, tmp_path)
    assert tally.new == 1
    objects_verify.check(second)


@pytest.mark.usefixtures("bucket")
@pytest.mark.fault(20)
def test_a_listing_that_fails_on_page_3_of_5_publishes_nothing(
    server: StoreLogin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_all(server, [f"k{n:02}" for n in range(25)])
    run_backup(server, tmp_path)
    _pages_of(monkeypatch, 5)
    pages = list[Asked]()

    def spoil(asked: Asked) -> Spoiled | None:
        pages.extend([asked] if asked.listing else [])
        return Spoiled(status=403 if len(pages) > 2 else 0) if asked.listing else None

    with proxy(server) as between:
        between.spoil = spoil
        with pytest.raises(PlatformError) as caught:
            run_backup(between.login, tmp_path)
    assert caught.value.exit == ExitCode.DEPENDENCY
    assert len(pages) == 3
    assert [b.sequence for b in store.catalogue(tmp_path, records.KIND)] == [1]
    assert not [p.name for p in tmp_path.iterdir() if p.name.startswith(store.PART)]


def _pages_of(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """Listings come in pages of so many keys."""
    plain = objects_client.Client._page

    def small(self: objects_client.Client, name: str, query: Mapping[str, str]) -> Any:
        return plain(self, name, {**query, "max-keys": str(size)})

    monkeypatch.setattr(objects_client.Client, "_page", small)


@pytest.mark.usefixtures("bucket")
def test_listings_of_many_pages_are_whole(server: StoreLogin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = put_all(server, [f"k {n:02}+é" for n in range(23)])
    _pages_of(monkeypatch, 5)
    backup, tally = run_backup(server, tmp_path)
    assert tally.objects == 23
    assert {r["key"] for r in records.reading(backup)} == set(there)


def after_listing(act: Callable[[], object]) -> Callable[[Asked], Spoiled | None]:
    """Something that happens once, between a listing and the first read."""
    acted = list[bool]()

    def spoil(asked: Asked) -> Spoiled | None:
        if asked.reads and not acted:
            acted.append(True)
            act()
        return None

    return spoil


@pytest.mark.usefixtures("bucket")
@pytest.mark.parametrize("content", [b"content 0", b"CONTENT 0", b"a longer content"])
@pytest.mark.fault(22)
def test_an_object_that_is_replaced_during_the_run_is_taken_as_it_is_now(
    server: StoreLogin, tmp_path: Path, content: bytes
) -> None:
    put_all(server, ["k"])
    with proxy(server) as between:
        between.spoil = after_listing(lambda: boto(server).put_object(Bucket=BUCKET, Key="k", Body=content))
        backup, tally = run_backup(between.login, tmp_path)
    record = next(iter(records.reading(backup)))
    assert (record["sha256"], record["size"]) == (hashlib.sha256(content).hexdigest(), len(content))
    assert (tally.failed, tally.gone) == ([], 0)
    objects_verify.check(backup)


@pytest.mark.usefixtures("bucket")
@pytest.mark.fault(22)
def test_an_object_that_is_deleted_during_the_run_is_noted(server: StoreLogin, tmp_path: Path) -> None:
    put_all(server, ["k"])
    with proxy(server) as between:
        between.spoil = after_listing(lambda: boto(server).delete_object(Bucket=BUCKET, Key="k"))
        backup, tally = run_backup(between.login, tmp_path)
    assert (tally.gone, tally.objects) == (1, 0)
    assert next(iter(records.reading(backup)))["gone"] is True
    assert run_restore(server, backup).refused == {}


@pytest.mark.usefixtures("bucket")
def test_a_read_that_breaks_off_is_resumed(server: StoreLogin, tmp_path: Path) -> None:
    content = random.Random(2).randbytes(objects_fetch.PART + 5_000_000)
    boto(server).put_object(Bucket=BUCKET, Key="large", Body=content)
    with proxy(server) as between:
        cuts = iter([3_000_000, 0, 9_000_001])
        between.spoil = lambda asked: Spoiled(cut=next(cuts, -1)) if asked.reads else None
        backup, tally = run_backup(between.login, tmp_path)
    assert next(iter(records.reading(backup)))["sha256"] == hashlib.sha256(content).hexdigest()
    assert tally.read == len(content)


@pytest.mark.usefixtures("bucket")
def test_temporary_answers_are_tried_again(server: StoreLogin, tmp_path: Path) -> None:
    put_all(server, ["a", "b"])
    with proxy(server) as between:
        seen = dict[str, int]()

        def spoil(asked: Asked) -> Spoiled | None:
            seen[asked.path] = seen.get(asked.path, 0) + 1
            return Spoiled(status=503) if seen[asked.path] == 1 else None

        between.spoil = spoil
        _, tally = run_backup(between.login, tmp_path)
    assert (tally.objects, tally.failed) == (2, [])


@pytest.mark.usefixtures("bucket")
def test_an_object_that_cannot_be_read_is_named_and_the_others_are_kept(server: StoreLogin, tmp_path: Path) -> None:
    put_all(server, ["a", "b", "c"])
    with proxy(server) as between:
        between.spoil = lambda asked: Spoiled(status=400) if asked.reads and asked.path.endswith("/b") else None
        backup, tally = run_backup(between.login, tmp_path)
    assert tally.objects == 2
    assert [line.startswith(f"{BUCKET}/b: ") for line in tally.failed] == [True]
    assert backup.facts["failed"] == tally.failed


@pytest.mark.usefixtures("bucket")
def test_many_small_objects_are_read_by_processes_too(
    server: StoreLogin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from infra.data.objects import crew as objects_crew

    monkeypatch.setattr(objects_crew, "MANY", 10)
    there = put_all(server, [f"k{n}" for n in range(60)])
    backup, tally = run_backup(server, tmp_path)
    assert tally.new == 60
    hashes = {r["key"]: r["sha256"] for r in records.reading(backup)}
    assert hashes == {key: hashlib.sha256(content).hexdigest() for key, content in there.items()}
    objects_verify.check(backup)


@pytest.mark.usefixtures("bucket")
@pytest.mark.fault(21)
def test_versions_and_delete_markers(server: StoreLogin, tmp_path: Path) -> None:
    client = boto(server)
    try:
        client.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    except client.exceptions.ClientError:
        pytest.skip("this engine keeps no versions")
    for body in (b"one", b"two", b"three"):
        client.put_object(Bucket=BUCKET, Key="kept", Body=body)
        client.put_object(Bucket=BUCKET, Key="deleted", Body=body)
    client.delete_object(Bucket=BUCKET, Key="deleted")
    backup, tally = run_backup(server, tmp_path / "t", versions=True)
    assert tally.objects == 6
    lines = list(records.reading(backup))
    assert [r["key"] for r in lines if r.get("deleted")] == ["deleted"]
    client.delete_object(Bucket=BUCKET, Key="kept")
    assert run_restore(server, backup).refused == {}
    assert contents(server) == {"kept": b"three"}
    for version in _versions(client):
        client.delete_object(Bucket=BUCKET, Key=version["Key"], VersionId=version["VersionId"])
    assert run_restore(server, backup, versions=True).refused == {}
    bodies = [client.get_object(Bucket=BUCKET, Key=v["Key"], VersionId=v["VersionId"])["Body"].read() for v in
              sorted(client.list_object_versions(Bucket=BUCKET)["Versions"], key=lambda v: v["Key"])]  # fmt: skip
    assert bodies == [b"three", b"two", b"one"] * 2
    assert contents(server) == {"kept": b"three"}


def _versions(client: Any) -> list[Any]:
    found = client.list_object_versions(Bucket=BUCKET)
    return [*found.get("Versions", []), *found.get("DeleteMarkers", [])]


@pytest.mark.usefixtures("bucket")
@pytest.mark.fault(20)
def test_empty_buckets_come_back_and_missing_ones_are_named(server: StoreLogin, tmp_path: Path) -> None:
    backup, _ = run_backup(server, tmp_path)
    boto(server).delete_bucket(Bucket=BUCKET)
    run_restore(server, backup)
    assert contents(server) == {}
    with pytest.raises(PlatformError) as caught:
        run_backup(server, tmp_path, named=("no-such-bucket",))
    assert caught.value.exit == ExitCode.PARTIAL


@pytest.mark.usefixtures("bucket")
def test_restore_takes_nothing_away_unless_asked_and_keeps_a_way_back(server: StoreLogin, tmp_path: Path) -> None:
    before = put_all(server, ["a", "b", "c"])
    backup, _ = run_backup(server, tmp_path)
    client = boto(server)
    client.put_object(Bucket=BUCKET, Key="a", Body=b"newer")
    client.put_object(Bucket=BUCKET, Key="extra", Body=b"extra")
    client.delete_object(Bucket=BUCKET, Key="b")
    changed = contents(server)
    with objects_backup.connected([server]) as clients:
        plans = objects_restore.plan(clients, backup, ())
        plan = next(p for p in plans if p.source.name == BUCKET)
        assert (plan.missing, plan.different, plan.extra, plan.same) == (1, 1, 1, 1)
        back = objects_restore.way_back(clients, tmp_path, plans, True, Tally(), "test")
    assert back is not None
    run_restore(server, backup)
    assert contents(server) == {**before, "extra": b"extra"}
    assert run_restore(server, backup, exact=True).removed == 1
    assert contents(server) == before
    run_restore(server, back, exact=True)
    assert contents(server) == changed


@pytest.mark.usefixtures("bucket")
def test_a_write_that_was_refused_is_in_nobodys_way(server: StoreLogin, tmp_path: Path) -> None:
    client, tried = boto(server), {"x" * 256, f"long/{'s' * 300}", "good"}
    taken = set(tried)
    for key in tried:
        try:
            client.put_object(Bucket=BUCKET, Key=key, Body=b"content")
        except ClientError:
            taken.remove(key)
    made, tally = run_backup(server, tmp_path)
    assert tally.failed == []
    assert {record["key"] for record in records.reading(made) if records.has_content(record)} == taken


@pytest.mark.usefixtures("bucket")
@pytest.mark.fault(15, 18)
def test_a_tree_takes_the_safe_keys_and_names_the_others(server: StoreLogin, tmp_path: Path) -> None:
    there = put_all(server, HOSTILE)
    root = tmp_path / "tree"
    for directory in (root, tmp_path / "up"):
        directory.mkdir()
    done = export(server, root)
    files = {str(p.relative_to(root / BUCKET)): p.read_bytes() for p in (root / BUCKET).rglob("*") if p.is_file()}
    refused = {name.removeprefix(f"{BUCKET}/") for name in done.refused}
    assert files == {key: content for key, content in there.items() if key not in refused}
    assert refused == set(there) - set(files)
    assert refused >= {"../up", "/abs/f", "a/../b", ".", "..", "a//b", "./x", "//", "dir/"} & set(there)
    if not objects_mirror.WINDOWS:
        assert not refused & {"back\\slash", "CON", "trail.", "?query=1#f", "runs/2025-01-01T10:00:00/img.png"}
    assert export(server, root, portable=True).refused.keys() >= {
        f"{BUCKET}/{key}"
        for key in {"back\\slash", "CON", "trail.", "File", "runs/2025-01-01T10:00:00/img.png"} & set(there)
    }
    assert sorted(p.name for p in tmp_path.iterdir()) == ["tree", "up"]
    assert list((tmp_path / "up").iterdir()) == []
    assert export(server, root).copied == 0


def export(login: StoreLogin, root: Path, portable: bool = objects_mirror.WINDOWS) -> Mirrored:
    """An export of the bucket, as the task makes it."""
    done = Mirrored()
    with objects_backup.connected([login]) as clients:
        sources = objects_backup.sources(clients, (BUCKET,), [])
        objects_mirror.export(clients, root, sources, done, portable)
    return done


@pytest.mark.usefixtures("bucket")
@pytest.mark.fault(25)
def test_a_tree_is_read_in_and_links_are_not_followed(server: StoreLogin, tmp_path: Path) -> None:
    directory = tmp_path / "tree" / BUCKET / "sub"
    directory.mkdir(parents=True)
    (directory / "file.json").write_text("{}")
    (directory / "link").symlink_to("/etc/passwd")
    (tmp_path / "tree" / "linked-bucket").symlink_to("/etc")

    def read_in() -> Mirrored:
        done, uploads = Mirrored(), Uploads(tmp_path / "uploads")
        with objects_backup.connected([server]) as clients:
            objects_mirror.read_in(clients, tmp_path / "tree", (), {BUCKET: server.name}, uploads, done)
        return done

    first = read_in()
    assert (first.copied, sorted(first.refused)) == (1, [f"{BUCKET}/sub/link", "linked-bucket"])
    assert contents(server) == {"sub/file.json": b"{}"}
    assert read_in().same == 1


@pytest.mark.usefixtures("bucket")
@pytest.mark.fault(17)
def test_keys_that_meet_on_a_case_insensitive_disk_are_kept_in_backups(
    server: StoreLogin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from infra.data.objects import keys as objects_keys
    from infra.data.objects import tree as objects_tree

    there = put_all(server, ["File", "file", "other"])
    monkeypatch.setattr(objects_tree, "fold_of", lambda directory: objects_keys.case_folded)
    (tmp_path / "tree").mkdir()
    assert sorted(export(server, tmp_path / "tree").refused) == [f"{BUCKET}/File", f"{BUCKET}/file"]
    backup, _ = run_backup(server, tmp_path / "t")
    wipe(server)
    run_restore(server, backup)
    assert contents(server) == there


@pytest.mark.usefixtures("bucket")
@pytest.mark.fault(19)
def test_an_upload_that_a_killed_run_left_is_given_up(server: StoreLogin, tmp_path: Path) -> None:
    put_all(server, ["a"])
    backup, _ = run_backup(server, tmp_path)
    client = objects_client.Client(server)
    upload = client.begin(BUCKET, "large", {})
    uploads = Uploads(tmp_path / "uploads")
    uploads.begun(server.name, BUCKET, "large", upload)
    client.close()
    run_restore(server, backup)
    assert open_uploads(server, BUCKET) == []
    assert not uploads.path.exists()


@pytest.mark.parametrize(("access", "secret"), [("", "wrong-secret-1234"), ("unknown-access-key", "")])
@pytest.mark.fault(6)
def test_a_wrong_login_is_refused_and_not_shown(server: StoreLogin, tmp_path: Path, access: str, secret: str) -> None:
    wrong = StoreLogin(server.name, server.host, server.port, access or server.access_key, secret or server.secret_key)
    with pytest.raises(PlatformError) as caught:
        run_backup(wrong, tmp_path)
    error = caught.value
    assert (error.code, error.exit) == ("LOGIN_REFUSED", ExitCode.DEPENDENCY)
    assert wrong.secret_key not in " ".join([error.what, error.why, repr(wrong), *error.steps])
    assert wrong.shown in error.what
    assert store.catalogue(tmp_path, records.KIND) == []


@pytest.mark.usefixtures("bucket")
def test_the_reference_client_sees_the_same(server: StoreLogin) -> None:
    put_all(server, HOSTILE)
    ours = objects_client.Client(server)
    found = {e.key: (e.size, e.etag) for e in ours.listing(BUCKET)}
    pages = boto(server).get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
    theirs = {c["Key"]: (c["Size"], c["ETag"].strip('"')) for page in pages for c in page.get("Contents", [])}
    assert found == theirs
    ours.close()
