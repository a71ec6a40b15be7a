"""Where the rig keeps what it made, and keys that say from what it was made."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from infra.locks import try_lock

LAYOUT = "1"
"""Goes into every key; raise it when this code makes something else of the same inputs."""


class RigProblem(Exception):
    """Why a step of the rig cannot be done; `log` is the file with what its programs said."""

    def __init__(self, what: str, log: Path | None = None) -> None:
        super().__init__(f"{what}; see {log}" if log else what)
        self.log = log


def path(*names: str) -> Path:
    """A path in the rig's directory, PLATFORM_RIG_CACHE or else in the user's cache; nothing is made."""
    chosen = os.environ.get("PLATFORM_RIG_CACHE", "")
    home = Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "platform-infra-rig"
    return home.joinpath(*names)


def folder(*names: str) -> Path:
    """A directory there, made where it is missing."""
    made = path(*names)
    made.mkdir(parents=True, exist_ok=True)
    return made


def key(*parts: str | bytes) -> str:
    """Twelve hexadecimal digits that stand for these inputs in this order."""
    digest = hashlib.sha256(LAYOUT.encode())
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()[:12]


def key_of_files(root: Path) -> str:
    """The key of a directory's files: names, contents and whether they may be run."""
    files = sorted(p for p in root.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
    return key(*(part for p in files for part in _facts(root, p)))


def _facts(root: Path, file: Path) -> Iterable[str | bytes]:
    return (file.relative_to(root).as_posix(), str(os.access(file, os.X_OK)), file.read_bytes())


@contextmanager
def fresh(target: Path) -> Iterator[Path]:
    """A new directory that takes the place of `target` when the block ends well; others never see half of it."""
    unfinished = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        yield unfinished
        shutil.rmtree(target, ignore_errors=True)
        unfinished.rename(target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def discard_others(target: Path) -> None:
    """Remove what older keys left beside `target`, whose name is `<name>-<key>`."""
    name = target.name.rpartition("-")[0]
    for other in target.parent.glob(f"{name}-????????????*"):
        if other != target and other.name.rpartition("-")[0] == name:
            shutil.rmtree(other) if other.is_dir() else other.unlink()


@contextmanager
def scratch() -> Iterator[Path]:
    """A directory for the time of a build."""
    with tempfile.TemporaryDirectory(dir=folder("scratch")) as place:
        yield Path(place)


def clear_scratch() -> None:
    """Remove what builds that were killed left behind; only for the holder of the lock."""
    place = folder("scratch")
    unmount_below(place)
    shutil.rmtree(place, ignore_errors=True)


def unmount_below(place: Path) -> None:
    """Undo the mounts that a killed program left below a directory, deepest first."""
    import sh  # POSIX only, as these mounts

    lines = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
    points = [line.split()[1] for line in lines]
    for point in sorted((p for p in points if p.startswith(f"{place}{os.sep}")), reverse=True):
        sh.umount("--lazy", point, _ok_code=[*range(256)])


@contextmanager
def alone() -> Iterator[None]:
    """Hold the rig's lock, so that two runs do not build the same thing."""
    with open(folder() / "lock", "a+b") as file:
        if not try_lock(file):
            print("rig: another run prepares the rig; waiting for it", flush=True)
            _wait(file.fileno())
        yield


def _wait(descriptor: int) -> None:
    if sys.platform == "win32":
        raise RigProblem("the rig needs Linux")
    import fcntl

    fcntl.flock(descriptor, fcntl.LOCK_EX)


def run(
    argv: Sequence[str | Path], log: Path, *, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> None:
    """Run a program whose output is added to `log`.

    Raises:
        RigProblem: it is not there or ended with another code than 0.
    """
    words = [str(word) for word in argv]
    with open(log, "ab") as out:
        out.write(f"$ {subprocess.list2cmdline(words)}\n".encode())
        out.flush()
        try:
            done = subprocess.run(
                words, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=cwd, env={**os.environ, **(env or {})}
            )
        except OSError as error:
            raise RigProblem(f"{words[0]} cannot be started: {error}", log) from error
    if done.returncode:
        raise RigProblem(f"{' '.join(words[:3])} ended with {done.returncode}", log)


def output(argv: Sequence[str | Path], *, env: Mapping[str, str] | None = None) -> str | None:
    """What a program printed; None when it is not there or failed."""
    try:
        done = subprocess.run(
            [str(word) for word in argv], capture_output=True, text=True, env={**os.environ, **(env or {})}
        )
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
