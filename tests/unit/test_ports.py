from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from infra import ports
from infra.ports import Claim, Holder
from tests.unit.helpers import free_port

HOST = "127.0.0.1"


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server((HOST, 0)) as server:
        yield server.getsockname()[1]


def test_a_free_port_is_free_and_stays_so() -> None:
    port = free_port()
    assert ports.blocked(HOST, port) == ""
    assert ports.conflicts(HOST, [Claim("redis", "REDIS_PORT", port)]) == []
    with socket.create_server((HOST, port)):
        pass


def test_a_taken_port_names_our_own_process(taken: int) -> None:
    claim = Claim("redis", "REDIS_PORT", taken)
    (conflict,) = ports.conflicts(HOST, [claim])
    assert (conflict.claim, conflict.reason) == (claim, "")
    assert conflict.holder == Holder(os.getpid(), psutil.Process().name(), None)


def test_all_conflicts_are_found_at_once(taken: int) -> None:
    with socket.create_server((HOST, 0)) as second:
        numbers = [taken, free_port(), second.getsockname()[1]]
        found = ports.conflicts(HOST, [Claim(str(n), "X", n) for n in numbers])
    assert [c.claim.port for c in found] == [numbers[0], numbers[2]]


def test_a_listener_on_every_address_takes_ours_too() -> None:
    with socket.create_server(("0.0.0.0", 0)) as server:
        assert ports.blocked(HOST, server.getsockname()[1]) == "taken"


def test_a_connection_that_has_just_ended_does_not_block_its_port() -> None:
    """The port of a server that was stopped a moment ago is in TIME_WAIT; a new start must not wait for it."""
    with socket.create_server((HOST, 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection((HOST, port)):
            link, _ = server.accept()
            link.close()
    assert ports.blocked(HOST, port) == ""


@pytest.mark.parametrize(
    ("number", "words"), [(errno.EACCES, ("not allowed", "excludedportrange")), (errno.EADDRNOTAVAIL, ("assign",))]
)
def test_a_port_that_may_not_be_used_is_told_from_a_taken_one(
    monkeypatch: pytest.MonkeyPatch, number: int, words: tuple[str, ...]
) -> None:
    class Refusing(socket.socket):
        def bind(self, address: object) -> None:
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(socket, "socket", Refusing)
    (conflict,) = ports.conflicts(HOST, [Claim("redis", "REDIS_PORT", 80)])
    assert all(word in conflict.reason for word in words)
    assert conflict.holder.pid is None or conflict.reason


def test_a_system_that_does_not_tell_leaves_the_holder_open(taken: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(kind: str) -> list[object]:
        raise psutil.AccessDenied

    monkeypatch.setattr(psutil, "net_connections", silent)
    (conflict,) = ports.conflicts(HOST, [Claim("redis", "REDIS_PORT", taken)])
    assert conflict.holder == Holder()


def test_a_holder_that_ends_meanwhile_keeps_its_pid(monkeypatch: pytest.MonkeyPatch) -> None:
    with subprocess.Popen([sys.executable, "-S", "-c", ""]) as gone:
        pass
    link = SimpleNamespace(status=psutil.CONN_LISTEN, laddr=SimpleNamespace(port=1), pid=gone.pid)
    monkeypatch.setattr(psutil, "net_connections", lambda kind: [link])
    assert ports.listeners() == {1: Holder(gone.pid)}


_SUPERVISED = """
import subprocess, sys
server = "s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True)"
listen = f"import socket, sys; {server}; sys.stdin.read()"
subprocess.run([sys.executable, "-S", "-c", listen])
"""


@pytest.mark.parametrize("module", ["infra.supervision.supervisor", "infra.tiers.supervisor"])
def test_a_service_of_another_stack_is_recognised_by_its_supervisor(tmp_path: Path, module: str) -> None:
    """What stands for the supervisor has its command line: a name of its module (the earlier one, too), a directory."""
    command = [sys.executable, "-S", "-c", _SUPERVISED, module, str(tmp_path / "native")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as supervisor:
        assert supervisor.stdout is not None
        port = int(supervisor.stdout.readline())
        (conflict,) = ports.conflicts(HOST, [Claim("redis", "REDIS_PORT", port)])
        supervisor.communicate()
    assert conflict.holder.stack_home == tmp_path
