"""Faults while databases are backed up: nothing is published by halves, nothing earlier is lost."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shlex
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from infra.data import store
from infra.locks import try_lock
from tests.faults.conftest import Victim
from tests.faults.data.db_tools import NAMES, Site, refused, wait_for, within
from tests.smoke.stage import GONE, HANG, command_line

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals and modes")


@pytest.fixture
def site(platform: Victim, tmp_path: Path) -> Site:
    made = Site(platform, tmp_path / "backups")
    made.fill()
    return made


def _hashes(site: Site) -> dict[str, str]:
    import hashlib

    files = [p for p in sorted(site.target.rglob("*")) if p.is_file() and p.name != ".lock"]
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.mark.parametrize(
    "step",
    [
        "infra.data.postgres.snapshot._export after",
        "infra.data.postgres.packing.pack after",
        "infra.data.postgres.backup._write_json before",
        "infra.data.store._seal before",
        "infra.data.store._seal after",
    ],
)
@pytest.mark.fault(1)
def test_1_kill_9_of_the_backup_leaves_no_backup_and_the_next_run_sweeps(site: Site, step: str) -> None:
    first = site.backup()
    before = _hashes(site)
    site.killed(step, "db.backup", "--to", str(site.target))
    assert site.published() == [first.name]
    assert site.parts()
    assert {k: v for k, v in _hashes(site).items() if ".part-" not in k} == before
    second = site.backup()
    assert site.published() == [first.name, second.name]
    assert not site.parts()
    assert not site.clients()
    store.check_files(store.load(first))


@pytest.mark.fault(2)
def test_2_kill_9_of_pg_dump_ends_with_10_and_what_it_said(site: Site) -> None:
    site.backup()
    before = _hashes(site)
    with site.locked_table():
        process = site.start("db.backup", "--to", str(site.target))
        wait_for("pg_dump to stand still", lambda: _dumps(process.pid))
        time.sleep(0.5)
        for child in _dumps(process.pid):
            child.send_signal(signal.SIGKILL)
        out, err = process.communicate(timeout=HANG)
    assert process.returncode == 10, err + out
    assert "pg_dump was killed by signal 9" in err
    assert _hashes(site) == before
    assert not site.parts()


def _dumps(pid: int) -> list[psutil.Process]:
    """The dumps under way; not the program that is only asked for its version."""
    family = psutil.Process(pid).children(recursive=True)
    return [p for p in family if _name(p) == "pg_dump" and "--version" not in _words(p)]


def _words(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:  # it is just ending
        return ["--version"]


def _name(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.Error:  # it is just ending
        return ""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    point = tmp_path / "small"
    point.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=3m,mode=0700", "tmpfs", str(point)]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    if done.returncode:
        pytest.skip(f"this machine lets nobody mount a file system: {done.stderr.strip()}")
    yield point
    subprocess.run(["umount", "--lazy", str(point)], check=True)


@pytest.mark.fault(3)
def test_3_a_full_disk_is_said_with_what_is_needed_and_retention_does_not_run(site: Site, small_disk: Path) -> None:
    first = site.backup("--verify", to=small_disk)
    with site.link("platform") as link:
        link.execute("create table big as select n, md5(n::text) as t from generate_series(1, 200000) n")
    done = site.invoke("db.backup", "--to", str(small_disk), "--keep", "1")
    refused(done, 10, "no space left in", "MB is needed", "BACKUP_FAILED")
    assert [e.name for e in small_disk.iterdir() if e.is_dir()] == [first.name]
    store.check_files(store.load(first))


@pytest.mark.fault(6)
def test_6_a_wrong_password_ends_with_5_quickly_and_is_never_shown(site: Site) -> None:
    began = time.monotonic()
    done = site.invoke("db.backup", "--to", str(site.target), POSTGRES_PASSWORD="not-this-one-9173")
    assert time.monotonic() - began < within(5)
    refused(done, 5, "LOGIN_REFUSED", f"admin@{site.ends.address('postgres')}")
    logs = "".join(p.read_text(errors="replace") for p in (site.victim.stack_home / "logs").glob("*.log"))
    assert "not-this-one-9173" not in done.stderr + done.stdout + logs


@pytest.mark.fault(7)
def test_7_a_server_that_is_silent_or_gone_ends_with_5(site: Site) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        closed = str(silent.getsockname()[1])
        began = time.monotonic()
        done = site.invoke("db.backup", "--to", str(site.target), POSTGRES_PORT=closed)
        assert time.monotonic() - began < within(15)
    refused(done, 5, "UNREACHABLE")
    began = time.monotonic()
    refused(site.invoke("db.backup", "--to", str(site.target), POSTGRES_PORT=closed), 5, "UNREACHABLE")
    assert time.monotonic() - began < within(5)
    assert not site.published()


@pytest.mark.fault(13)
def test_13_the_second_backup_ends_with_12_and_the_lock_dies_with_its_holder(site: Site) -> None:
    with site.locked_table():
        holder = site.start("db.backup", "--to", str(site.target))
        wait_for("the dump", lambda: _dumps(holder.pid))
        done = site.invoke("db.backup", "--to", str(site.target))
        refused(done, 12, "LOCKED", f"pid {holder.pid}", "since ")
        holder.kill()
        holder.communicate(timeout=10)
    site.backup()
    assert not site.parts()


@pytest.mark.fault(14)
def test_14_order_is_by_sequence_whatever_the_clock_says(site: Site, tmp_path: Path) -> None:
    names = [site.backup("--database", "users").name for _ in range(2)]
    assert [n[:6] for n in names] == ["000001", "000002"]
    late = site.target / "000003-20200101T000000Z"  # a clock that was six years back
    os.rename(site.target / names[1], late)
    done = site.invoke("db.list", "--to", str(site.target), "--json")
    assert [Path(b["path"]).name for b in json.loads(done.stdout)["data"]] == [names[0], late.name]
    assert site.backup("--database", "users").name.startswith("000004-")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.fault(23)
def test_23_ctrl_c_and_sigterm_end_it_within_two_seconds(site: Site, number: int, code: int) -> None:
    for delay in (0.6, 1.0, 1.5):
        with site.locked_table():
            process = site.start("db.backup", "--to", str(site.target))
            wait_for("the dump", lambda: _dumps(process.pid))  # noqa: B023
            time.sleep(delay - 0.6)
            children = _dumps(process.pid)
            began = time.monotonic()
            os.kill(process.pid, number)
            _, err = process.communicate(timeout=HANG)
            assert time.monotonic() - began < within(2)
            assert process.returncode == code, err
            assert not [c for c in children if c.is_running() and c.status() != psutil.STATUS_ZOMBIE]
        assert not site.parts()
    assert not site.published()
    site.backup("--database", "users")


@pytest.mark.fault(23)
def test_23_at_thirty_random_moments_nothing_is_left_half(site: Site) -> None:
    chance, wrong = random.Random(23), []
    for number in range(30):
        own = Site(site.victim, site.target / str(number))
        sent = (signal.SIGINT, signal.SIGTERM)[number % 2]
        process = own.start("db.backup", "--to", str(own.target))
        wait_for("the lock", lambda: process.poll() is not None or (own.target / store.LOCK).exists())  # noqa: B023
        time.sleep(chance.uniform(0, 1.2))
        children, began = psutil.Process(process.pid).children(recursive=True), time.monotonic()
        for _ in range(1 + (number % 3 == 0)):  # some twice, at once
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, sent)
        _, said = process.communicate(timeout=HANG)
        took, (_, alive) = time.monotonic() - began, psutil.wait_procs(children, timeout=GONE)
        # What was published a moment before may also meet a process that is on its way out.
        expected = (0, 128 + sent, -sent) if own.published() else (128 + sent,)
        if process.returncode not in expected or took > within(2) or alive or own.parts() or not _free(own.target):
            wrong.append((number, process.returncode, expected, round(took, 2), alive, own.parts(), said))
        assert not [b.problem for b in store.catalogue(own.target, "db") if b.problem]
    assert not wrong, wrong


def _free(target: Path) -> bool:
    with open(target / store.LOCK, "r+", encoding="utf-8") as file:
        return try_lock(file)


@pytest.mark.fault(24)
def test_24_the_end_of_the_server_is_no_success(site: Site) -> None:
    first = site.backup()
    with site.locked_table():
        process = site.start("db.backup", "--to", str(site.target))
        wait_for("the dump", lambda: _dumps(process.pid))
        site.victim.kill("postgres")
        _, err = process.communicate(timeout=HANG)
    assert process.returncode in (5, 10), err
    site.victim.up()
    assert site.published() == [first.name]
    assert not site.parts()


@pytest.mark.fault(24)
def test_24_a_pg_dump_that_gets_no_memory_is_no_success(site: Site) -> None:
    wrapper = site.target.parent / "bin"
    wrapper.mkdir()
    from infra import settings
    from infra.tiers import providers

    real = providers.postgres_bin(settings.load(environ=site.victim.env)).path
    for program in ("postgres", "initdb", "pg_restore", "pg_dumpall", "psql"):
        (wrapper / program).symlink_to(real / program)
    dump = shlex.quote(str(real / "pg_dump"))
    script = '#!/bin/sh\n[ "$1" = --version ] || ulimit -v 4096\n' + f'exec {dump} "$@"\n'
    (wrapper / "pg_dump").write_text(script)
    (wrapper / "pg_dump").chmod(0o755)
    done = site.invoke("db.backup", "--to", str(site.target), PLATFORM_POSTGRES_BIN=str(wrapper))
    refused(done, 10, "BACKUP_FAILED", "pg_dump")
    assert not site.published()
    assert not site.parts()


@pytest.mark.parametrize("mask", [0o000, 0o022])
@pytest.mark.fault(26)
def test_26_files_are_private_and_the_password_is_in_no_command_line(site: Site, mask: int) -> None:
    before = os.umask(mask)
    try:
        with site.locked_table():
            process = site.start("db.backup", "--to", str(site.target))
            wait_for("the dump", lambda: _dumps(process.pid))
            commands = " ".join(command_line(p) for p in psutil.Process(process.pid).children(recursive=True))
        process.communicate(timeout=HANG)
    finally:
        os.umask(before)
    assert site.ends.postgres.password not in commands
    loose = [p for p in [site.target, *site.target.rglob("*")] if stat.S_IMODE(p.lstat().st_mode) not in (0o600, 0o700)]
    assert not loose
    assert all(stat.S_IMODE(p.lstat().st_mode) == 0o600 for p in site.target.rglob("*") if p.is_file())


@pytest.mark.fault(27)
def test_27_a_target_that_takes_no_writes_or_no_sync_is_a_failed_backup(site: Site) -> None:
    blocked = site.target / "file"
    site.target.mkdir()
    blocked.write_text("x")
    refused(site.invoke("db.backup", "--to", str(blocked)), 10, "BACKUP_FAILED", "cannot be written")
    code = (
        "import os, sys; sys.argv = ['invoke', 'db.backup', '--to', sys.argv[1]]\n"
        "def broken(descriptor): raise OSError(5, 'Input/output error')\n"
        "os.fsync = broken\n"
        "from invoke.main import program; program.run()\n"
    )
    done = site._run([sys.executable, "-c", code, str(site.target)], {})
    refused(done, 10, "BACKUP_FAILED", "Input/output error")
    assert not site.published()
    assert not site.parts()


@pytest.mark.fault(29)
def test_29_a_fence_that_cannot_be_had_is_said_and_the_snapshots_are_taken_together(site: Site) -> None:
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with site.locked_table():
            held.set()
            release.wait(120)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(10)
    process = site.start("db.backup", "--fence", "--to", str(site.target), "--json")
    wait_for("the dump, which begins after the last try", lambda: _dumps(process.pid))
    release.set()
    holder.join()
    out, err = process.communicate(timeout=HANG)
    assert process.returncode == 11, err
    data = json.loads(out)["data"]
    fence = store.load(Path(data["path"])).facts["snapshots"]["fence"]
    assert fence["asked"]
    assert not fence["held"]
    assert "lock" in fence["why_not"]


def test_a_fence_is_short_and_the_databases_are_in_step(site: Site) -> None:
    for name in NAMES:
        with site.link(name) as link:
            link.execute("create table step (n int); insert into step values (0)")
    stop = threading.Event()
    failed: list[Exception] = []

    def write() -> None:
        links = [site.link(name) for name in NAMES]
        number = 0
        try:
            while not stop.is_set():
                number += 1
                for link in links:
                    link.execute("update step set n = %s", (number,))
        except Exception as error:  # said by the test
            failed.append(error)
        for link in links:
            link.close()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        path = site.backup("--fence")
    finally:
        stop.set()
        writer.join()
    assert not failed
    fence = store.load(path).facts["snapshots"]["fence"]
    assert fence["held"]
    done = site.invoke("db.restore", "--from", str(path), "--yes")
    assert done.returncode == 0, done.stderr
    steps = []
    for name in NAMES:
        with site.link(name) as link:
            row = link.execute("select n from step").fetchone()
            assert row is not None
            steps.append(row[0])
    assert steps[0] > 0
    # One writer goes from database to database: at most the step it was in lies between them.
    assert steps == sorted(steps, reverse=True)
    assert steps[0] - steps[-1] <= 1
    site.drop_kept()


def test_what_is_printed_to_be_typed_next_finds_the_backup_where_it_is(site: Site, tmp_path: Path) -> None:
    elsewhere = tmp_path / "an other disk"
    done = site.invoke("db.backup", "--to", str(elsewhere))
    for task, more in (("db.verify", ()), ("db.restore", ("--dry-run",))):
        assert done.returncode == 0, done.stderr
        program, *words = shlex.split(done.stdout.splitlines()[-1].removeprefix("Next: "))
        assert (program, words[0]) == ("invoke", task)
        done = site.invoke(*words, *more)
    assert done.returncode == 0, done.stderr
    assert str(elsewhere) in done.stdout
