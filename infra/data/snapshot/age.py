"""Encrypted snapshots: a tar of the content, encrypted by age (pyrage) while it is written; read back the same way."""

from __future__ import annotations

import os
import tarfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from infra import private
from infra.errors import PlatformError


def recipients(texts: Sequence[str]) -> list[Any]:
    """Return the recipients that are named: `age1...`, `ssh-ed25519 ...`, `ssh-rsa ...`.

    Raises:
        PlatformError: USAGE for one that is none.
    """
    import pyrage

    found = []
    for text in texts:
        kind = pyrage.ssh.Recipient if text.startswith("ssh-") else pyrage.x25519.Recipient
        try:
            found.append(kind.from_str(text.strip()))
        except pyrage.RecipientError as error:
            steps = ("invoke snapshot.key --to FILE creates a key and prints its recipient",)
            raise PlatformError("USAGE", f"{text!r} is not an age recipient", why=str(error), steps=steps) from error
    return found


def identities(path: Path) -> list[Any]:
    """Return the private keys in a file: lines `AGE-SECRET-KEY-1...`, or one OpenSSH key.

    Raises:
        PlatformError: USAGE naming the file; nothing of it is shown.
    """
    import pyrage

    try:
        text = path.read_text(encoding="utf-8")
        if "PRIVATE KEY" in text:
            return [pyrage.ssh.Identity.from_buffer(text.encode())]
        lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
        found = [pyrage.x25519.Identity.from_str(line) for line in lines]
    except (OSError, UnicodeDecodeError) as error:
        raise PlatformError("USAGE", f"the identity file {path} cannot be read", why=str(error)) from error
    except pyrage.IdentityError as error:
        raise PlatformError("USAGE", f"{path} contains no age identity", steps=("see --identity",)) from error
    if not found:
        raise PlatformError("USAGE", f"{path} contains no age identity", steps=("see --identity",))
    return found


def new_key(path: Path) -> str:
    """Make a key pair: the private key goes into a new file (0600), the recipient is returned.

    Raises:
        PlatformError: USAGE when the file is there already or cannot be written.
    """
    import pyrage

    identity = pyrage.x25519.Identity.generate()
    recipient = str(identity.to_public())
    try:
        descriptor = private.new_file(path)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(f"# public key: {recipient}\n{identity}\n")
    except OSError as error:
        raise PlatformError("USAGE", f"{path} cannot be created", why=error.strerror or str(error)) from error
    return recipient


def seal(content: Path, target: Path, to: Sequence[Any]) -> None:
    """Write a directory's files as one encrypted file (0600).

    Raises:
        OSError: the disk is full, or takes no writes.
    """
    import pyrage

    descriptor = private.new_file(target)
    with os.fdopen(descriptor, "wb") as out:
        _piped(
            lambda pipe: _pack(content, pipe),
            lambda pipe: pyrage.encrypt_io(pipe, out, to),
        )
        out.flush()
        os.fsync(out.fileno())


@dataclass(frozen=True)
class _Stoppable:
    """The writing end of a pipe; once stopped, it takes nothing more, and the other end comes to its own."""

    pipe: IO[bytes]
    stopped: threading.Event

    def write(self, block: bytes) -> int:
        if self.stopped.is_set():
            raise BrokenPipeError
        return self.pipe.write(block)

    def flush(self) -> None:
        self.pipe.flush()


def _piped(write: Callable[[IO[bytes]], None], read: Callable[[IO[bytes]], None]) -> None:
    """Connect two ends. A failure of the writing end is raised rather than what the reading end makes of it.

    Both work in threads: age does not pass on what Ctrl-C raises in the middle of it.
    """
    reading, writing = os.pipe()
    stopped, failed = threading.Event(), dict[str, Exception]()

    def end(name: str, descriptor: int, mode: str, work: Callable[[Any], None]) -> threading.Thread:
        def run() -> None:
            try:
                with os.fdopen(descriptor, mode, buffering=1 << 16) as pipe:
                    work(_Stoppable(pipe, stopped) if mode == "wb" else pipe)
            except BrokenPipeError:
                pass  # the reading end has failed, and says why
            except Exception as error:
                failed[name] = error

        return threading.Thread(target=run, daemon=True)

    threads = [end("write", writing, "wb", write), end("read", reading, "rb", read)]
    for thread in threads:
        thread.start()
    try:
        while any(t.is_alive() for t in threads):
            threads[1].join(0.1)
    finally:
        stopped.set()
        for thread in threads:
            thread.join()
    if failed:
        raise failed.get("write") or failed["read"]


def _pack(content: Path, pipe: IO[bytes]) -> None:
    with tarfile.open(fileobj=pipe, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        for directory, _, files in os.walk(content):
            for name in sorted(files):
                path = Path(directory) / name
                member = tarfile.TarInfo(path.relative_to(content).as_posix())
                with open(path, "rb") as file:
                    member.size, member.mode = os.fstat(file.fileno()).st_size, 0o600
                    tar.addfile(member, file)


def unseal(source: IO[bytes], into: Path, keys: Sequence[Any], size: int) -> None:
    """Bring the files back below a new private directory.

    Args:
        source: the encrypted file.
        into: the directory to make.
        keys: the private keys.
        size: bytes of the encrypted file; the files in it, which are not compressed, have fewer.

    Raises:
        PlatformError: LOGIN_REFUSED when none of the keys fits; BACKUP_DAMAGED.
        OSError: the disk is full.
    """
    import pyrage

    into.mkdir(mode=0o700, parents=True)
    try:
        _piped(lambda pipe: pyrage.decrypt_io(source, pipe, keys), lambda pipe: _unpack(pipe, into, size))
    except pyrage.DecryptError as error:
        steps = ("invoke snapshot.show lists the recipients",)
        what = "the identity does not decrypt this snapshot"
        raise PlatformError("LOGIN_REFUSED", what, why=str(error), steps=steps) from error
    except tarfile.TarError as error:
        raise _damaged(error) from error
    except OSError as error:
        if error.errno is not None:  # pyrage says damage so, too, but without a number
            raise
        raise _damaged(error) from error


def _damaged(error: Exception) -> PlatformError:
    steps = ("use another snapshot: invoke snapshot.list",)
    return PlatformError("BACKUP_DAMAGED", "the encrypted content is damaged", why=str(error), steps=steps)


def _unpack(pipe: IO[bytes], into: Path, left: int) -> None:
    """Unpack plain files with plain names only, whatever the archive contains; `left` bytes at the most."""
    with tarfile.open(fileobj=pipe, mode="r|") as tar:
        for member in tar:
            left -= member.size
            target = into.joinpath(*_plain(member, left).parts)
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = private.new_file(target)
            data = tar.extractfile(member)
            with os.fdopen(descriptor, "wb") as file:
                while data is not None and (block := data.read(1 << 20)):
                    file.write(block)
    while pipe.read(1 << 16):
        pass  # what pads the archive; the writer must not meet a closed pipe


def _plain(member: tarfile.TarInfo, left: int) -> PurePosixPath:
    """Return where a member goes. Raises PlatformError BACKUP_DAMAGED for what `seal` never packs."""
    name = PurePosixPath(member.name)
    if not member.isfile() or member.issparse() or name.is_absolute() or ".." in name.parts:
        raise PlatformError("BACKUP_DAMAGED", f"the archive contains {member.name!r}, which is not a regular file")
    if left < 0:
        raise PlatformError("BACKUP_DAMAGED", f"the archive unpacks to more than it holds, at {member.name!r}")
    return name
