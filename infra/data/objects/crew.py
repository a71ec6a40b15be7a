"""Readers of objects: threads here, and two processes more once there are many small ones.

Reading a small object is mostly Python's own work, of which threads of one process do one at a time. The processes
are started like any program (the same on Windows), get the keys over a pipe, and end with it.
`python -m infra.data.objects.crew` is such a process.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from infra.data.objects import fetch
from infra.data.objects.client import Client
from infra.data.objects.fetch import Scratch, Watch
from infra.data.objects.link import LinkStopped
from infra.data.objects.login import StoreLogin
from infra.data.objects.pool import Pool
from infra.data.objects.records import ObjectItem, Record
from infra.errors import PlatformError

SMALL_THREADS = 8
LARGE_THREADS = 4
HELPERS = 2
MANY = 1000
"""Number of small objects from which on processes are worth starting."""


class Crew:
    """Reads objects into the pool of a target; `read` hands one over and returns at once."""

    def __init__(self, clients: Mapping[str, Client], target: Path, scratch: Path, watch: Watch) -> None:
        self._clients = clients
        self.target, self._scratch = target, Scratch(scratch)
        self._pool, self._watch = Pool(target), watch
        self._small = ThreadPoolExecutor(SMALL_THREADS, "small")
        self._large = ThreadPoolExecutor(LARGE_THREADS, "large")
        self._count = itertools.count()
        self._helpers: list[Helper] = []

    def read(self, item: ObjectItem) -> Future[Record]:
        """Begin to read an object."""
        if item.size > fetch.PART:
            return self._large.submit(self._fetch, item)
        if next(self._count) == MANY:
            logins = [client.login for client in self._clients.values()]
            self._helpers = [Helper(logins, self.target, self._scratch.directory, self._watch) for _ in range(HELPERS)]
        if self._helpers:
            return min(self._helpers, key=Helper.waiting).read(item)
        return self._small.submit(self._fetch, item)

    def _fetch(self, item: ObjectItem) -> Record:
        return fetch.fetch(self._clients[item.store], self._pool, self._scratch, item, self._watch)

    def close(self) -> None:
        """End everything at once; what is not read by now is not wanted."""
        for client in self._clients.values():
            client.stop()
        for helper in self._helpers:
            helper.close()
        for pool in (self._small, self._large):
            pool.shutdown(wait=True, cancel_futures=True)
        for client in self._clients.values():
            client.close()


@contextlib.contextmanager
def crew(clients: Mapping[str, Client], target: Path, scratch: Path, watch: Watch) -> Iterator[Crew]:
    """Employ a crew for the block; none of its processes is left afterwards, however the block ends."""
    made = Crew(clients, target, scratch, watch)
    try:
        yield made
    except BaseException as error:
        undisturbed(error)
        raise
    finally:
        made.close()


def undisturbed(error: BaseException) -> None:
    """Ignore further Ctrl-C and SIGTERM after a first one: they must not cut the clearing up short, which is quick."""
    ending = isinstance(error, KeyboardInterrupt) or getattr(error, "code", "") == "TERMINATED"
    if ending and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


class Helper:
    """A process that reads objects, and the thread that takes its answers."""

    def __init__(self, logins: list[StoreLogin], target: Path, scratch: Path, watch: Watch) -> None:
        self._process = _spawn()
        self._asked: dict[int, Future[Record]] = {}
        self._watch, self._numbers = watch, itertools.count()
        # Keys go over the pipe: arguments and environments can be read by others.
        self._send({"logins": [asdict(login) for login in logins], "target": str(target), "scratch": str(scratch)})
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def waiting(self) -> int:
        """Count the objects that it has to read."""
        return len(self._asked)

    def read(self, item: ObjectItem) -> Future[Record]:
        """Begin to read an object."""
        number, future = next(self._numbers), Future[Record]()
        self._asked[number] = future
        try:
            self._send([number, *item])
        except OSError:
            self._fail(_died(self._process))
        return future

    def _send(self, message: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message).encode() + b"\n")
        self._process.stdin.flush()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            number, record, error = json.loads(line)
            future = self._asked.pop(number)
            if error:
                future.set_exception(_error(error))
            else:
                self._watch(record.get("size", 0))
                future.set_result(record)
        self._fail(_died(self._process))

    def _fail(self, error: Exception) -> None:
        while self._asked:
            with contextlib.suppress(KeyError):
                self._asked.popitem()[1].set_exception(error)

    def close(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.wait()
        self._thread.join()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                assert pipe is not None
                pipe.close()


def _spawn() -> subprocess.Popen[bytes]:
    from infra.settings import ROOT

    argv = [sys.executable, "-m", "infra.data.objects.crew"]
    # Its errors come over the pipe; a process of its own group gets no Ctrl-C, which is the parent's to handle.
    apart: dict[str, Any] = {"start_new_session": True}
    if sys.platform == "win32":
        apart = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    return subprocess.Popen(
        argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, **apart
    )


def _died(process: subprocess.Popen[bytes]) -> PlatformError:
    code = process.poll()
    how = "" if code is None else f" (killed by signal {-code})" if code < 0 else f" (exit code {code})"
    what = f"a process that reads objects ended{how}"
    return PlatformError("BACKUP_FAILED", what, steps=("run the same command again",))


def _error(error: Mapping[str, Any]) -> Exception:
    if error["kind"] == "disk":
        return OSError(error["errno"], error["what"])
    return PlatformError(error["code"], error["what"], why=error["why"], steps=tuple(error["steps"]))


def main(lines: IO[bytes], say: Callable[[bytes], None]) -> None:
    """Read objects as the lines of standard input name them, until it ends; one line of answer for each."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    order = json.loads(lines.readline())
    clients = {login["name"]: Client(StoreLogin(**login)) for login in order["logins"]}
    pool, scratch = Pool(Path(order["target"])), Scratch(Path(order["scratch"]))
    jobs: queue.SimpleQueue[list[Any] | None] = queue.SimpleQueue()

    def work() -> None:
        while (job := jobs.get()) is not None:
            number, item = job[0], ObjectItem(*job[1:])
            say(json.dumps([number, *_answer(clients[item.store], pool, scratch, item)]).encode() + b"\n")

    threads = [threading.Thread(target=work, daemon=True) for _ in range(SMALL_THREADS)]
    for thread in threads:
        thread.start()
    for line in lines:
        jobs.put(json.loads(line))
    os._exit(0)  # the parent has gone or is done: nothing that still runs is wanted


def _answer(
    client: Client, pool: Pool, scratch: Scratch, item: ObjectItem
) -> tuple[Record | None, dict[str, Any] | None]:
    try:
        return fetch.fetch(client, pool, scratch, item), None
    except PlatformError as error:
        return None, {"kind": "", "code": error.code, "what": error.what, "why": error.why, "steps": error.steps}
    except OSError as error:
        return None, {"kind": "disk", "errno": error.errno, "what": error.strerror or str(error)}
    except (LinkStopped, Exception) as error:
        text = f"{type(error).__name__}: {error}"
        return None, {"kind": "", "code": "INTERNAL", "what": text, "why": "", "steps": ()}


def _say_whole_lines() -> Callable[[bytes], None]:
    lock, out = threading.Lock(), sys.stdout.fileno()

    def say(line: bytes) -> None:
        with lock:
            left = memoryview(line)
            while left:
                left = left[os.write(out, left) :]

    return say


if __name__ == "__main__":
    main(sys.stdin.buffer, _say_whole_lines())
