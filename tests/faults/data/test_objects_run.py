"""The `minio` tasks as users run them: ended at any time, twice at once, on full disks, with bad input."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from infra.data import store
from infra.data.objects import backup as objects_backup
from infra.data.objects import link as objects_link
from infra.data.objects import records
from infra.data.objects import verify as objects_verify
from infra.data.objects.client import Client
from infra.data.objects.login import StoreLogin
from infra.errors import ExitCode, PlatformError
from infra.locks import try_lock
from infra.settings import ROOT
from tests.faults.conftest import Victim
from tests.faults.data.db_tools import takes_signals, wait_for, within
from tests.rig.engines import boto, engine, open_uploads
from tests.smoke.stage import GONE, HANG, command_line
from tests.unit.helpers import free_port, serving

BUCKET = "training-datasets"
OBJECTS = 1500
ENDS_WITHIN = 2.0
RUNS = 30
posix = pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")


@pytest.fixture(scope="module")
def filled(platform: Victim) -> Victim:
    """A running platform with many small objects and a large one."""
    client = boto(login_of(platform))
    chance = random.Random(3)
    bodies = [chance.randbytes(2000) for _ in range(OBJECTS)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda n: client.put_object(Bucket=BUCKET, Key=f"{n:05}", Body=bodies[n]), range(OBJECTS)))
    client.put_object(Bucket=BUCKET, Key="large", Body=chance.randbytes(40_000_000))
    return platform


def login_of(victim: Victim) -> StoreLogin:
    """The store of a running platform."""
    found = victim.contract
    port = int(victim.env["MINIO_DATASETS_PORT"])
    keys = (victim.env.get("MINIO_ROOT_USER", "minioadmin"), victim.env.get("MINIO_ROOT_PASSWORD", "minioadmin"))
    assert found
    return StoreLogin("minio-datasets", "127.0.0.1", port, *keys)


def begin(victim: Victim, *words: str) -> subprocess.Popen[str]:
    """A task that runs beside the test."""
    argv = [sys.executable, "-m", "invoke", *words]
    return subprocess.Popen(
        argv, cwd=ROOT, env=victim.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8"
    )


def family(child: subprocess.Popen[str]) -> list[psutil.Process]:
    """The processes that a task has started."""
    try:
        return psutil.Process(child.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def assert_clean(target: Path, started: list[psutil.Process]) -> None:
    """Nothing half, no process, and the lock is free."""
    psutil.wait_procs(started, timeout=GONE)
    assert [p for p in started if p.is_running() and p.status() != psutil.STATUS_ZOMBIE] == []
    if not target.exists():
        return
    assert [p.name for p in target.iterdir() if p.name.startswith(store.PART)] == []
    if (target / store.LOCK).exists():
        with open(target / store.LOCK, "r+", encoding="utf-8") as file:
            assert try_lock(file)


def at_work(target: Path, child: subprocess.Popen[str]) -> None:
    """Wait until a backup has taken its lock and begun, or ended."""
    while child.poll() is None and not (target / objects_backup.JOURNAL).exists():
        time.sleep(0.01)


@posix
@pytest.mark.fault(23)
def test_23_ctrl_c_and_sigterm_at_any_time_leave_nothing_half(filled: Victim, tmp_path: Path) -> None:
    chance, wrong = random.Random(23), []
    for number in range(RUNS):
        target = tmp_path / str(number)
        child = begin(filled, "minio.backup", "--to", str(target), "--bucket", BUCKET)
        at_work(target, child)
        time.sleep(chance.uniform(0, 1.5))
        started, ended = family(child), time.monotonic()
        sent = signal.SIGINT if number % 2 else signal.SIGTERM
        child.send_signal(sent)
        if number % 3 == 0:
            child.send_signal(sent)  # again, at once
        child.communicate(timeout=HANG)
        took = time.monotonic() - ended
        done = len(store.catalogue(target, records.KIND))
        expected = 0 if done else 128 + sent
        if child.returncode != expected or took > within(ENDS_WITHIN):
            wrong.append((number, sent, child.returncode, expected, round(took, 2)))
        assert_clean(target, started)
        shutil.rmtree(target)
    assert wrong == []


def test_streams_are_of_one_shape_whatever_the_command(filled: Victim, tmp_path: Path) -> None:
    made = filled.invoke("minio.backup", "--to", str(tmp_path / "objects"), "--json-stream", check=True)
    path = json.loads(made.stdout.splitlines()[-1])["data"]["path"]
    commands = [
        ("minio.verify", "--from", path),
        ("minio.restore", "--from", path, "--dry-run"),
        ("minio.mirror", "--to", str(tmp_path / "tree"), "--bucket", BUCKET),
        ("db.backup", "--to", str(tmp_path / "db")),
    ]
    for done in [made, *(filled.invoke(*words, "--json-stream", check=True) for words in commands)]:
        events = [json.loads(line) for line in done.stdout.splitlines()]
        assert all({"ts", "type"} <= set(e) for e in events)
        assert [e["type"] for e in events].index("result") == len(events) - 1
        assert events[-1]["exit"] == 0
    failed = filled.invoke("minio.verify", "--from", str(tmp_path / "nowhere"), "--json-stream")
    last = json.loads(failed.stdout.splitlines()[-1])
    assert (last["type"], last["code"], last["exit"]) == ("error", "NOT_FOUND", failed.returncode)


@posix
@pytest.mark.fault(1)
def test_1_a_killed_backup_leaves_none_and_the_next_goes_on(filled: Victim, tmp_path: Path) -> None:
    chance = random.Random(1)
    good = json.loads(filled.invoke("minio.backup", "--to", str(tmp_path), "--json", check=True).stdout)["data"]["path"]
    shutil.rmtree(tmp_path / "objects")
    (tmp_path / "objects").mkdir(mode=0o700)
    for _ in range(3):
        child = begin(filled, "minio.backup", "--to", str(tmp_path))
        at_work(tmp_path, child)
        time.sleep(chance.uniform(0.1, 0.8))
        started = family(child)
        child.kill()
        child.communicate(timeout=HANG)
        psutil.wait_procs(started, timeout=GONE)
        assert [str(b.path) for b in store.catalogue(tmp_path, records.KIND)] == [good]
    last = json.loads(filled.invoke("minio.backup", "--to", str(tmp_path), "--json", check=True).stdout)["data"]
    assert last["objects"] == OBJECTS + 1
    assert_clean(tmp_path, [])
    assert filled.invoke("minio.verify", "--from", last["path"]).returncode == 0


@posix
@pytest.mark.fault(13)
def test_13_a_second_run_on_the_same_target_ends_at_once(filled: Victim, tmp_path: Path) -> None:
    child = begin(filled, "minio.backup", "--to", str(tmp_path))
    at_work(tmp_path, child)
    second = filled.invoke("minio.backup", "--to", str(tmp_path), "--json")
    said = json.loads(second.stdout)["error"]
    child.kill()
    child.communicate(timeout=HANG)
    assert second.returncode == ExitCode.LOCKED
    assert str(child.pid) in said["why"]
    assert filled.invoke("minio.backup", "--to", str(tmp_path)).returncode == 0


@posix
@pytest.mark.fault(23)
def test_23_a_restore_that_is_stopped_leaves_no_upload_and_can_be_run_again(filled: Victim, tmp_path: Path) -> None:
    made = json.loads(filled.invoke("minio.backup", "--to", str(tmp_path), "--json", check=True).stdout)["data"]
    client = boto(login_of(filled))
    for number in range(3):
        for key in ("large", *(f"{n:05}" for n in range(0, OBJECTS, 3))):
            client.delete_object(Bucket=BUCKET, Key=key)
        child = begin(filled, "minio.restore", "--from", made["path"], "--yes")
        wait_for("its start", lambda: takes_signals(child.pid))  # noqa: B023
        time.sleep(0.4 + number / 4)
        started, ended = family(child), time.monotonic()
        child.send_signal(signal.SIGINT)
        child.communicate(timeout=HANG)
        assert child.returncode in (0, ExitCode.INTERRUPTED)
        assert time.monotonic() - ended < within(ENDS_WITHIN)
        assert open_uploads(login_of(filled), BUCKET) == []
        assert_clean(tmp_path, started)
    done = filled.invoke("minio.restore", "--from", made["path"], "--yes", "--json", check=True)
    assert json.loads(done.stdout)["data"]["refused"] == {}
    again = json.loads(filled.invoke("minio.backup", "--to", str(tmp_path), "--json", check=True).stdout)["data"]
    assert again["objects"] == OBJECTS + 1


def test_restore_without_consent_touches_nothing(filled: Victim, tmp_path: Path) -> None:
    made = json.loads(filled.invoke("minio.backup", "--to", str(tmp_path), "--json", check=True).stdout)["data"]
    client = boto(login_of(filled))
    client.delete_object(Bucket=BUCKET, Key="00000")
    assert filled.invoke("minio.restore", "--from", made["path"]).returncode == ExitCode.CONFIRM
    assert filled.invoke("minio.restore", "--from", made["path"], "--dry-run").returncode == 0
    assert client.list_objects_v2(Bucket=BUCKET, Prefix="00000").get("Contents", []) == []
    assert filled.invoke("minio.restore", "--from", made["path"], "--yes").returncode == 0
    assert len(client.list_objects_v2(Bucket=BUCKET, Prefix="00000")["Contents"]) == 1


def test_prune_names_what_goes_and_asks_only_where_something_goes(filled: Victim, tmp_path: Path) -> None:
    target, client = ("--to", str(tmp_path / "t")), boto(login_of(filled))
    client.put_object(Bucket=BUCKET, Key="pruned", Body=b"old")
    filled.invoke("minio.backup", "--keep", "1", *target, check=True)
    client.put_object(Bucket=BUCKET, Key="pruned", Body=b"newer")
    filled.invoke("minio.backup", "--keep", "2", *target, check=True)
    first, second = store.catalogue(tmp_path / "t", records.KIND)
    done = filled.invoke("minio.prune", "--keep", "2", *target)
    assert (done.returncode, "nothing to remove" in done.stdout) == (0, True)
    asked = filled.invoke("minio.prune", "--keep", "1", *target)
    assert asked.returncode == ExitCode.CONFIRM
    assert first.path.name in asked.stderr
    assert "1 objects" in asked.stderr
    assert first.path.is_dir()
    done = filled.invoke("minio.prune", "--keep", "1", "--yes", *target)
    assert (done.returncode, first.path.exists()) == (0, False)
    filled.invoke("minio.verify", "--from", str(second.path), check=True)


@pytest.mark.fault(4)
def test_4_a_damaged_backup_is_refused_before_anything_is_touched(filled: Victim, tmp_path: Path) -> None:
    made = json.loads(filled.invoke("minio.backup", "--to", str(tmp_path), "--json", check=True).stdout)["data"]
    record = next(iter(records.reading(store.load(Path(made["path"])))))
    path = tmp_path / "objects" / record["sha256"][:2] / record["sha256"]
    path.write_bytes(b"X" + path.read_bytes()[1:])
    client = boto(login_of(filled))
    client.delete_object(Bucket=BUCKET, Key="00001")
    verified = filled.invoke("minio.verify", "--from", made["path"])
    restored = filled.invoke("minio.restore", "--from", made["path"], "--yes")
    assert (verified.returncode, restored.returncode) == (ExitCode.BACKUP, ExitCode.BACKUP)
    assert record["sha256"] in verified.stderr
    assert f"{BUCKET}/{record['key']}" in verified.stderr
    assert client.list_objects_v2(Bucket=BUCKET, Prefix="00001").get("Contents", []) == []
    client.put_object(Bucket=BUCKET, Key="00001", Body=b"back")


@posix
@pytest.mark.parametrize("umask", [0o000, 0o022])
@pytest.mark.fault(26)
def test_26_everything_is_private_and_no_secret_is_shown(filled: Victim, tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        child = begin(filled, "minio.backup", "--to", str(tmp_path / "t"), "--debug")
        lines = set()
        while child.poll() is None:
            lines |= {command_line(p) for p in family(child) if p.is_running()}
            time.sleep(0.05)
        out, err = child.communicate(timeout=HANG)
    except psutil.Error:
        out, err = child.communicate(timeout=HANG)
    finally:
        os.umask(before)
    assert child.returncode == 0, err
    loose = [p for p in (tmp_path / "t").rglob("*") if p.lstat().st_mode & 0o077]
    assert loose == []
    assert stat.S_IMODE((tmp_path / "t").stat().st_mode) == 0o700
    secret = login_of(filled).secret_key
    if secret != "minioadmin":
        assert all(secret not in text for text in (out, err, *lines))


@pytest.mark.fault(20)
def test_a_bucket_that_is_missing_ends_with_11_and_the_others_are_kept(filled: Victim, tmp_path: Path) -> None:
    done = filled.invoke("minio.backup", "--to", str(tmp_path), "--bucket", f"nowhere,{BUCKET}", "--json")
    data = json.loads(done.stdout)["data"]
    assert (done.returncode, data["missing"], data["objects"] > 0) == (ExitCode.PARTIAL, ["nowhere"], True)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[StoreLogin]:
    """A store alone, with a few objects."""
    with engine("rclone", tmp_path / "server") as login:
        client = boto(login)
        client.create_bucket(Bucket=BUCKET)
        for number in range(20):
            client.put_object(Bucket=BUCKET, Key=f"{number:02}", Body=random.Random(number).randbytes(100_000))
        yield login


def run_backup(login: StoreLogin, target: Path) -> store.Backup:
    """A backup of everything, as the task makes it."""
    with objects_backup.connected([login]) as clients, store.locked(target, "test"):
        found = objects_backup.sources(clients, (), [])
        return objects_backup.backup(clients, target, found, False, objects_backup.Tally())


def failure_of(login: StoreLogin, target: Path) -> PlatformError:
    with pytest.raises(PlatformError) as caught:
        run_backup(login, target)
    return caught.value


def mounted(directory: Path, options: str) -> bool:
    """Whether a file system in memory could be mounted there (Linux, root)."""
    directory.mkdir()
    argv = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(directory)]
    return (
        sys.platform == "linux"
        and shutil.which("mount") is not None
        and subprocess.run(argv, capture_output=True, check=False).returncode == 0
    )


@pytest.mark.fault(3)
def test_3_a_full_disk_is_said_and_leaves_nothing_half(small: StoreLogin, tmp_path: Path) -> None:
    target = tmp_path / "disk"
    if not mounted(target, "size=1m,mode=700"):
        pytest.skip("needs root on Linux to mount a small disk")
    try:
        error = failure_of(small, target)
        assert error.exit == ExitCode.BACKUP
        assert f"no space left in {target}" in error.what
        assert store.catalogue(target, records.KIND) == []
        assert_clean(target, [])
    finally:
        subprocess.run(["umount", "-l", str(target)], check=True)


@pytest.mark.fault(27)
def test_27_a_read_only_target_is_refused(small: StoreLogin, tmp_path: Path) -> None:
    target = tmp_path / "disk"
    if not mounted(target, "size=9m,mode=700,ro"):
        pytest.skip("needs root on Linux to mount a read-only disk")
    try:
        error = failure_of(small, target)
        assert (error.exit, str(target) in error.what) == (ExitCode.BACKUP, True)
    finally:
        subprocess.run(["umount", "-l", str(target)], check=True)


@pytest.mark.fault(27)
def test_27_a_disk_that_cannot_sync_is_a_failed_backup(
    small: StoreLogin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_backup(small, tmp_path / "t")
    boto(small).put_object(Bucket=BUCKET, Key="new", Body=b"new")

    def broken(descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", broken)
    error = failure_of(small, tmp_path / "t")
    monkeypatch.undo()
    assert error.exit == ExitCode.BACKUP
    (only,) = store.catalogue(tmp_path / "t", records.KIND)
    objects_verify.check(only)
    assert_clean(tmp_path / "t", [])


@pytest.mark.fault(7)
def test_7_a_server_that_is_gone_or_silent_is_said_soon(tmp_path: Path) -> None:
    began = time.monotonic()
    gone = StoreLogin("minio-datasets", "127.0.0.1", free_port(), "access", "secret-key")
    assert failure_of(gone, tmp_path).exit == ExitCode.DEPENDENCY
    taken = list[int]()

    def silent(link: object) -> None:
        taken.append(1)
        time.sleep(1.5)

    with serving(silent) as port:
        client = Client(StoreLogin("minio-datasets", "127.0.0.1", port, "access", "secret-key"), limit=0.5)
        with pytest.raises(PlatformError) as caught:
            client.buckets()
        client.close()
    assert (caught.value.code, len(taken)) == ("UNREACHABLE", 1)
    assert time.monotonic() - began < within(15)
    assert objects_link.CONNECT_LIMIT + objects_link.READ_LIMIT <= 15


@posix
@pytest.mark.fault(24)
def test_24_a_server_that_is_killed_during_the_run_is_no_success(tmp_path: Path) -> None:
    with engine("rclone", tmp_path / "server") as login:
        client = boto(login)
        client.create_bucket(Bucket=BUCKET)
        client.put_object(Bucket=BUCKET, Key="large", Body=bytes(60_000_000))
        listener = next(p for p in psutil.Process().children() if str(login.port) in command_line(p))
        with ThreadPoolExecutor(1) as pool:
            error = pool.submit(failure_of, login, tmp_path / "t")
            while not (tmp_path / "t" / objects_backup.JOURNAL).exists():
                time.sleep(0.001)
            listener.kill()
            assert error.result(30).exit == ExitCode.DEPENDENCY
    assert store.catalogue(tmp_path / "t", records.KIND) == []
    assert_clean(tmp_path / "t", [])


@posix
@pytest.mark.fault(24)
def test_24_a_helper_that_is_killed_is_no_success(
    small: StoreLogin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from infra.data.objects import crew as objects_crew

    monkeypatch.setattr(objects_crew, "MANY", 2)
    plain = objects_crew.Helper.read

    def kill(self: objects_crew.Helper, item: records.ObjectItem) -> object:
        self._process.kill()
        return plain(self, item)

    monkeypatch.setattr(objects_crew.Helper, "read", kill)
    error = failure_of(small, tmp_path / "t")
    assert error.exit == ExitCode.BACKUP
    assert store.catalogue(tmp_path / "t", records.KIND) == []
    assert_clean(tmp_path / "t", [])
