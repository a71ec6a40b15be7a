"""Ports on 127.0.0.1: which are taken, by whom, and which setting moves them."""

from __future__ import annotations

import contextlib
import errno
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import psutil


@dataclass(frozen=True)
class Claim:
    """A port that a service is about to use, and the setting that moves it."""

    service: str
    setting: str
    port: int


@dataclass(frozen=True)
class Holder:
    """The process that listens on a port; pid None where the system does not tell."""

    pid: int | None = None
    name: str = ""
    stack_home: Path | None = None


@dataclass(frozen=True)
class Conflict:
    """A port that is not available: taken by `holder`, or not allowed (`reason`)."""

    claim: Claim
    holder: Holder
    reason: str = ""


def blocked(host: str, port: int) -> str:
    """Tell why a server could not listen there; '' when it could."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        if sys.platform != "win32":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError as error:
            return _reason(error)
    return ""


def _reason(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "taken"
    if error.errno == errno.EACCES:
        return (
            "not allowed for this user, or reserved by the system (Windows: netsh int ipv4 show excludedportrange tcp)"
        )
    return error.strerror or str(error)


def conflicts(host: str, claims: Sequence[Claim]) -> list[Conflict]:
    """Check all claims at once and return those that are taken."""
    bad = [(claim, reason) for claim in claims if (reason := blocked(host, claim.port))]
    if not bad:
        return []
    holders = listeners()
    return [Conflict(claim, holders.get(claim.port, Holder()), "" if r == "taken" else r) for claim, r in bad]


def listeners() -> Mapping[int, Holder]:
    """Return who listens on which TCP port, as far as this user may know."""
    import psutil

    found: dict[int, Holder] = {}
    with contextlib.suppress(psutil.Error, OSError):
        for link in psutil.net_connections("tcp"):
            if link.status == psutil.CONN_LISTEN and link.laddr and link.laddr.port not in found:
                found[link.laddr.port] = _holder(link.pid)
    return found


def listening(pid: int) -> set[int]:
    """Return the TCP ports that a process listens on; none where the system does not tell."""
    import psutil

    with contextlib.suppress(psutil.Error, OSError):
        links = psutil.Process(pid).net_connections("tcp")
        return {link.laddr.port for link in links if link.status == psutil.CONN_LISTEN}
    return set()


SUPERVISORS = frozenset({"infra.supervision.supervisor", "infra.tiers.supervisor"})
"""Names of the supervisor's module: now, and up to version 0.1, whose supervisors may still run."""


def _holder(pid: int | None) -> Holder:
    import psutil

    if pid is None:
        return Holder()
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        return Holder(pid, process.name(), _stack_home(process))
    return Holder(pid)


def _stack_home(process: psutil.Process) -> Path | None:
    """Return the state directory of the stack that a process belongs to: by its directory, or its supervisor."""
    import psutil

    with contextlib.suppress(psutil.Error, OSError):
        cwd = Path(process.cwd())
        for directory in [cwd, *cwd.parents]:
            if (directory / "desired.json").exists():
                return directory.parent
        for ancestor in process.parents():
            words = ancestor.cmdline()
            if not SUPERVISORS.isdisjoint(words):
                return Path(words[-1]).parent
    return None
