"""What other users of the machine, and PostgreSQL's own user, can make root or the developer do."""

from __future__ import annotations

import os
import pwd
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from infra import settings
from infra.tiers.native import postgres as native_postgres
from tests.faults.conftest import Victim
from tests.faults.native import tools
from tests.faults.security.conftest import Other


@pytest.fixture
def open_place() -> Iterator[Path]:
    """A directory that every user reaches, as a home below /home is on many machines."""
    base = Path(tempfile.mkdtemp(prefix="platform-shared-")).resolve()
    base.chmod(0o755)
    yield base
    shutil.rmtree(base)


@pytest.fixture
def database_user(fresh_platform: Victim) -> Other:
    """The user that PostgreSQL drops to when root starts it."""
    if not tools.is_root():
        pytest.skip("PostgreSQL has a user of its own only where root starts it")
    uid, gid = native_postgres.os_user(settings.load(environ=fresh_platform.env))
    return Other(pwd.getpwuid(uid).pw_name, uid, gid)


def test_a_link_in_the_databases_directory_leads_root_nowhere(
    fresh_platform: Victim, database_user: Other, open_place: Path
) -> None:
    """SQL runs programs as PostgreSQL's user, who owns the directory that root prepares at the next start."""
    treasure = open_place / "treasure"
    treasure.write_text("root's own")
    treasure.chmod(0o600)
    fresh_platform.up()
    data = tools.data_directories(fresh_platform)["postgres"]
    plant = f"ln -sfn {treasure} {data}/.postmaster.pid.new"
    with psycopg.connect(fresh_platform.contract["DATABASE_URL"], autocommit=True) as link:
        link.execute(f"copy (select 1) to program '{plant}'")
        assert (data / ".postmaster.pid.new").lstat().st_uid == database_user.uid
    fresh_platform.invoke("down", check=True)
    lock = f"{os.getpid()}\n{data}\n1767225600\n5432\n"
    database_user.run("sh", "-c", f"printf '%s' '{lock}' > {data}/postmaster.pid; {plant}")
    fresh_platform.up()
    assert treasure.read_text() == "root's own"
    assert treasure.stat().st_uid == 0


def test_a_pipe_in_place_of_a_file_of_the_databases_stops_nobody(fresh_platform: Victim, database_user: Other) -> None:
    fresh_platform.up()
    data = tools.data_directories(fresh_platform)["postgres"]
    fresh_platform.invoke("down", check=True)
    database_user.run("sh", "-c", f"cd {data} && mkfifo postmaster.pid && mv PG_VERSION v && mkfifo PG_VERSION")
    done = fresh_platform.invoke("up", timeout=60)
    tools.refused(done, 8, "PG_VERSION")
    database_user.run("sh", "-c", f"cd {data} && rm postmaster.pid PG_VERSION && mv v PG_VERSION")
    fresh_platform.up()


def test_every_directory_is_private_whatever_the_umask(fresh_platform: Victim, open_place: Path, other: Other) -> None:
    """With umask 000 another user once replaced the supervisor's list of programs, and it ran them."""
    victim = tools.with_settings(fresh_platform, PLATFORM_STATE_DIR=str(open_place / "state"))
    before = os.umask(0)
    try:
        victim.up()
        state = open_place / "state"
        found = [state, *(p for p in state.rglob("*") if p.is_dir() and not p.is_symlink())]
        assert not [p for p in found if p.stat().st_mode & 0o066 and _reached(p, open_place)]
        said = other.run("sh", "-c", f"echo '{{}}' > {open_place}/state/native/desired.json", check=False)
        assert "denied" in said
        assert "denied" in other.run("ls", str(open_place / "state"), check=False)
    finally:
        os.umask(before)
        victim.invoke("down")


def _reached(path: Path, base: Path) -> bool:
    """Whether others get as far as a directory, which servers may make as open as the umask lets them."""
    return all(p.stat().st_mode & 0o001 for p in path.parents if base in p.parents)


def test_a_state_directory_that_others_may_write_is_refused(fresh_platform: Victim, open_place: Path) -> None:
    state = open_place / "state"
    (state / "native").mkdir(parents=True)
    for loose in (state, state / "native"):
        loose.chmod(0o777)
        victim = tools.with_settings(fresh_platform, PLATFORM_STATE_DIR=str(state))
        for task in ("up", "status", "down", "env"):
            said = tools.refused(victim.invoke(task), 4, str(loose), "other users", "PLATFORM_STATE_DIR")
            assert "STATE_UNSAFE" in said
        loose.chmod(0o700)


def test_a_state_directory_of_another_user_is_refused(fresh_platform: Victim, open_place: Path, other: Other) -> None:
    state = open_place / "state"
    state.mkdir()
    os.chown(state, other.uid, other.gid)
    victim = tools.with_settings(fresh_platform, PLATFORM_STATE_DIR=str(state))
    for task in ("up", "down", "db.backup", "snapshot.create"):
        tools.refused(victim.invoke(task), 4, str(state), f"run as {other.name}", "PLATFORM_STATE_DIR")
    assert list(state.iterdir()) == []
