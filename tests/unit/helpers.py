"""What several unit tests share: settings from literals, a console that keeps what is said, tiny servers."""

from __future__ import annotations

import contextlib
import io
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from infra import settings, stack
from infra.console import Console
from infra.context import Context
from infra.errors import PlatformError
from infra.settings import Settings
from infra.stack import Stack


def settings_of(root: Path, **values: str) -> Settings:
    """Settings of a checkout at `root`, whose environment has exactly these values."""
    return settings.load(root=root, environ=values)


class Stream(io.TextIOWrapper):
    """A text stream of some encoding, terminal or not, that keeps what is written to it."""

    def __init__(self, encoding: str = "utf-8", *, tty: bool = False) -> None:
        self.kept = io.BytesIO()
        super().__init__(self.kept, encoding=encoding, newline="\n", write_through=True)
        self.tty = tty

    def isatty(self) -> bool:
        return self.tty

    @property
    def said(self) -> str:
        """Everything written so far."""
        self.flush()
        return self.kept.getvalue().decode(self.encoding)


class Said(Console):
    """A console on two streams that keep what is said."""

    @property
    def out(self) -> str:
        """What went to stdout."""
        assert isinstance(self.stdout, Stream)
        return self.stdout.said

    @property
    def err(self) -> str:
        """What went to stderr."""
        assert isinstance(self.stderr, Stream)
        return self.stderr.said


def console(
    output: str = "table",
    *,
    encoding: str = "utf-8",
    tty: bool = False,
    environ: dict[str, str] | None = None,
    secrets: tuple[str, ...] = (),
) -> Said:
    """A console that keeps what is said."""
    streams = Stream(encoding, tty=tty), Stream(encoding, tty=tty)
    return Said(output, *streams, environ=environ or {}, secrets=secrets, command="test")


def context_of(root: Path, **values: str) -> Context:
    """The context of a tier's verbs, for a checkout at `root`."""
    loaded = settings_of(root, **values)
    return Context(loaded, stack.of(loaded), console())


def stack_at(home: Path) -> Stack:
    """A stack whose home is this directory."""
    return Stack("test-000000", home)


def everything(error: PlatformError) -> str:
    """All the text that an error may show anywhere."""
    return "\n".join([error.what, error.why, *error.steps, repr(error.details), str(error)])


def free_port() -> int:
    """A TCP port on 127.0.0.1 that nobody uses; below those that systems give to outgoing connections."""
    for port in random.sample(range(10_000, 30_000), 1000):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


@contextmanager
def serving(handle: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server on a free port that hands each connection to `handle`; yields the port."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=_accept, args=(server, handle), daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def _accept(server: socket.socket, handle: Callable[[socket.socket], None]) -> None:
    while True:
        try:
            link, _ = server.accept()
        except OSError:
            return
        with link:
            try:
                handle(link)
            except OSError:
                continue


def answering(*answers: bytes) -> Callable[[socket.socket], None]:
    """A handler that replies to the first request with the first answer, and so on."""

    def handle(link: socket.socket) -> None:
        for answer in answers:
            if not link.recv(65536):
                return
            link.sendall(answer)

    return handle


def eventually(happened: Callable[[], object], what: str = "it", limit: float = 20.0) -> None:
    """Wait until something is true; `limit` only keeps a broken test from hanging."""
    end = time.monotonic() + limit
    while not happened():
        assert time.monotonic() < end, f"{what} did not happen"
        time.sleep(0.01)


def script(path: Path, text: str) -> Path:
    """An executable POSIX shell script."""
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)
    return path
