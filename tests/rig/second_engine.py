"""A Docker engine of a test's own, which it may stop, restart and fill: nothing else on the machine notices.

It has its own data root, socket and network namespace, so neither its ports nor its firewall rules meet those of the
machine. What speaks to published ports must run inside the namespace: `SecondEngine.inside`.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil

from tests.rig import cache, engine

STOP_SECONDS = 30
ANY_CODE = [*range(256)]
_HOLDER = """
import fcntl, signal, socket, struct
IFF_UP, SIOCSIFFLAGS = 1, 0x8914
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
    fcntl.ioctl(s, SIOCSIFFLAGS, struct.pack("16sh", b"lo", IFF_UP))
print("ready", flush=True)
signal.pause()
"""


class SecondEngine:
    """A dockerd with its files in `home`; `holder` keeps its network namespace.

    `sockets` is a directory for what a socket's path has to be short for: 107 bytes on Linux (unix(7)).
    """

    def __init__(self, home: Path, holder: int, sockets: Path) -> None:
        self.home, self.holder, self.sockets = home, holder, sockets
        self.socket = sockets / "docker.sock"
        self.log = home / "dockerd.log"
        self._daemon: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """For DOCKER_HOST."""
        return f"unix://{self.socket}"

    @property
    def root(self) -> Path:
        """Docker's root directory."""
        return self.home / "root"

    def inside(self, argv: Sequence[str]) -> list[str]:
        """The command that runs `argv` in the engine's network namespace."""
        return ["nsenter", f"--net=/proc/{self.holder}/ns/net", "--", *argv]

    def docker(self, *arguments: str, check: bool = True) -> str:
        """What `docker ...` printed on both streams, asked of this engine.

        Raises:
            RigProblem: it failed and `check` is set.
        """
        import sh  # POSIX only, as this engine

        options: dict[str, Any] = {"_ok_code": ANY_CODE, "_err_to_out": True, "_tty_out": False}
        done = sh.docker("--host", self.url, *arguments, _return_cmd=True, **options)
        if check and done.exit_code:
            raise cache.RigProblem(f"docker {' '.join(arguments)} ended with {done.exit_code}: {done}", self.log)
        return str(done).strip()

    def start(self) -> None:
        """Start it and wait until it answers.

        Raises:
            RigProblem: it ended or did not answer in time.
        """
        places = {"data-root": self.root, "exec-root": self.sockets, "pidfile": self.home / "dockerd.pid"}
        options = [f"--{name}={path}" for name, path in places.items()]
        argv = self.inside([engine.find("dockerd") or "dockerd", *options, f"--host={self.url}", "--ip=127.0.0.1"])
        with open(self.log, "ab") as out:
            self._daemon = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=engine.env())
        deadline = time.monotonic() + engine.START_SECONDS
        while "Server Version" not in self.docker("info", check=False):
            if self._daemon.poll() is not None or time.monotonic() > deadline:
                raise cache.RigProblem("the second dockerd does not answer", self.log)
            time.sleep(0.1)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Stop it with a signal; its containers stop with SIGTERM and stay behind with SIGKILL."""
        if self._daemon is None:
            return
        self._daemon.send_signal(how)
        try:
            self._daemon.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._daemon.kill()
            self._daemon.wait()
        self._daemon = None
        self._forget_containerd()

    def _forget_containerd(self) -> None:
        """Wait for its containerd: the next engine takes one that is just ending, or not yet reaped, for its own."""
        note = self.sockets / "containerd" / "containerd.pid"
        deadline = time.monotonic() + STOP_SECONDS
        while note.exists() and time.monotonic() < deadline:
            if not _lives(int(note.read_text() or 0)):
                note.unlink(missing_ok=True)
            time.sleep(0.1)

    def restart(self) -> None:
        """Stop and start it, as `systemctl restart docker` does."""
        self.stop()
        self.start()

    def load(self, *references: str) -> None:
        """Bring images from the machine's engine.

        Raises:
            RigProblem: one is missing there, or there is no room here.
        """
        import sh

        try:
            saved = sh.docker("save", *references, _piped=True, _bg_exc=False, _tty_out=False, _return_cmd=True)
            sh.docker("--host", self.url, "load", "--quiet", _in=saved)
            saved.wait()
        except sh.ErrorReturnCode as error:
            raise cache.RigProblem(f"images cannot be brought over: {error}", self.log) from error


def _lives(pid: int) -> bool:
    with contextlib.suppress(psutil.Error):
        return pid > 0 and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


@contextlib.contextmanager
def second_engine(size: str = "") -> Iterator[SecondEngine]:
    """A running engine; root only.

    Args:
        size: of a file system of its own for Docker's root, as mount's tmpfs takes it (`400m`); '' for the disk.

    Raises:
        RigProblem: it does not start.
    """
    home = Path(tempfile.mkdtemp(prefix="platform-rig-", dir=cache.folder("tmp")))
    with contextlib.ExitStack() as undo:
        undo.callback(shutil.rmtree, home, ignore_errors=True)
        undo.callback(cache.unmount_below, home)
        (home / "root").mkdir()
        if size:
            import sh

            sh.mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", home / "root")
        sockets = Path(tempfile.mkdtemp(prefix="rig-", dir="/run"))
        undo.callback(shutil.rmtree, sockets, ignore_errors=True)
        undo.callback(cache.unmount_below, sockets)
        made = SecondEngine(home, undo.enter_context(_network_namespace()), sockets)
        undo.callback(made.stop)
        made.start()
        undo.callback(_remove_containers, made)
        yield made


@contextlib.contextmanager
def _network_namespace() -> Iterator[int]:
    """A process in a network namespace of its own, whose loopback is up."""
    argv = ["unshare", "--net", sys.executable, "-c", _HOLDER]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as holder:
        try:
            if holder.stdout is None or holder.stdout.readline().strip() != "ready":
                raise cache.RigProblem("a network namespace cannot be made")
            yield holder.pid
        finally:
            holder.kill()


def _remove_containers(made: SecondEngine) -> None:
    """A dockerd that was stopped leaves its containers' shims, so the containers go first."""
    ids = made.docker("ps", "--all", "--quiet", check=False).split()
    if ids and all(i.isalnum() for i in ids):
        made.docker("rm", "--force", "--volumes", *ids, check=False)
