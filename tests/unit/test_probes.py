from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from infra import probes, waiting
from infra.probes import Finding
from tests.unit.helpers import answering, free_port, script, serving


def asked(handle: Callable[[socket.socket], None], kind: str, limit: float = 5.0, **more: Any) -> Finding:
    """The finding of a probe against a server that behaves like this."""
    with serving(handle) as port:
        return probes.check({"kind": kind, "host": "127.0.0.1", "port": port, **more}, limit)


def silent(link: socket.socket) -> None:
    while link.recv(65536):
        pass


def hanging_up(link: socket.socket) -> None:
    link.recv(65536)


def http(status: str, body: bytes = b"") -> Callable[[socket.socket], None]:
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return answering(head.encode() + body)


NETWORKED: Mapping[str, dict[str, Any]] = {
    "http": {},
    "redis": {},
    "s3": {"access_key": "k", "secret_key": "s"},
    "s3-write": {"access_key": "k", "secret_key": "s", "bucket": "b"},
}


# --- what holds for every kind that goes over the network


@pytest.mark.parametrize("kind", ["tcp", *NETWORKED])
def test_nobody_listens(kind: str) -> None:
    probe = {"kind": kind, "host": "127.0.0.1", "port": free_port(), **NETWORKED.get(kind, {})}
    assert probes.check(probe) == Finding(False, "connection refused")


@pytest.mark.parametrize("kind", NETWORKED)
def test_a_server_that_never_answers_is_a_time_out_and_not_the_end(kind: str) -> None:
    assert asked(silent, kind, 0.1, **NETWORKED[kind]) == Finding(False, "no answer in time")


@pytest.mark.parametrize("kind", NETWORKED)
def test_a_server_that_hangs_up_gives_a_reason(kind: str) -> None:
    finding = asked(hanging_up, kind, **NETWORKED[kind])
    assert (finding.ok, finding.fatal) == (False, False)
    assert finding.detail


@pytest.mark.parametrize("kind", NETWORKED)
def test_a_server_of_another_kind_is_not_taken_for_ours(kind: str) -> None:
    finding = asked(answering(b"220 smtp.example.org ESMTP\r\n"), kind, **NETWORKED[kind])
    assert (finding.ok, finding.fatal) == (False, False)
    assert finding.detail


@pytest.mark.parametrize("path", ["/한글", "/two words", "/a\nb"])
def test_a_question_that_cannot_be_asked_is_an_answer_too(path: str) -> None:
    """The supervisor's threads ask; an exception there would leave a service without its supervision."""
    assert not asked(http("200 OK"), "http", path=path).ok


# --- process and tcp


def test_a_process_needs_no_answer() -> None:
    assert probes.check({"kind": "process"}).ok


def test_tcp_is_content_with_a_connection() -> None:
    assert asked(silent, "tcp").ok


# --- http


def test_http_200_is_up() -> None:
    assert asked(http("200 OK", b"fine"), "http") == Finding(True)


@pytest.mark.parametrize("status", ["404 Not Found", "503 Service Unavailable", "302 Found", "204 No Content"])
def test_any_other_status_is_not(status: str) -> None:
    finding = asked(http(status, b"" if status[0] == "2" else b"not yet"), "http", path="/x")
    assert not finding.ok
    assert finding.detail.startswith(f"HTTP {status[:3]}:")
    assert not finding.fatal


def test_the_reason_in_the_body_is_told() -> None:
    assert asked(http("503 x", b"namespace not found"), "http").detail == "HTTP 503: namespace not found"


@pytest.mark.parametrize(("wanted", "ok"), [("needle", True), ("other", False)])
def test_http_can_ask_for_a_word(wanted: str, ok: bool) -> None:
    finding = asked(http("200 OK", b"a needle in it"), "http", contains=wanted)
    assert finding.ok is ok
    assert ok or "other" in finding.detail


def test_the_path_is_asked_for() -> None:
    seen: list[bytes] = []

    def handle(link: socket.socket) -> None:
        seen.append(link.recv(65536))
        link.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    assert asked(handle, "http", path="/-/ready").ok
    assert seen[0].startswith(b"GET /-/ready HTTP/1.1\r\n")


# --- redis


def test_redis_that_answers_pong() -> None:
    assert asked(answering(b"+PONG\r\n"), "redis") == Finding(True)


def test_redis_with_the_right_password() -> None:
    seen: list[bytes] = []

    def handle(link: socket.socket) -> None:
        for answer in (b"+OK\r\n", b"+PONG\r\n"):
            seen.append(link.recv(512))
            link.sendall(answer)

    assert asked(handle, "redis", password="pä ss").ok
    assert seen == [b"*2\r\n$4\r\nAUTH\r\n$6\r\np\xc3\xa4 ss\r\n", b"*1\r\n$4\r\nPING\r\n"]


@pytest.mark.parametrize(
    ("password", "answer"),
    [
        ("", b"-NOAUTH Authentication required.\r\n"),
        ("x", b"-WRONGPASS invalid username-password pair or user is disabled.\r\n"),
        ("x", b"-ERR AUTH <password> called without any password configured for the default user.\r\n"),
        ("x", b"-ERR Client sent AUTH, but no password is set\r\n"),
        ("x", b"-ERR invalid password\r\n"),
    ],
)
def test_a_login_that_redis_refuses_cannot_be_waited_out(password: str, answer: bytes) -> None:
    finding = asked(answering(answer), "redis", password=password)
    assert (finding.ok, finding.fatal) == (False, True)
    assert finding.detail == answer.decode().strip().lstrip("-")


@pytest.mark.parametrize(
    "answer",
    [b"-LOADING Redis is loading the dataset in memory\r\n", b"-BUSY script\r\n", b"-MASTERDOWN x\r\n"],
)
@pytest.mark.parametrize("password", ["", "x"])
def test_a_redis_that_still_loads_is_waited_for(answer: bytes, password: str) -> None:
    answers = [b"+OK\r\n", answer] if password else [answer]
    finding = asked(answering(*answers), "redis", password=password)
    assert (finding.ok, finding.fatal) == (False, False)
    assert finding.detail == answer.decode().strip().lstrip("-")


def test_a_redis_with_too_many_clients_has_not_refused_the_login() -> None:
    assert not asked(answering(b"-ERR max number of clients reached\r\n"), "redis").fatal


# --- s3

LOGIN = NETWORKED["s3"]


def test_s3_that_lists_its_buckets() -> None:
    assert asked(http("200 OK", b"<ListAllMyBucketsResult/>"), "s3", **LOGIN) == Finding(True)


@pytest.mark.parametrize("kind", ["s3", "s3-write"])
@pytest.mark.parametrize(
    ("status", "fatal"), [("403 Forbidden", True), ("401 x", True), ("503 x", False), ("500 x", False)]
)
def test_s3_that_refuses_is_told_from_one_that_is_not_ready(kind: str, status: str, fatal: bool) -> None:
    finding = asked(http(status, b"<Code>InvalidAccessKeyId</Code>"), kind, **NETWORKED[kind])
    assert finding == Finding(False, f"HTTP {status[:3]} <Code>InvalidAccessKeyId</Code>", fatal)


class Bucket:
    """A store that keeps one object for as long as one connection each lasts."""

    def __init__(self, *, spoil: bytes = b"", deletes: bool = True) -> None:
        self.objects: dict[bytes, bytes] = {}
        self.spoil, self.deletes = spoil, deletes

    def __call__(self, link: socket.socket) -> None:
        head, body = self._request(link)
        method, path, _ = head.split(b" ", 2)
        if method == b"PUT":
            self.objects[path] = body + self.spoil
        found = self.objects.get(path, b"")
        if method == b"DELETE" and self.deletes:
            del self.objects[path]
        link.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(found), found))

    def _request(self, link: socket.socket) -> tuple[bytes, bytes]:
        data = link.recv(65536)
        while b"\r\n\r\n" not in data or (data.startswith(b"PUT") and len(data.split(b"\r\n\r\n", 1)[1]) < 64):
            data += link.recv(65536)
        head, _, body = data.partition(b"\r\n\r\n")
        return head, body


def test_a_written_object_comes_back_and_is_gone_afterwards() -> None:
    bucket = Bucket()
    assert asked(bucket, "s3-write", **NETWORKED["s3-write"]) == Finding(True)
    assert bucket.objects == {}


def test_an_object_that_comes_back_changed_is_found_out() -> None:
    finding = asked(Bucket(spoil=b"x"), "s3-write", **NETWORKED["s3-write"])
    assert (finding.ok, finding.detail) == (False, "an object was read back with different content")


# --- sql

pytestmark_sql = pytest.mark.skipif(os.name == "nt", reason="psql is played by a shell script")


def sql(psql: Path, limit: float = 5.0, **more: Any) -> Finding:
    login = {"host": "127.0.0.1", "port": 5, "user": "o'brien\\x", "password": "geheim", "database": "users"}
    return probes.check({"kind": "sql", "psql": str(psql), **login, **more}, limit)


@pytestmark_sql
def test_sql_asks_psql_for_one_row(tmp_path: Path) -> None:
    psql = script(
        tmp_path / "psql", f'printf "%s\\n" "$@" > {tmp_path}/said; echo "$PGPASSWORD" >> {tmp_path}/said; echo 1'
    )
    assert sql(psql) == Finding(True)
    said = (tmp_path / "said").read_text().splitlines()
    assert "host=127.0.0.1 port=5 user='o\\'brien\\\\x' dbname=users" in said
    assert said[-1] == "geheim"
    assert said.count("geheim") == 1, "the password must not be an argument"
    assert "-w" in said, "it must never ask for a password"


@pytestmark_sql
def test_a_database_that_recovers_is_told_from_one_that_is_shut_down(tmp_path: Path) -> None:
    said = "psql: error: failed: FATAL:  the database system is %s\\nDETAIL:  Consistent recovery state is not reached."
    states = ("not yet accepting connections", "starting up", "in recovery mode", "shutting down")
    answers = [sql(script(tmp_path / "psql", f"printf '{said % state}' >&2; exit 2")) for state in states]
    assert [waiting.recovering(a.detail) for a in answers] == [True, True, True, False]
    assert all("DETAIL" not in a.detail for a in answers)
    assert waiting.recovering("LOADING Redis is loading the dataset in memory")


@pytestmark_sql
def test_variables_of_the_caller_do_not_steer_psql(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGSERVICE", "elsewhere")
    monkeypatch.setenv("PGPASSFILE", "/x")
    monkeypatch.setenv("LC_ALL", "ko_KR.UTF-8")
    psql = script(tmp_path / "psql", 'echo "${PGSERVICE:-}${PGPASSFILE:-}$LC_ALL" >&2; exit 2')
    assert sql(psql).detail == "C", "and its messages must be the English ones that are looked for"


@pytestmark_sql
@pytest.mark.parametrize(
    ("said", "fatal"),
    [
        ('FATAL:  password authentication failed for user "admin"', True),
        ("fe_sendauth: no password supplied", True),
        ("FATAL:  the database system is starting up", False),
        ('FATAL:  database "users" does not exist', False),
        ("connection refused", False),
    ],
)
def test_what_psql_says_is_told_and_judged(tmp_path: Path, said: str, fatal: bool) -> None:
    psql = script(tmp_path / "psql", f"echo 'psql: error: first line' >&2; echo '{said}' >&2; exit 2")
    assert sql(psql) == Finding(False, said, fatal)


@pytestmark_sql
def test_another_answer_than_the_row_is_not_up(tmp_path: Path) -> None:
    assert sql(script(tmp_path / "psql", "echo 2")) == Finding(False, "no answer")


@pytestmark_sql
def test_a_psql_that_hangs_is_a_time_out(tmp_path: Path) -> None:
    assert sql(script(tmp_path / "psql", "exec sleep 60"), limit=-0.8) == Finding(False, "no answer in time")


def test_a_psql_that_is_not_there_is_a_reason_and_not_a_crash(tmp_path: Path) -> None:
    finding = sql(tmp_path / "psql")
    assert not finding.ok
    assert "psql" in finding.detail
