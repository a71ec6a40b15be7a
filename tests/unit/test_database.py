from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
from collections.abc import Iterator

import psycopg
import pytest

from infra import database, sqlstate
from infra.errors import PlatformError

URL = "postgresql://ad%40min:hush@127.0.0.1:{port}/platform"

# What can come out of our statements on somebody's server, and the step that gets them on. Written down a second time.
EXPECTED = {
    "08006": ("UNREACHABLE", "invoke status"),
    "0A000": ("SQL_FAILED", "invoke version"),
    "22023": ("SQL_FAILED", "invoke logs -s postgres"),
    "25006": ("SQL_FAILED", "alter system reset default_transaction_read_only"),
    "28000": ("LOGIN_REFUSED", "POSTGRES_PASSWORD"),
    "28P01": ("LOGIN_REFUSED", "POSTGRES_PASSWORD"),
    "3D000": ("NOT_FOUND", "invoke db.init"),
    "40001": ("DATABASE_BUSY", "run the same command again"),
    "40P01": ("DATABASE_BUSY", "run the same command again"),
    "42501": ("LOGIN_REFUSED", "POSTGRES_USER"),
    "42601": ("SQL_FAILED", "--debug"),
    "42704": ("SQL_FAILED", "invoke version"),
    "42P01": ("SQL_FAILED", "invoke train.run"),
    "42P04": ("DATABASE_BUSY", "run the same command again"),
    "53000": ("DATABASE_BUSY", "invoke status"),
    "53100": ("SQL_FAILED", "free space"),
    "53200": ("DATABASE_BUSY", "memory"),
    "53300": ("DATABASE_BUSY", "POSTGRES_MAX_CONNECTIONS"),
    "53400": ("SQL_FAILED", "show all"),
    "54000": ("SQL_FAILED", "invoke logs -s postgres"),
    "55000": ("SQL_FAILED", "alter database platform allow_connections true"),
    "55006": ("DATABASE_BUSY", "pg_stat_activity"),
    "55P03": ("DATABASE_BUSY", "pg_blocking_pids"),
    "57014": ("DATABASE_BUSY", "statement_timeout"),
    "57P01": ("DATABASE_BUSY", "run the same command again"),
    "57P02": ("DATABASE_BUSY", "run the same command again"),
    "57P03": ("DATABASE_BUSY", "invoke status"),
    "57P04": ("NOT_FOUND", "invoke db.databases"),
    "57P05": ("DATABASE_BUSY", "run the same command again"),
    "58030": ("SQL_FAILED", "invoke doctor"),
    "58P01": ("SQL_FAILED", "invoke doctor"),
    "XX000": ("SQL_FAILED", "invoke db.backup"),
    "XX001": ("SQL_FAILED", "invoke db.restore"),
    "XX002": ("SQL_FAILED", "invoke db.restore"),
}


@pytest.fixture(autouse=True)
def own_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "_set_aside", {})


def _packet(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!I", len(body) + 4) + body


@contextlib.contextmanager
def refusing(state: str, text: str, severity: str = "FATAL") -> Iterator[int]:
    """A server that speaks PostgreSQL's protocol as far as a refusal; yields its port."""
    fields = {b"S": severity, b"V": "FATAL", b"C": state, b"M": text}
    error = _packet(b"E", b"".join(k + v.encode() + b"\0" for k, v in fields.items()) + b"\0")

    def serve(listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                link, _ = listener.accept()
                with link:
                    while True:
                        size, code = struct.unpack("!II", link.recv(8, socket.MSG_WAITALL))
                        link.recv(size - 8)
                        if code not in (80877103, 80877104):  # not asked for encryption
                            break
                        link.sendall(b"N")
                    link.sendall(error)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, args=(listener,), daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def failed(port: int) -> PlatformError:
    url = URL.format(port=port)
    with pytest.raises(PlatformError) as caught, database.session(url, "look around", name="test"):
        pass
    return caught.value


def made(state: str) -> PlatformError:
    error = psycopg.errors.lookup(state)("something is wrong\nDETAIL:  much")
    return database.failure(error, URL.format(port=5432), "look around")


@pytest.mark.parametrize(("state", "expected"), EXPECTED.items())
def test_each_sqlstate_is_kept_and_has_a_step_that_helps(state: str, expected: tuple[str, str]) -> None:
    error = made(state)
    assert (error.code, error.details["sqlstate"]) == (expected[0], state)
    assert any(expected[1] in step for step in error.steps), error.steps
    assert state in error.why
    assert "hush" not in error.what + error.why


def test_whatever_a_server_says_its_words_its_sqlstate_and_a_step_are_told() -> None:
    codes = (getattr(named, "sqlstate", None) for named in vars(psycopg.errors).values())
    known = {code for code in codes if isinstance(code, str)}
    assert len(known) > 250  # appendix A of PostgreSQL's manual
    for state in known:
        error = made(state)
        assert error.steps, state
        assert f"(SQLSTATE {state})" in error.why
        assert (error.code == "UNREACHABLE") == state.startswith("08")


def test_every_row_of_the_advice_is_tried_here() -> None:
    assert {row for row in sqlstate.ADVICE if not any(state.startswith(row) for state in EXPECTED)} == set()


def test_only_a_server_that_does_not_answer_is_unreachable() -> None:
    assert {state[:2] for state, (code, _) in EXPECTED.items() if code == "UNREACHABLE"} == {"08"}


@pytest.mark.parametrize(
    ("state", "text", "code"),
    [
        ("53300", "sorry, too many clients already", "DATABASE_BUSY"),
        ("53300", "remaining connection slots are reserved for roles with the SUPERUSER attribute", "DATABASE_BUSY"),
        ("28P01", 'password authentication failed for user "admin"', "LOGIN_REFUSED"),
        ("28000", 'no pg_hba.conf entry for host "172.17.0.1"', "LOGIN_REFUSED"),
        ("28000", 'role "admin" does not exist', "LOGIN_REFUSED"),
        ("3D000", 'database "platform" does not exist', "NOT_FOUND"),
        ("57P03", "the database system is starting up", "DATABASE_BUSY"),
        ("57P03", "the database system is not yet accepting connections", "DATABASE_BUSY"),
        ("55000", 'database "platform" is not currently accepting connections', "SQL_FAILED"),
        ("42501", 'permission denied for database "platform"', "LOGIN_REFUSED"),
    ],
)
def test_a_server_that_refuses_a_connection_is_not_called_silent(state: str, text: str, code: str) -> None:
    with refusing(state, text) as port:
        error = failed(port)
    assert (error.code, error.details["sqlstate"]) == (code, state)
    assert error.why.startswith(f"{text} (SQLSTATE {state})")
    assert f"ad@min@127.0.0.1:{port}, database platform" in error.what


def test_a_refusal_in_another_language_is_an_answer_too() -> None:
    with refusing("55000", "무언가 잘못됨", severity="치명적오류") as port:
        error = failed(port)
    assert (error.code, error.why) == ("SQL_FAILED", "무언가 잘못됨")


def test_nobody_there_is_unreachable_and_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    error = failed(port)
    assert error.code == "UNREACHABLE"
    assert f"127.0.0.1:{port}" in error.what


def test_a_connection_that_breaks_is_unreachable() -> None:
    error = psycopg.OperationalError("server closed the connection unexpectedly\n\tThis probably means")
    assert database.failure(error, URL.format(port=1), "look").code == "UNREACHABLE"
    assert database.failure(psycopg.InterfaceError("the connection is closed"), URL.format(port=1), "look").code == (
        "UNREACHABLE"
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PGHOSTADDR", "127.0.0.2"),
        ("PGSERVICE", "nobody-knows"),
        ("PGTZ", "No/Where"),
        ("PGSSLMODE", "require"),
        ("PGOPTIONS", "-c nonsense"),
        ("PGREQUIREAUTH", "none"),
        ("PGTARGETSESSIONATTRS", "standby"),
        ("PGCONNECT_TIMEOUT", "x"),
        ("PGPORT", "1"),
    ],
)
def test_variables_of_the_caller_steer_no_connection(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    with refusing("53300", "sorry, too many clients already") as port:
        error = failed(port)
    assert (error.code, error.details["server"]) == ("DATABASE_BUSY", f"127.0.0.1:{port}")
    assert name not in os.environ
    assert database.foreign() == [name]
    assert database.callers_environment()[name] == value
