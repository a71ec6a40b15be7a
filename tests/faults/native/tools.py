"""What the fault tests of the native tier have in common: data to lose, moments to strike, and looking closely."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import psycopg
import redis
from psycopg import sql
from redis.backoff import NoBackoff
from redis.retry import Retry
from temporalio import workflow
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from infra import catalog, endpoints, rows, settings
from infra.endpoints import Endpoints
from infra.sigv4 import Store
from infra.tiers.native import services as native_services
from infra.tiers.native.services import CORE
from tests.faults.conftest import Victim
from tests.smoke.stage import HANG, Completed

ROWS, KEYS = 50, 50


def until(
    what: str, condition: Callable[[], object], limit: float = HANG, instead: Callable[[], object] = lambda: ""
) -> None:
    """Wait until a condition holds; the test fails, saying what there is `instead`, when it never does."""
    end = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < end, f"in vain: waited for {what}; there is {instead()}"
        time.sleep(0.01)


# --- the command line


def start(victim: Victim, *arguments: str, **env: str) -> subprocess.Popen[str]:
    """Run `invoke ...` beside the test, in a session (and process group) of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "invoke", *arguments],
        cwd=victim.stage.root,
        env=victim.env | env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    )


def ended(process: subprocess.Popen[str]) -> Completed:
    """What that run said, once it has ended."""
    try:
        out, err = process.communicate(timeout=HANG)
    finally:
        process.kill()
    return Completed(process.args, process.returncode, out, err)


def answer(victim: Victim, *arguments: str) -> tuple[int, dict[str, Any]]:
    """Exit code and JSON envelope of a command."""
    done = victim.invoke(*arguments, "--output", "json", timeout=HANG)
    return done.returncode, json.loads(done.stdout)


def refused(done: Completed, code: int, *words: str) -> str:
    """Check how a command ended: its exit code, that its message has these words and a next step, no traceback.

    Returns what it said.
    """
    said = done.stderr + done.stdout
    assert done.returncode == code, f"ended with {done.returncode} instead of {code}:\n{said}"
    missing = [word for word in words if word not in said]
    assert not missing, f"{missing} not in:\n{said}"
    assert f"(exit {code})" in said, said
    assert "next: " in said, said
    assert "Traceback" not in said, said
    return said


def with_settings(victim: Victim, **changed: str) -> Victim:
    """The same platform, with commands that get other settings."""
    made = victim.stage
    return Victim(type(made)(made.tier, made.home, {**made.env, **changed}, made.root))


# --- processes


def process_of(victim: Victim, service: str) -> psutil.Process:
    """The live process of a service, or of the supervisor."""
    return psutil.Process(victim.pid(service))


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    with contextlib.suppress(psutil.Error):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def pids(victim: Victim, *names: str) -> dict[str, int]:
    """The processes of services (all of the core if none is named)."""
    return {name: victim.pid(name) for name in names or CORE}


def is_ready(victim: Victim, service: str, old: int = 0) -> bool:
    """Whether a service is ready, with another pid than `old`."""
    entry = victim.state().get("services", {}).get(service, {})
    return entry.get("state") == "ready" and entry.get("pid") != old and alive(entry["pid"])


def whole(victim: Victim) -> bool:
    """Whether the supervisor and all core services run and are ready."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        return alive(victim.pid("supervisor")) and all(is_ready(victim, name) for name in CORE)
    return False


def roots(victim: Victim) -> list[psutil.Process]:
    """The supervisors and services that run: processes of the stack that no other service has started."""
    found = {p.pid: p for p in victim.stage.left_over()}
    supervisors = {pid for pid, p in found.items() if is_supervisor(p)}
    return [p for p in found.values() if _parent(p) in supervisors or _parent(p) not in found]


def _parent(process: psutil.Process) -> int:
    with contextlib.suppress(psutil.Error):
        return process.ppid()
    return 0


def is_supervisor(process: psutil.Process) -> bool:
    """Whether a process is a supervisor."""
    with contextlib.suppress(psutil.Error):
        return "infra.supervision.supervisor" in process.cmdline()
    return False


def assert_runs_once(victim: Victim) -> None:
    """One supervisor and one process of each core service run: no orphan, no duplicate."""
    expected = {victim.pid("supervisor"), *pids(victim).values()}
    # Helpers that live for a moment (a probe's psql) are children of the supervisor too.
    until(
        f"just {expected} to run",
        lambda: {p.pid for p in roots(victim)} == expected,
        HANG,
        lambda: "\n".join(f"{p.pid} {p.ppid()} {' '.join(p.cmdline())[:150]}" for p in roots(victim)),
    )


def assert_nothing_runs(victim: Victim) -> None:
    """Nothing of the platform runs, after at most a moment for what is just ending."""
    until(f"nothing to run, but there are {victim.left_over()}", lambda: not victim.stage.left_over())


@contextlib.contextmanager
def bystander(uid: int | None = None) -> Iterator[psutil.Process]:
    """An innocent process, the leader of a session of its own; of another user where root asks for that."""
    other = None if uid in (None, os.getuid()) else uid
    with subprocess.Popen(["sleep", "1000"], cwd="/", start_new_session=True, user=other) as process:
        try:
            yield psutil.Process(process.pid)
        finally:
            process.kill()


@contextlib.contextmanager
def listener(*ports: int) -> Iterator[int]:
    """A stranger that listens on ports; yields its pid."""
    code = (
        "import socket, sys, time\n"
        "links = [socket.create_server(('127.0.0.1', int(p))) for p in sys.argv[1:]]\n"
        "print('listening', flush=True)\n"
        "time.sleep(1000)\n"
    )
    argv = [sys.executable, "-c", code, *map(str, ports)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, encoding="utf-8") as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().strip() == "listening"
            yield process.pid
        finally:
            process.kill()


def kill_all(victim: Victim, *names: str) -> None:
    """kill -9 of several at once; returns when they are gone."""
    doomed = [process_of(victim, name) for name in names]
    for process in doomed:
        process.send_signal(signal.SIGKILL)
    until(f"the end of {names}", lambda: not any(alive(p.pid) for p in doomed))


# --- files


def fingerprint(directory: Path) -> dict[str, str]:
    """Every file below a directory with owner, mode and SHA-256."""
    found = {}
    for path in sorted(directory.rglob("*")):
        status = path.lstat()
        digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        found[str(path.relative_to(directory))] = f"{status.st_uid} {status.st_mode:o} {digest}"
    return found


def data_directories(victim: Victim) -> dict[str, Path]:
    """Where each core service keeps its data."""
    loaded = settings.load(environ=victim.env)
    home = victim.stack_home / "native"
    found = native_services.programs(loaded, home, "")
    builder = native_services.Builder(loaded, endpoints.build(loaded, CORE), home, found)
    return {name: builder.data(name) for name in CORE}


# --- data that must not be lost


@workflow.defn
class Blocked:
    """Waits until a word says how to end."""

    def __init__(self) -> None:
        self.word = ""
        self.waits = False

    @workflow.run
    async def run(self) -> str:
        self.waits = True
        await workflow.wait_condition(lambda: bool(self.word))
        return self.word

    @workflow.signal
    def tell(self, word: str) -> None:
        self.word = word

    @workflow.query
    def waiting(self) -> bool:
        return self.waits


@dataclass
class Deposit:
    """Things that were stored in every service, and the question whether they are still there."""

    victim: Victim
    mark: str = field(default_factory=lambda: uuid.uuid4().hex[:12])

    @property
    def ends(self) -> Endpoints:
        """Where the services are, by the settings of the platform's commands."""
        return endpoints.build(settings.load(environ=self.victim.env), CORE)

    def put(self) -> Deposit:
        """Store rows, keys, objects and a running workflow; each is acknowledged when this returns."""
        for database in catalog.DATABASES:
            with psycopg.connect(self.ends.database_url(database.name)) as link:
                link.execute(sql.SQL("create table {} (n int, t text)").format(self._table))
                insert = sql.SQL("insert into {} select n, 'row ' || n from generate_series(1, %s) n")
                link.execute(insert.format(self._table), (ROWS,))
        with self.redis() as client:
            client.mset({f"{self.mark}:{n}": f"value {n}" for n in range(KEYS)})
        for bucket in catalog.BUCKETS:
            reply = self.store(bucket).request("PUT", f"/{bucket.name}/{self.mark}", self._body(bucket), limit=60.0)
            assert reply.status == 200, reply
        asyncio.run(self._start())
        return self

    def check(self, redis_too: bool = True) -> None:
        """Everything is still there, to the last byte."""
        for database in catalog.DATABASES:
            with psycopg.connect(self.ends.database_url(database.name)) as link:
                rows = link.execute(sql.SQL("select n, t from {} order by n").format(self._table)).fetchall()
            assert rows == [(n, f"row {n}") for n in range(1, ROWS + 1)], database.name
        if redis_too:
            with self.redis() as client:
                assert client.mget([f"{self.mark}:{n}" for n in range(KEYS)]) == [f"value {n}" for n in range(KEYS)]
        for bucket in catalog.BUCKETS:
            reply = self.store(bucket).request("GET", f"/{bucket.name}/{self.mark}")
            assert (reply.status, reply.body) == (200, self._body(bucket)), bucket.name
        assert asyncio.run(self._status()) is WorkflowExecutionStatus.RUNNING

    def redis(self, **login: Any) -> redis.Redis:
        """A client of Redis; `password` may be another than the one of the settings."""
        asked: dict[str, Any] = {"password": self.ends.password("redis") or None, **login}
        asked |= {"decode_responses": True, "retry": Retry(NoBackoff(), 0)}  # a refusal is an answer too
        return redis.Redis(host=self.ends.host, port=self.ends.port("redis"), **asked)

    def store(self, bucket: rows.Bucket) -> Store:
        """A client of the store that holds a bucket."""
        login = self.ends.store
        return Store(self.ends.host, self.ends.port(bucket.store, "api"), login.user, login.password)

    @property
    def _table(self) -> sql.Identifier:
        return sql.Identifier(f"fault_{self.mark}")

    def _body(self, bucket: rows.Bucket) -> bytes:
        return hashlib.sha256(f"{self.mark} {bucket.name}".encode()).digest() * 4096

    async def client(self) -> Client:
        """A client of Temporal."""
        return await Client.connect(self.ends.address("temporal"), namespace=self.ends.temporal_namespace)

    async def _start(self) -> None:
        client = await self.client()
        await client.start_workflow(Blocked.run, id=self.mark, task_queue=self.mark)

    async def _status(self) -> WorkflowExecutionStatus | None:
        client = await self.client()
        return (await client.get_workflow_handle(self.mark).describe()).status

    @contextlib.asynccontextmanager
    async def worker(self) -> Any:
        """A worker for the workflow while the block runs; yields the workflow's handle."""
        client = await self.client()
        runner = UnsandboxedWorkflowRunner()
        async with Worker(client, task_queue=self.mark, workflows=[Blocked], workflow_runner=runner):
            yield client.get_workflow_handle_for(Blocked.run, self.mark)


def state_file(victim: Victim) -> Path:
    """The state file of the tier's supervisor."""
    return victim.stack_home / "native" / "state.json"


def rewrite(path: Path, change: Callable[[dict[str, Any]], Mapping[str, Any]]) -> None:
    """Change a JSON file."""
    path.write_text(json.dumps(change(json.loads(path.read_text(encoding="utf-8")))), encoding="utf-8")


def is_root() -> bool:
    """Whether the tests run as root (POSIX)."""
    return hasattr(os, "geteuid") and os.geteuid() == 0
