"""Programs and connections of the threads of a task: an end for each of them, and the first failure for the user."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

from infra import shell
from infra.data.postgres import clients
from infra.database import MAINTENANCE
from infra.endpoints import Endpoints
from infra.errors import PlatformError

if TYPE_CHECKING:
    import psycopg

Done = TypeVar("Done")


@dataclass
class Children:
    """The programs that a task runs, and the connections of its threads; none of them outlives it.

    `cause` is the first failure of a job: what fails after it may do so because it was stopped.
    """

    running: dict[subprocess.Popen[bytes], IO[bytes]] = field(default_factory=dict)
    links: set[psycopg.Connection[Any]] = field(default_factory=set)
    stopped: bool = False
    cause: Exception | None = None
    guard: threading.Lock = field(default_factory=threading.Lock)

    def start(self, argv: Sequence[str], env: Mapping[str, str], cwd: Path | None = None) -> subprocess.Popen[bytes]:
        """Start a program in a group of its own; what it says goes to a file that `finish` reads.

        Raises:
            PlatformError: PROGRAM_MISSING; INTERRUPTED once `stop` was called.
        """
        with self.guard:
            self.require()
            said = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `finish`
            try:
                process = subprocess.Popen(
                    list(argv), env=dict(env), cwd=cwd, stdin=subprocess.DEVNULL, stdout=said, stderr=said, **_group()
                )
            except OSError as error:
                said.close()
                raise PlatformError("PROGRAM_MISSING", f"{argv[0]} cannot be started", why=str(error)) from error
            self.running[process] = said
            return process

    def finish(self, process: subprocess.Popen[bytes]) -> shell.Result:
        """Wait for a program and return its exit code and what it said."""
        code = process.wait()
        with self.guard:
            said = self.running.pop(process)
        with said:
            said.seek(0)
            text = said.read().decode("utf-8", "replace")
        return shell.Result(code, text, "")

    def run(self, argv: Sequence[str], env: Mapping[str, str]) -> shell.Result:
        """Start and finish."""
        return self.finish(self.start(argv, env))

    @contextlib.contextmanager
    def connected(self, endpoints: Endpoints, database: str = MAINTENANCE) -> Iterator[psycopg.Connection[Any]]:
        """Open a connection for a thread; `stop` cancels what is done over it. Raises as `connected` does."""
        with clients.connected(endpoints, database) as link:
            with self.guard:
                self.require()
                self.links.add(link)
            try:
                yield link
            finally:
                with self.guard:
                    self.links.discard(link)

    def require(self) -> None:
        """Raise PlatformError INTERRUPTED once `stop` was called."""
        if self.stopped:
            raise PlatformError("INTERRUPTED", "stopped")

    def note(self, failure: Exception) -> None:
        """Keep the first failure of a job, unless the run was stopped before."""
        with self.guard:
            if not self.stopped and self.cause is None:
                self.cause = failure

    def stop(self) -> None:
        """End what runs, for good: nothing more is started."""
        with self.guard:
            self.stopped = True
            processes = list(self.running)
        for process in processes:
            _end(process, signal.SIGTERM)
        limit = time.monotonic() + 1.0
        while (self._cancelled() or any(p.poll() is None for p in processes)) and time.monotonic() < limit:
            time.sleep(0.02)
        for process in processes:
            _end(process, getattr(signal, "SIGKILL", signal.SIGTERM))

    def _cancelled(self) -> int:
        """Cancel what the threads wait for; again and again, since a statement may just be on its way."""
        import psycopg

        with self.guard:
            links = list(self.links)
        for link in links:
            with contextlib.suppress(psycopg.Error):
                link.cancel_safe(timeout=0.5)
        return len(links)


def _group() -> dict[str, Any]:
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"start_new_session": True}


def _end(process: subprocess.Popen[bytes], number: int) -> None:
    if process.poll() is not None:
        return
    with contextlib.suppress(OSError):
        if sys.platform == "win32":
            process.terminate()
        else:
            os.killpg(process.pid, number)  # pg_restore -j has children of its own


def side_by_side(children: Children, limit: int, jobs: Sequence[Callable[[], Done]]) -> list[Done]:
    """Run jobs in threads, at most `limit` at once; the first failure (or Ctrl-C) ends the children of all.

    A job may run jobs of its own in this way, with the same children.

    Raises:
        whatever the first job that failed has raised.
    """

    def run(job: Callable[[], Done]) -> Done:
        try:
            return job()
        except Exception as error:
            children.note(error)
            raise

    with ThreadPoolExecutor(max(1, limit)) as pool:
        futures: list[Future[Done]] = [pool.submit(run, job) for job in jobs]
        try:
            _await(futures)
        except BaseException as error:
            for future in futures:
                future.cancel()
            children.stop()
            if isinstance(error, Exception) and children.cause:
                raise children.cause from children.cause.__cause__
            raise
        return [future.result() for future in futures]


def _await(futures: Sequence[Future[Any]]) -> None:
    open_ones = set(futures)
    while open_ones:  # in short waits, which Ctrl-C gets through on Windows too
        done, open_ones = wait(open_ones, timeout=0.2, return_when=FIRST_COMPLETED)
        for future in done:
            future.result()
