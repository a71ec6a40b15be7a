"""Processes: start, recognise, signal and sweep them; every difference between operating systems is here."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import psutil

WINDOWS = sys.platform == "win32"
PASSED = "PLATFORM_PASS_ENV"
"""The setting that names further variables of the shell, with commas between."""
# Enough for programs to run; whatever else is in a shell (tokens, what steers servers) is no business of theirs.
_ALLOWED = frozenset(
    (
        *("PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "TMP", "TEMP"),
        *("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH"),
        *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"),
        *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
        # Without these, programs do not start on Windows, or do not find their folders.
        *("SYSTEMROOT", "SYSTEMDRIVE", "WINDIR", "COMSPEC", "PATHEXT", "OS", "COMPUTERNAME"),
        *("USERNAME", "USERDOMAIN", "USERPROFILE", "HOMEDRIVE", "HOMEPATH", "APPDATA", "LOCALAPPDATA", "PROGRAMDATA"),
        *("PROGRAMFILES", "PROGRAMFILES(X86)", "PROGRAMW6432", "COMMONPROGRAMFILES"),
        *("NUMBER_OF_PROCESSORS", "PROCESSOR_ARCHITECTURE", "PROCESSOR_IDENTIFIER"),
    )
)
_ALLOWED_PREFIXES = ("LC_", "CUDA_", "NVIDIA_")


@dataclass(frozen=True)
class Identity:
    """A process that cannot be mistaken for another: its pid and its start time (as `start_time` gives it)."""

    pid: int
    create_time: float

    def process(self) -> psutil.Process | None:
        """Return the live process, or None when it has ended or the pid now belongs to another."""
        with contextlib.suppress(psutil.Error, OSError):
            process = psutil.Process(self.pid)
            same = abs(start_time(process) - self.create_time) < 0.02
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        return None


def identify(pid: int) -> Identity | None:
    """Return the identity of a running process; None when there is none."""
    with contextlib.suppress(psutil.Error, OSError):
        return Identity(pid, start_time(psutil.Process(pid)))
    return None


def replaced(identity: Identity) -> bool:
    """Return whether the program of a process is another file by now, e.g. after an upgrade (Linux; else False)."""
    with contextlib.suppress(OSError):
        return os.readlink(f"/proc/{identity.pid}/exe").endswith(" (deleted)")
    return False


def start_time(process: psutil.Process) -> float:
    """Return when a process started: seconds since 1970, on Linux since the system's start.

    There the time since 1970 changes, for processes that run, whenever the clock is set or corrected.

    Raises:
        psutil.Error or OSError: the process has ended.
    """
    if sys.platform != "linux":
        return process.create_time()
    with open(f"/proc/{process.pid}/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    return int(fields[19]) / os.sysconf("SC_CLK_TCK")  # field 22: proc_pid_stat(5)


def environment(added: Mapping[str, str], base: Mapping[str, str] | None = None) -> dict[str, str]:
    """Build the environment of a service: of the present one what every program needs, plus what is added.

    What `PLATFORM_PASS_ENV` (in `added`) names is kept too. Where there is a proxy, it is not asked for this machine's
    own addresses.
    """
    base = os.environ if base is None else base
    more = {word.strip() for word in added.get(PASSED, "").split(",")}
    kept = {k: v for k, v in base.items() if _allowed(k) or k in more}
    if any(k.upper() in ("HTTP_PROXY", "ALL_PROXY") for k in kept):
        known = kept.get("NO_PROXY", kept.get("no_proxy", ""))
        kept |= dict.fromkeys(("NO_PROXY", "no_proxy"), ",".join(filter(None, (known, "127.0.0.1,localhost"))))
    return {**kept, **added}


def _allowed(name: str) -> bool:
    upper = name.upper()  # Windows keeps, but does not heed, the case; proxies are written either way
    return upper in _ALLOWED or upper.startswith(_ALLOWED_PREFIXES)


def spawn(
    argv: Sequence[str],
    *,
    cwd: Path,
    log: IO[bytes],
    env: Mapping[str, str],
    user: tuple[int, int] | None = None,
    umask: int = -1,
) -> subprocess.Popen[bytes]:
    """Start a service in a session (Windows: process group) of its own, with its output in `log`.

    Args:
        umask: what the files that it makes are closed to (POSIX); -1: as for the files of its starter.

    Raises:
        OSError: the program cannot be started.
    """
    return subprocess.Popen(
        list(argv),
        cwd=cwd,
        env=dict(env),
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        umask=umask,
        **spawn_options(WINDOWS, user),
    )


def spawn_options(windows: bool, user: tuple[int, int] | None) -> dict[str, Any]:
    """Return keyword arguments for Popen that separate a service from its starter's terminal and signals."""
    if windows:
        # CREATE_NEW_PROCESS_GROUP | CREATE_NO_WINDOW; the names exist in subprocess on Windows only.
        return {"creationflags": 0x00000200 | 0x08000000}
    dropped = {"user": user[0], "group": user[1], "extra_groups": []} if user else {}
    return {"start_new_session": True, **dropped}


def ask_to_stop(process: psutil.Process, stop_signal: str, windows: bool = WINDOWS) -> None:
    """Send a service its own stop signal (Windows: Ctrl-Break to its group)."""
    with contextlib.suppress(psutil.Error, OSError):
        if windows:
            process.send_signal(getattr(signal, "CTRL_BREAK_EVENT", signal.SIGTERM))
        else:
            process.send_signal(getattr(signal, f"SIG{stop_signal}"))


def session_members(leader: Identity) -> list[psutil.Process]:
    """Return every process of the session that a service leads or led, the leader last; empty on Windows.

    Safe against a recycled pid: the system gives no pid away while a session has its number, so a leader of
    another start time means that the old session is gone.
    """
    if WINDOWS or _recycled(leader):
        return []
    found = []
    for pid in psutil.pids():
        with contextlib.suppress(OSError, psutil.Error):
            if os.getsid(pid) == leader.pid and pid != leader.pid:
                found.append(psutil.Process(pid))
    with contextlib.suppress(psutil.Error):
        found.append(psutil.Process(leader.pid))
    return found


def _recycled(identity: Identity) -> bool:
    with contextlib.suppress(psutil.Error, OSError):
        return abs(start_time(psutil.Process(identity.pid)) - identity.create_time) >= 0.02
    return False


def tree(process: psutil.Process) -> list[psutil.Process]:
    """Return a process and its descendants, children first."""
    with contextlib.suppress(psutil.Error):
        return [*reversed(process.children(recursive=True)), process]
    return []


def marked(name: str, value: str) -> list[psutil.Process]:
    """Return the processes whose environment has that variable with that value: a mark goes to every descendant."""
    found = []
    for each in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if each.environ().get(name) == value:
                found.append(each)
    return found


def end_all(processes: Iterable[psutil.Process], grace: float = 0.5) -> None:
    """End processes: SIGTERM, then after `grace` seconds SIGKILL to what is left."""
    alive = [p for p in set(processes) if p.pid != os.getpid() and not _ended(p)]
    for process in alive:
        with contextlib.suppress(psutil.Error):
            process.terminate()
    for process in _left(alive, grace):
        with contextlib.suppress(psutil.Error):
            process.kill()
    _left(alive, 2.0)


def _left(processes: Iterable[psutil.Process], limit: float) -> list[psutil.Process]:
    """Return the processes that still run after at most `limit` seconds.

    Not psutil.wait_procs: that waits for zombies too, which only their parent (in a container, often nobody) reaps.
    """
    end = time.monotonic() + limit
    left = [p for p in processes if not _ended(p)]
    while left and time.monotonic() < end:
        time.sleep(0.02)
        left = [p for p in left if not _ended(p)]
    return left


def _ended(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    return True


def in_directory(directory: Path, program: str) -> Identity | None:
    """Return the topmost running process of that program whose working directory is `directory`.

    Recognises a service whose pid was lost: each has a working directory of its own.
    """
    wanted, name = str(directory.resolve()), Path(program).name
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.cwd() == wanted and Path(process.exe()).name.startswith(Path(name).stem[:6]):
                found.append(process)
    for process in found:
        with contextlib.suppress(psutil.Error):
            if process.ppid() not in {p.pid for p in found}:
                return identify(process.pid)
    return None


def directory_of(pid: int) -> Path | None:
    """Return the working directory of a process; None where there is no such process, or the system does not tell."""
    with contextlib.suppress(psutil.Error, OSError):
        return Path(psutil.Process(pid).cwd()).resolve()
    return None


def wait_gone(process: psutil.Process, limit: float, child: subprocess.Popen[bytes] | None = None) -> bool:
    """Wait until a process has ended, at most `limit` seconds; reaps it when it is our child."""
    end = time.monotonic() + limit
    identity = identify(process.pid) if process.is_running() else None
    while identity is not None and identity.process() is not None:
        if child is not None and child.poll() is not None:
            return True
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True
