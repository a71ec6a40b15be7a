"""Files and directories that nobody else may change: private whatever the umask, refused where others may write.

Also what root may do in a directory that belongs to another user, without being led elsewhere by a link.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from infra.errors import PlatformError

CLOSED, PASSABLE = 0o700, 0o711
"""Modes of our directories: nobody else enters, or others may pass to what is theirs below but list nothing."""
LARGEST = 1 << 16
"""Bytes that `read_text` reads at most."""
_NOFOLLOW, _BINARY = getattr(os, "O_NOFOLLOW", 0), getattr(os, "O_BINARY", 0)
_DIRECTORY, _NONBLOCK = getattr(os, "O_DIRECTORY", 0), getattr(os, "O_NONBLOCK", 0)
_BELOW = os.open in os.supports_dir_fd and os.rename in os.supports_dir_fd


def directory(path: Path, mode: int = CLOSED) -> Path:
    """Make a directory, and those above it that are missing, for this user alone; one that is there is made so.

    Args:
        path: the directory.
        mode: of what is made: CLOSED, or `way()` where PostgreSQL's own user has to reach its data below.

    Raises:
        PlatformError: STATE_UNSAFE where it is another user's, or others may write to it.
        OSError: it cannot be made.
    """
    make(path, mode)
    check(path)
    now = stat.S_IMODE(path.stat().st_mode)
    if sys.platform != "win32" and now & 0o777 & ~way():
        os.chmod(path, now & way())
    return path


def make(path: Path, mode: int = CLOSED) -> Path:
    """Make what is missing of a path, with this mode; what is there, such as a directory of the user's, stays as it is.

    Raises:
        OSError: it cannot be made.
    """
    for missing in [p for p in reversed([path, *path.parents]) if not p.exists()]:
        with contextlib.suppress(FileExistsError):
            os.mkdir(missing, mode)
            os.chmod(missing, mode)  # a umask may have taken away more than it should
    if not path.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
    return path


def check_tree(home: Path) -> None:
    """Refuse a state directory, or one directly below it, that another user owns or may write to.

    Raises:
        PlatformError: STATE_UNSAFE.
    """
    check(home)
    with contextlib.suppress(OSError):
        for below in sorted(home.iterdir()):
            if not below.is_symlink():
                check(below)


def way() -> int:
    """Return the mode of a directory above the databases: where root starts PostgreSQL, its user must pass."""
    return PASSABLE if is_root() else CLOSED


def is_root() -> bool:
    """Return whether the present user is root (POSIX)."""
    return hasattr(os, "geteuid") and os.geteuid() == 0


def check(path: Path) -> None:
    """Refuse a directory that another user owns or may write to; nothing to say where it is not there.

    A directory of root is accepted: root may change everything anyway.

    Raises:
        PlatformError: STATE_UNSAFE.
    """
    if sys.platform == "win32":
        return
    try:
        status = path.stat()
    except OSError:
        return
    if not stat.S_ISDIR(status.st_mode):
        return
    me = os.geteuid()
    if status.st_uid not in (0, me):
        why = f"it belongs to {_user(status.st_uid)}, and this is {_user(me)}"
        raise _unsafe(path, "belongs to another user", why, f"run as {_user(status.st_uid)}")
    if _others_write(status) and _keeps_modes(path):
        why = f"its mode is {stat.S_IMODE(status.st_mode):04o}, so what it holds may be somebody else's"
        raise _unsafe(path, "can be written by other users", why, f"look at what is in it, then: chmod 700 {path}")


def _unsafe(path: Path, what: str, why: str, step: str) -> PlatformError:
    return PlatformError(
        "STATE_UNSAFE",
        f"the directory {path} {what}",
        why=why,
        steps=(step, "or set PLATFORM_STATE_DIR to another directory"),
    )


def _others_write(status: os.stat_result) -> bool:
    if status.st_mode & stat.S_IWOTH:
        return True
    return bool(status.st_mode & stat.S_IWGRP) and not _group_of_one(status.st_gid)


def _group_of_one(gid: int) -> bool:
    """Return whether a group is that of this user alone, as many systems make one for each (and have umask 002)."""
    if sys.platform == "win32":
        return False
    import grp
    import pwd

    try:
        group, user = grp.getgrgid(gid), pwd.getpwuid(os.geteuid())
    except KeyError:
        return False
    return group.gr_name == user.pw_name and not set(group.gr_mem) - {user.pw_name}


def _keeps_modes(path: Path) -> bool:
    """Return whether the file system supports modes: a Windows one, as mounted by WSL, shows 777 for everything."""
    probe = path / f".modes-{secrets.token_hex(8)}"
    try:
        os.mkdir(probe, CLOSED)
    except OSError:
        return True
    try:
        return stat.S_IMODE(probe.lstat().st_mode) == CLOSED
    finally:
        with contextlib.suppress(OSError):
            probe.rmdir()


def _user(uid: int) -> str:
    if sys.platform == "win32":
        return str(uid)
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"the user {uid}"


def read_text(path: Path) -> str:
    """Read a small text file that another user may have put there: no link is followed, no pipe waited for.

    Bytes that are not UTF-8 are replaced.

    Raises:
        OSError: there is none, it is a link, or no plain file.
    """
    descriptor = os.open(path, os.O_RDONLY | _NOFOLLOW | _BINARY | _NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(f"{path} is not a regular file")
        return file.read(LARGEST).decode("utf-8", "replace")


def new_file(path: Path, access: int = os.O_WRONLY) -> int:
    """Create a file for this user alone, never through a link; return its descriptor.

    Raises:
        OSError: it is there already (FileExistsError), or cannot be made.
    """
    return os.open(path, access | os.O_CREAT | os.O_EXCL | _NOFOLLOW | _BINARY, 0o600)


def appending(path: Path) -> BinaryIO:
    """Open a file for appending that nobody else may read; one that others could read is closed to them.

    Raises:
        OSError: it cannot be opened.
    """
    file = open(path, "ab", opener=lambda name, flags: os.open(name, flags, 0o600))  # noqa: SIM115 - the caller's
    if sys.platform != "win32" and os.fstat(file.fileno()).st_mode & 0o077:
        os.fchmod(file.fileno(), 0o600)
    return file


def key(path: Path) -> bytes:
    """Return a random key (64 hex digits) in a private file, created where missing; the same for all who ask.

    Raises:
        OSError: it cannot be made or read.
        PlatformError: DATA_INCOMPATIBLE for a file that holds no key.
    """
    if not path.exists():
        directory(path.parent, way())
        fresh = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        put(fresh, secrets.token_hex(32))
        with contextlib.suppress(FileExistsError):
            os.link(fresh, path)  # unlike a rename it never replaces a key that somebody else has made meanwhile
        fresh.unlink()
    found = path.read_bytes().strip()
    if len(found) != 64:
        steps = (f"remove {path}: a new one is made",)
        raise PlatformError("DATA_INCOMPATIBLE", f"the key {path} is damaged", steps=steps)
    return found


def give(path: Path, owner: tuple[int, int] | None) -> None:
    """Give a file or directory to (uid, gid), itself and not what it may point to; None leaves it as it is.

    Its directory must belong to the present user.
    """
    if owner and sys.platform != "win32":
        os.chown(path, *owner, follow_symlinks=False)


def put(path: Path, text: str, owner: tuple[int, int] | None = None) -> None:
    """Write a private file for another user in place of what is there, in a directory which that user may change.

    Nothing that stands there is followed or kept: the file is new, and given away before it gets its name.

    Raises:
        OSError: it cannot be written, or its directory is a link.
    """
    with _opened(path.parent) as below:
        fresh = f".{path.name}.{secrets.token_hex(8)}"
        place = path.parent if below is None else Path()
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NOFOLLOW | _BINARY
        descriptor = os.open(place / fresh, flags, 0o600, dir_fd=below)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(text.encode())
                file.flush()
                os.fsync(descriptor)
                if owner and sys.platform != "win32":
                    os.fchown(descriptor, *owner)
            _rename(place / fresh, place / path.name, below)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(place / fresh, dir_fd=below)
            raise


@contextlib.contextmanager
def _opened(parent: Path) -> Iterator[int | None]:
    """Open a directory, where the system works below descriptors of such."""
    if not _BELOW:
        yield None
        return
    descriptor = os.open(parent, os.O_RDONLY | _DIRECTORY | _NOFOLLOW)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _rename(old: Path, new: Path, below: int | None) -> None:
    if below is None:
        os.replace(old, new)
    else:
        os.rename(old, new, src_dir_fd=below, dst_dir_fd=below)
