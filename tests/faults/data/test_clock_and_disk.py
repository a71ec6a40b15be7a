"""A clock that is off, a disk that takes File for file, an object of more than 5 GiB in S3's terms."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.data import store
from infra.data.objects import fetch as objects_fetch
from infra.data.objects import keys as objects_keys
from infra.data.objects import records
from infra.data.objects import tree as objects_tree
from infra.data.objects import upload as objects_upload
from infra.data.objects import verify as objects_verify
from infra.data.objects.login import StoreLogin
from infra.errors import ExitCode, PlatformError
from tests.faults.conftest import Victim
from tests.faults.data import test_objects_engine as engine_tools
from tests.rig import engines
from tests.rig.proxy import Asked, Spoiled, proxy

BUCKET = engine_tools.BUCKET
HOUR = 3600.0
# Every clock of the child is off, as faketime would have it.
_SHIFTED = """
import sys, time
offset = float(sys.argv[1])
real, gmtime = time.time, time.gmtime
time.time = lambda: real() + offset
time.gmtime = lambda seconds=None: gmtime(time.time() if seconds is None else seconds)
sys.argv = ["invoke", *sys.argv[2:]]
from invoke.main import program
program.run()
"""


@pytest.fixture(scope="module")
def login(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreLogin]:
    """An object store with a bucket."""
    with engines.engine("rclone", tmp_path_factory.mktemp("engine")) as found:
        engines.boto(found).create_bucket(Bucket=BUCKET)
        yield found


def published(target: Path, verified: bool = True) -> store.Backup:
    """A backup without files."""
    with store.locked(target, "test"), store.publishing(target, "db") as (_, facts):
        pass
    if verified:
        store.write_private(Path(facts["path"]) / "verified.json", "{}")
    return store.load(Path(facts["path"]))


@pytest.mark.fault(14)
def test_two_backups_within_a_second_and_a_clock_that_jumps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = time.gmtime
    made = []
    for offset in (0.0, 0.0, -2 * HOUR, 2 * HOUR, -2 * HOUR):
        monkeypatch.setattr(time, "gmtime", lambda seconds=None, o=offset: real((seconds or time.time()) + o))
        made.append(published(tmp_path))
    monkeypatch.setattr(time, "gmtime", real)
    assert [b.sequence for b in store.catalogue(tmp_path, "db")] == [1, 2, 3, 4, 5]
    assert made[-1].path.name[7:] < made[0].path.name[7:], "its name says two hours earlier"
    removed, _ = store.prune(store.catalogue(tmp_path, "db"), 1)
    assert [b.sequence for b in removed] == [1, 2, 3, 4]
    assert [b.path for b in store.catalogue(tmp_path, "db")] == [made[-1].path]


@pytest.mark.fault(14)
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no tzset")
def test_names_are_utc_on_both_sides_of_a_change_to_summer_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = []
    for zone in ("CET-1CEST,M3.5.0,M10.5.0/3", "EST5EDT,M3.2.0,M11.1.0"):
        monkeypatch.setenv("TZ", zone)
        time.tzset()
        names.append(published(tmp_path).path.name)
    monkeypatch.undo()
    time.tzset()
    stamps = [time.mktime(time.strptime(n[7:], "%Y%m%dT%H%M%SZ")) for n in names]
    assert abs(stamps[1] - stamps[0]) < 60
    assert names == sorted(names)


@pytest.mark.fault(14)
@pytest.mark.parametrize("offset", [-2 * HOUR, 2 * HOUR])
def test_backups_of_a_machine_whose_clock_is_off(platform: Victim, tmp_path: Path, offset: float) -> None:
    argv = [sys.executable, "-c", _SHIFTED, str(offset), "db.backup", "--to", str(tmp_path), "--database", "users"]
    for words in (["--verify", "--keep", "1"], ["--verify", "--keep", "1"]):
        done = subprocess.run([*argv, *words], env=platform.env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    platform.invoke("db.backup", "--to", str(tmp_path), "--database", "users", "--verify", "--keep", "1", check=True)
    assert [b.sequence for b in store.catalogue(tmp_path, "db")] == [3]


@pytest.mark.fault(14)
def test_a_store_that_refuses_the_time_is_said_as_a_clock(login: StoreLogin, tmp_path: Path) -> None:
    with proxy(login) as between:
        between.spoil = lambda asked: Spoiled(403, code="RequestTimeTooSkewed")
        with pytest.raises(PlatformError) as caught:
            engine_tools.run_backup(between.login, tmp_path)
    assert caught.value.exit == ExitCode.DEPENDENCY
    assert "clock" in " ".join([caught.value.what, caught.value.why, *caught.value.steps])


@pytest.fixture
def folding(tmp_path: Path) -> Iterator[Path]:
    """A directory in which File and file are the same."""
    image, place = tmp_path / "image", tmp_path / "disk"
    tools = [shutil.which(name) for name in ("mke2fs", "mount", "chattr")]
    if sys.platform != "linux" or os.geteuid() != 0 or not all(tools):
        pytest.skip("needs root, mke2fs and chattr for a disk that takes File for file")
    image.write_bytes(b"")
    os.truncate(image, 32 << 20)
    place.mkdir()
    make = ["mke2fs", "-q", "-t", "ext4", "-O", "casefold", "-E", "encoding=utf8", str(image)]
    subprocess.run(make, check=True, capture_output=True)
    if subprocess.run(["mount", "-o", "loop", str(image), str(place)], check=False, capture_output=True).returncode:
        pytest.skip("this kernel mounts no ext4 that takes File for file; the simulated disk stands for it")
    try:
        (place / "tree").mkdir()
        subprocess.run(["chattr", "+F", str(place / "tree")], check=True, capture_output=True)
        yield place / "tree"
    finally:
        subprocess.run(["umount", str(place)], check=True)


@pytest.mark.fault(17)
def test_keys_that_differ_by_case_on_a_real_disk_that_does_not(
    login: StoreLogin, folding: Path, tmp_path: Path
) -> None:
    engine_tools.wipe(login)
    there = engine_tools.put_all(login, ["File", "file", "other"])
    assert objects_tree.fold_of(folding) is not objects_keys.exact
    assert sorted(engine_tools.export(login, folding).refused) == [f"{BUCKET}/File", f"{BUCKET}/file"]
    backup, _ = engine_tools.run_backup(login, folding / "backups")
    engine_tools.wipe(login)
    engine_tools.run_restore(login, backup)
    assert engine_tools.contents(login) == there


@pytest.mark.fault(19)
def test_an_object_beyond_the_limit_of_parts_goes_in_larger_parts(
    login: StoreLogin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """5 GiB is S3's limit for one request, 10,000 its number of parts: both are lowered here, with one byte more."""
    monkeypatch.setattr(objects_upload, "MOST_PARTS", 2)
    engine_tools.wipe(login)
    content = random.Random(19).randbytes(objects_fetch.PART * 2 + 1)
    engines.boto(login).put_object(Bucket=BUCKET, Key="large", Body=content)
    backup, _ = engine_tools.run_backup(login, tmp_path)
    objects_verify.check(backup)
    engine_tools.wipe(login)
    sent = list[str]()

    def note(asked: Asked) -> None:
        sent.extend(asked.query.get("partNumber", []))

    with proxy(login) as between:
        between.spoil = note
        done = engine_tools.run_restore(between.login, backup)
    assert done.refused == {}
    assert sorted(sent) == ["1", "2"]
    assert hashlib.sha256(engine_tools.contents(login)["large"]).digest() == hashlib.sha256(content).digest()
    assert engines.open_uploads(login, BUCKET) == []
    assert [r["size"] for r in records.reading(backup)] == [len(content)]


@pytest.mark.fault(19)
@pytest.mark.skipif(
    not os.environ.get("TEST_LARGE_OBJECT"), reason="takes minutes and 12 GB: TEST_LARGE_OBJECT=1 runs it"
)
def test_an_object_of_more_than_five_gib_comes_back(tmp_path: Path) -> None:
    """S3 takes at most 5 GiB in one request, so it goes in parts, and comes back in parts."""
    parts, size = 321, 16 << 20
    with contextlib.ExitStack() as stack:
        try:
            store_login = stack.enter_context(engines.engine("minio", tmp_path / "server"))
        except FileNotFoundError as error:
            pytest.skip(f"there is no {error} on this machine")
        client = engines.boto(store_login)
        client.create_bucket(Bucket=BUCKET)
        upload = client.create_multipart_upload(Bucket=BUCKET, Key="huge")["UploadId"]
        whole, done = hashlib.sha256(), []
        for number in range(1, parts + 1):
            body = number.to_bytes(8, "big") * (size // 8) if number < parts else b"!"
            whole.update(body)
            sent = client.upload_part(Bucket=BUCKET, Key="huge", UploadId=upload, PartNumber=number, Body=body)
            done.append({"PartNumber": number, "ETag": sent["ETag"]})
        named = {"Bucket": BUCKET, "Key": "huge", "UploadId": upload}
        client.complete_multipart_upload(**named, MultipartUpload={"Parts": done})
        backup, _ = engine_tools.run_backup(store_login, tmp_path / "backups")
        objects_verify.check(backup)
        client.delete_object(Bucket=BUCKET, Key="huge")
        assert engine_tools.run_restore(store_login, backup).refused == {}
        back = hashlib.sha256()
        for block in client.get_object(Bucket=BUCKET, Key="huge")["Body"].iter_chunks(1 << 20):
            back.update(block)
        assert client.head_object(Bucket=BUCKET, Key="huge")["ContentLength"] == (5 << 30) + 1
        assert back.hexdigest() == whole.hexdigest()
        assert engines.open_uploads(store_login, BUCKET) == []
