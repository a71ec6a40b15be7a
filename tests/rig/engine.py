"""A Docker engine on a machine that has none: Debian's packages, started by hand, and the Compose plugin."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from pathlib import Path

from tests.rig import cache, parts

SOCKET = Path("/var/run/docker.sock")
PROGRAMS = {"dockerd": "docker.io", "docker": "docker.io", "iptables": "iptables", "debootstrap": "debootstrap"}
"""Program -> the Debian package that brings it."""

PID_FILES = {
    Path("/var/run/docker.pid"): "dockerd",
    Path("/var/run/docker/containerd/containerd.pid"): "containerd",
}
PLUGIN_SUITE = "sid"
PLUGIN_HOME = Path("usr/libexec/docker/cli-plugins")
START_SECONDS = 60
_PATH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin"))


def find(program: str) -> str | None:
    """Where a program is; the directories of system programs count even where PATH lacks them."""
    return shutil.which(program, path=_PATH)


def env() -> dict[str, str]:
    """The environment for dockerd, which must find the programs of the system directories."""
    return {**os.environ, "PATH": _PATH}


def answers() -> bool:
    """Whether an engine answers on the default socket, or on DOCKER_HOST."""
    return cache.output(["docker", "version", "--format", "{{.Server.Version}}"]) is not None


def missing() -> list[str]:
    """The Debian packages of programs that are not there."""
    return sorted({package for program, package in PROGRAMS.items() if not find(program)})


def install(log: Path) -> None:
    """Install the Debian packages of the programs that are missing.

    Raises:
        RigProblem: not root, no apt-get, or it failed.
    """
    packages = missing()
    if not packages:
        return
    if os.geteuid() != 0 or not find("apt-get"):
        raise cache.RigProblem(f"{', '.join(packages)} must be installed first (this needs root and apt-get)")
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    cache.run(["apt-get", "update", "-qq"], log, env=quiet)
    cache.run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages], log, env=quiet)


def start(log: Path) -> None:
    """Start dockerd in a session of its own unless an engine answers already; it goes on after this process.

    Raises:
        RigProblem: it ended, or did not answer within a minute.
    """
    if answers():
        return
    _forget_dead()
    with open(log, "ab") as out:
        daemon = subprocess.Popen(
            [find("dockerd") or "dockerd"],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
            env=env(),
        )
    (cache.folder() / "dockerd.pid").write_text(f"{daemon.pid}\n", encoding="utf-8")
    _wait_for(daemon, log)
    _quieten(log)


def _forget_dead() -> None:
    """Remove pid files of a killed engine: a number that another process has by now would keep it from starting."""
    for path, name in PID_FILES.items():
        with contextlib.suppress(OSError):
            pid = path.read_text(encoding="utf-8").strip()
            comm = Path("/proc", pid, "comm")
            if not comm.exists() or comm.read_text(encoding="utf-8").strip() != name:
                path.unlink()


def _quieten(log: Path) -> None:
    """Stop what the engine brought back: stacks of a run that was cut short would take ports and memory."""
    ids = (cache.output(["docker", "ps", "--quiet"]) or "").split()
    if ids:
        print(f"rig: {len(ids)} containers of an earlier run came back with the engine; stopping them", flush=True)
        cache.run(["docker", "stop", "--time", "10", *ids], log)


def _wait_for(daemon: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not answers():
        if daemon.poll() is not None:
            raise cache.RigProblem(f"dockerd ended with {daemon.returncode}", log)
        if time.monotonic() > deadline:
            raise cache.RigProblem(f"dockerd does not answer after {START_SECONDS} s", log)
        time.sleep(0.2)


def compose_version() -> str | None:
    """The version of the Compose plugin that `docker` finds; None without one."""
    return cache.output(["docker", "compose", "version", "--short"])


def install_compose(log: Path) -> None:
    """Put Debian's current Compose plugin where `docker` finds it, unless one is there.

    Raises:
        RigProblem: it is not available.
    """
    if compose_version():
        return
    package = parts.ready(parts.Debs(("docker-compose",), PLUGIN_SUITE, "compose"), "engine", log)
    plugins = Path.home() / ".docker" / "cli-plugins"
    plugins.mkdir(parents=True, exist_ok=True)
    link = plugins / "docker-compose"
    link.unlink(missing_ok=True)
    link.symlink_to(package / PLUGIN_HOME / "docker-compose")
    if not compose_version():
        raise cache.RigProblem(f"{link} does not work", log)
