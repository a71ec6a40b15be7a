"""The core services started by hand: bare Popen along the same dependency graph, polling, nothing else.

`python -m tests.bench.bare DIRECTORY` starts them from that directory (cold: makes the data, as `invoke up` does),
prints `ready SECONDS`, waits for a line on standard input and stops them.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

from infra import catalog, settings, stack
from infra.sigv4 import Store
from infra.supervision import process
from infra.tiers.native import object_store
from infra.tiers.native import services as native_services
from infra.tiers.native.object_store import StorePlan
from infra.tiers.native.services import Programs

DATABASES = ("platform", "users", "labeler")
BUCKETS = {
    "minio-datasets": ("training-datasets",),
    "minio-results": ("model-weights", "training-checkpoints", "config-schemas", "training-results"),
}


def main(home: Path) -> int:
    """Start, say how long it took, wait, stop."""
    began = time.perf_counter()
    bare = Bare(home)
    bare.start()
    print(f"ready {time.perf_counter() - began:.3f}", flush=True)
    sys.stdin.readline()
    bare.stop()
    return 0


class Bare:
    """Six processes and their polls."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.settings = settings.load()
        found: Programs = native_services.programs(self.settings, home, stack.of(self.settings).name)
        self.programs = found
        self.processes: list[tuple[subprocess.Popen[bytes], int]] = []

    def start(self) -> None:
        """Start everything that waits for nothing, then PostgreSQL, then poll."""
        for directory in ("redis", "temporal", *BUCKETS):
            (self.home / directory).mkdir(parents=True, exist_ok=True)
        self._redis()
        self._temporal()
        for store in BUCKETS:
            self._store(store)
        fresh = self._postgres()
        self._poll(self._sql_answers)
        if fresh:
            for name in DATABASES:
                self._psql("postgres", f"create database {name}")
        self._poll(lambda: self._tcp_answers("REDIS_PORT"))
        for store, names in BUCKETS.items():
            self._poll(lambda store=store: self._bucket_answers(store, ""))  # type: ignore[misc]
            for name in names if fresh else ():
                self._bucket_answers(store, name)
        self._poll(self._temporal_answers)

    def stop(self) -> None:
        """Signal all, wait for all."""
        for child, number in self.processes:
            child.send_signal(number)
        for child, _ in self.processes:
            child.wait(30)

    def _port(self, name: str) -> str:
        return str(self.settings.port(name))

    def _run(
        self,
        argv: list[str],
        stop: int = signal.SIGTERM,
        user: tuple[int, int] | None = None,
        env: dict[str, str] | None = None,
    ) -> None:
        log = open(self.home / "log", "ab")  # noqa: SIM115 - the child keeps it
        child = process.spawn(argv, cwd=self.home, log=log, env={**os.environ, **(env or {})}, user=user)
        self.processes.append((child, stop))

    def _redis(self) -> None:
        durable = ["--appendonly", "yes", "--appendfsync", "everysec"]
        where = ["--port", self._port("REDIS_PORT"), "--bind", "127.0.0.1", "--dir", str(self.home / "redis")]
        self._run([str(self.programs.found["redis"].path), *where, *durable])

    def _temporal(self) -> None:
        ports = {"port": "TEMPORAL_PORT", "ui-port": "TEMPORAL_UI_PORT", "metrics-port": "TEMPORAL_METRICS_PORT"}
        flags = [part for flag, name in ports.items() for part in (f"--{flag}", self._port(name))]
        data = ["--db-filename", str(self.home / "temporal" / "temporal.db"), "--sqlite-pragma", "synchronous=2"]
        quiet = ["--log-format", "json", "--log-level", "warn"]
        where = ["--ip", "127.0.0.1", "--ui-ip", "127.0.0.1"]
        self._run([str(self.programs.found["temporal"].path), "server", "start-dev", *where, *flags, *data, *quiet])

    def _store(self, name: str) -> None:
        """Start SeaweedFS as the native tier does: its flags are what makes it safe."""
        first = self.settings.port(catalog.STORE_PORTS[name].setting)
        login, cache = ("minioadmin", "minioadmin"), self.home / "cache"
        ports = (self._s3_port(name), 0)
        plan = StorePlan(name, "127.0.0.1", *ports, *login, self.home / name, cache, first, "bare" * 16)
        built = object_store.command(self.programs.store, plan)
        self._run(list(built.argv), env=dict(built.env))

    def _s3_port(self, store: str) -> int:
        return self.settings.port("MINIO_DATASETS_PORT" if store == "minio-datasets" else "MINIO_RESULTS_PORT")

    def _bucket_answers(self, store: str, bucket: str) -> bool:
        """List the buckets, or make one."""
        known = Store("127.0.0.1", self._s3_port(store), "minioadmin", "minioadmin")
        try:
            return known.request("PUT" if bucket else "GET", f"/{bucket}").status == 200
        except OSError:
            return False

    def _postgres(self) -> bool:
        place, data = self.programs.postgres, self.home / "postgres"
        fresh = not data.exists()
        if fresh:
            data.mkdir(mode=0o700)
            password = self.home / "password"
            password.write_text("devpass\n")
            if place.user:
                os.chown(data, *place.user)
            locale = ["--locale-provider=builtin", "--locale=C.UTF-8", "-E", "UTF8", "--data-checksums"]
            login = ["-U", "admin", f"--pwfile={password}", "-A", "scram-sha-256"]
            drop = process.spawn_options(False, place.user)
            argv = [str(place.program("initdb")), "-D", str(data), *login, *locale]
            subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, cwd=self.home, **drop)
        options = ["-c", "listen_addresses=127.0.0.1", "-c", f"port={self._port('POSTGRES_PORT')}"]
        argv = [str(place.program("postgres")), "-D", str(data), *options, "-c", "unix_socket_directories="]
        self._run(argv, signal.SIGINT, place.user)
        return fresh

    def _psql(self, database: str, query: str) -> bool:
        where = f"host=127.0.0.1 port={self._port('POSTGRES_PORT')} user=admin dbname={database}"
        argv = [str(self.programs.postgres.program("psql")), "-X", "-q", "-w", "-d", where, "-c", query]
        done = subprocess.run(argv, env={**os.environ, "PGPASSWORD": "devpass"}, capture_output=True, check=False)
        return done.returncode == 0

    def _sql_answers(self) -> bool:
        return self._psql("postgres", "select 1")

    def _tcp_answers(self, port: str) -> bool:
        try:
            socket.create_connection(("127.0.0.1", int(self._port(port))), timeout=1).close()
        except OSError:
            return False
        return True

    def _temporal_answers(self) -> bool:
        url = f"http://127.0.0.1:{self._port('TEMPORAL_UI_PORT')}/api/v1/namespaces/default"
        try:
            with urllib.request.urlopen(url, timeout=1) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def _poll(self, question: Callable[[], bool]) -> None:
        while not question():
            time.sleep(0.01)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
