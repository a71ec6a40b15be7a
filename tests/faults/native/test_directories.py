"""State directories that cannot be used: read-only, full, small, a file, the data of another PostgreSQL."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from infra import settings
from infra.tiers import providers
from infra.tiers.native import postgres as native_postgres
from tests.faults.conftest import Victim
from tests.faults.native import tools
from tests.faults.native.conftest import Mount
from tests.faults.native.tools import Deposit


def _at(victim: Victim, directory: Path) -> Victim:
    """The same settings with another state directory."""
    env = {**victim.stage.env, "PLATFORM_STATE_DIR": str(directory)}
    return Victim(type(victim.stage)("native", directory, env))


@contextlib.contextmanager
def _cleaned(victim: Victim) -> Iterator[Victim]:
    try:
        yield victim
    finally:
        left = victim.stage.clean()
    assert not left


def test_a_read_only_state_directory_is_refused(unused: Victim, mount: Mount) -> None:
    where = mount("read only", "size=1m")
    subprocess.run(["mount", "-o", "remount,ro", str(where)], check=True)
    victim = _at(unused, where / "state")
    tools.refused(victim.invoke("up"), 4, str(where / "state"), "Read-only", "PLATFORM_STATE_DIR", "STATE_UNWRITABLE")
    tools.refused(_at(unused, where).invoke("up"), 4, str(where), "Read-only", "PLATFORM_STATE_DIR")
    assert victim.invoke("status").returncode == 9
    tools.assert_nothing_runs(victim)
    assert list(where.iterdir()) == []


def test_a_state_directory_without_permission_is_refused(unused: Victim, tmp_path: Path) -> None:
    if tools.is_root():
        pytest.skip("root may write everywhere")
    tmp_path.chmod(0o500)
    try:
        tools.refused(_at(unused, tmp_path).invoke("up"), 4, str(tmp_path), "denied", "PLATFORM_STATE_DIR")
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.parametrize("below", ["", "state/deep"], ids=["itself", "above it"])
def test_a_file_in_place_of_the_state_directory_is_refused(unused: Victim, tmp_path: Path, below: str) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    victim = _at(unused, file / below)
    for task, code in (("up", 4), ("down", 4), ("status", 9), ("reset", 4)):
        done = victim.invoke(task)
        assert done.returncode == code, (task, done.stderr)
        assert "Traceback" not in done.stderr
        assert "INTERNAL" not in done.stderr
        assert code == 9 or str(file) in done.stderr
    tools.refused(victim.invoke("up"), 4, str(file), "irectory", "PLATFORM_STATE_DIR")
    assert file.read_text() == "mine"
    tools.assert_nothing_runs(victim)


def test_a_disk_that_is_too_small_is_found_before_the_start(unused: Victim, mount: Mount) -> None:
    where = mount("small", "size=100m")
    victim = _at(unused, where / "state")
    tools.refused(victim.invoke("up"), 4, "MB free", str(where), "500 MB is needed", "PLATFORM_STATE_DIR")
    assert not (where / "state" / "native").exists()
    done = victim.invoke("doctor")
    assert done.returncode == 4
    assert "disk" in done.stdout
    tools.assert_nothing_runs(victim)


def test_a_disk_that_is_full_is_found_before_the_start(unused: Victim, mount: Mount) -> None:
    where = mount("full", "size=10m")
    (where / "state").mkdir()
    _fill(where)
    tools.refused(_at(unused, where / "state").invoke("up"), 4, str(where), "PLATFORM_STATE_DIR")
    tools.assert_nothing_runs(_at(unused, where))


def _fill(where: Path) -> Path:
    big = where / "big file"
    with contextlib.suppress(OSError), open(big, "wb", buffering=0) as file:
        while file.write(bytes(1 << 20)):
            pass
    with contextlib.suppress(OSError), open(big, "ab", buffering=0) as file:
        while file.write(b"x"):
            pass
    return big


def test_a_disk_that_fills_while_running_loses_nothing(unused: Victim, mount: Mount) -> None:
    """Writes are refused, not lost; the supervision goes on; with room again `up` repairs everything."""
    where = mount("filling", "size=900m")
    with _cleaned(_at(unused, where / "state")) as victim:
        victim.up()
        deposit = Deposit(victim).put()
        big = _fill(where)
        kept = _write_until_refused(deposit)
        code, envelope = tools.answer(victim, "status")
        told = {s["name"]: f"{s['state']} {s['detail']}" for s in envelope["data"]["services"]}
        assert code == 7
        assert "No space left" in told["redis"]
        done = victim.invoke("doctor")
        assert done.returncode == 4
        assert re.search(r"FAIL +disk", done.stdout), done.stdout
        tools.refused(victim.invoke("up"), 4, str(where), "No space left")
        supervisor = tools.process_of(victim, "supervisor")
        # Not Redis: what it took last is in its memory until there is room (that is what `everysec` means).
        tools.kill_all(victim, "postgres", "temporal", "minio-results")
        assert victim.invoke("status").returncode == 7
        big.unlink()
        victim.up()
        assert supervisor.is_running()
        tools.until("everything to be ready", lambda: tools.whole(victim))
        deposit.check()
        with deposit.redis() as client:
            assert [client.get(key) for key in kept] == ["x" * 4096] * len(kept)
        assert victim.invoke("status").returncode == 0
        tools.assert_runs_once(victim)


def _write_until_refused(deposit: Deposit) -> list[str]:
    """Keys that Redis acknowledged, up to the first that it refused for want of space."""
    import redis

    kept: list[str] = []
    with deposit.redis() as client:
        while True:
            key = f"{deposit.mark}:more:{len(kept)}"
            try:
                client.set(key, "x" * 4096)
            except redis.RedisError:
                return kept
            kept.append(key)
            assert len(kept) < 100_000


# --- data of another PostgreSQL


def _program_major() -> str:
    loaded = settings.load(environ={})
    found = providers.postgres_bin(loaded)
    return native_postgres.program_major(native_postgres.PostgresPlace(found.path, Path(), None, "", ""))


def test_data_of_another_postgresql_major_is_refused_untouched(unused: Victim) -> None:
    data = unused.stack_home / "native" / "data" / "postgres"
    (data / "base").mkdir(parents=True)
    (data / "PG_VERSION").write_text("16\n")
    (data / "base" / "1").write_bytes(bytes(range(256)))
    before = tools.fingerprint(unused.stack_home / "native")
    said = ("PostgreSQL 16", f"PostgreSQL {_program_major()}", str(data), "DATA_INCOMPATIBLE")
    words = (*said, "invoke db.upgrade", "PLATFORM_POSTGRES_BIN")
    tools.refused(unused.invoke("up"), 8, *words)
    tools.refused(unused.invoke("up", "--obs"), 8, *words)
    assert unused.invoke("doctor").returncode == 4
    assert tools.fingerprint(unused.stack_home / "native") == before
    tools.assert_nothing_runs(unused)


@pytest.mark.parametrize("text", ["", "eighteen\n", "\x00\xff"], ids=["empty", "a word", "garbage"])
def test_a_damaged_version_file_is_refused_untouched(unused: Victim, text: str) -> None:
    data = unused.stack_home / "native" / "data" / "postgres"
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_bytes(text.encode("latin-1"))
    before = tools.fingerprint(unused.stack_home / "native")
    tools.refused(unused.invoke("up"), 8, str(data), "PLATFORM_POSTGRES_BIN")
    assert tools.fingerprint(unused.stack_home / "native") == before
    tools.assert_nothing_runs(unused)


def _other_postgresql() -> Path:
    found = [p for p in sorted(Path("/usr/lib/postgresql").glob("*/bin")) if p.parent.name != _program_major()]
    if not found:
        pytest.skip("no PostgreSQL of another major version below /usr/lib/postgresql")
    return found[-1]


def test_a_real_cluster_of_another_major_is_opened_by_its_own_programs_only(unused: Victim) -> None:
    programs = _other_postgresql()
    old = programs.parent.name
    data = unused.stack_home / "native" / "data" / "postgres"
    _initdb(unused, programs, data)
    before = tools.fingerprint(data)
    tools.refused(unused.invoke("up"), 8, f"PostgreSQL {old}", f"PostgreSQL {_program_major()}", str(data))
    assert tools.fingerprint(data) == before
    tools.assert_nothing_runs(unused)
    with_old = tools.with_settings(unused, PLATFORM_POSTGRES_BIN=str(programs))
    with_old.up()
    deposit = Deposit(with_old).put()
    with psycopg.connect(deposit.ends.database_url("platform")) as link:
        row = link.execute("show server_version").fetchone()
    assert row is not None
    assert str(row[0]).startswith(old)
    with_old.invoke("down", check=True)
    before = tools.fingerprint(data)
    tools.refused(unused.invoke("up"), 8, f"PostgreSQL {old}", "PLATFORM_POSTGRES_BIN")
    assert tools.fingerprint(data) == before
    with_old.up()
    deposit.check()


def _initdb(victim: Victim, programs: Path, data: Path) -> None:
    user = native_postgres.os_user(settings.load(environ=victim.env)) if tools.is_root() else None
    as_user = {"user": user[0], "group": user[1], "extra_groups": []} if user else {}
    data.mkdir(parents=True)
    private = Path(tempfile.mkdtemp())
    secret = private / "password"
    secret.write_text("devpass\n")
    if user:
        for path in (data, private, secret):
            shutil.chown(path, *user)
    try:
        login = ["-U", "admin", f"--pwfile={secret}", "-A", "scram-sha-256", "-E", "UTF8", "--no-locale"]
        argv = [str(programs / "initdb"), "-D", str(data), *login]
        subprocess.run(argv, check=True, capture_output=True, cwd=private, **as_user)  # type: ignore[call-overload]
    finally:
        shutil.rmtree(private)
