"""A wait that explains: a live table on a terminal, a line per change elsewhere, and the culprit when it fails."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infra import catalog
from infra.console import Console, human_seconds
from infra.errors import PlatformError
from infra.terminal import visible

HEARTBEAT = 15.0
"""Seconds between two progress lines where no live table can be drawn."""
LAST_LINES = 20
RECOVERY = 900.0
"""Seconds that a server may recover after a crash; replaying 2.6 GB of PostgreSQL's log took 70, on two cores."""
# PostgreSQL replays its log after a crash, Redis reads its file: both end by themselves, after minutes for much data.
_RECOVERING = ("system is starting up", "not yet accepting connections", "in recovery mode", "LOADING ")

READY, FAILED = "ready", "failed"
QUIET = ("waiting", "starting")
"""States that are not news; the heartbeat reports them."""


@dataclass(frozen=True)
class Item:
    """One thing that is awaited: one service, its state in words, what it needs, its budget in seconds."""

    name: str
    state: str
    detail: str = ""
    needs: tuple[str, ...] = ()
    budget: float = 60.0
    fatal: bool = False
    log: Path | None = None
    restarts: int = 0


Poll = Callable[[], Sequence[Item]]


@dataclass
class Wait:
    """One wait: polls until all items are ready, or until one makes that impossible."""

    console: Console
    poll: Poll
    timeout: float | None = None
    retry: str = "invoke up"
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    began: dict[str, float] = field(default_factory=dict)

    def until_ready(self) -> None:
        """Block until everything is ready.

        Raises:
            PlatformError: SERVICE_FAILED, LOGIN_REFUSED or WAIT_TIMEOUT, naming the culprit and not its victims.
        """
        start = self.clock()
        with self._display() as show:
            while True:
                items = self.poll()
                self._note_beginnings(items)
                show(items, self.began)
                if all(item.state == READY for item in items):
                    return
                self._raise_if_hopeless(items, start)
                self.sleep(0.03)

    def _note_beginnings(self, items: Sequence[Item]) -> None:
        ready = {i.name for i in items if i.state == READY}
        names = {i.name for i in items}
        for item in items:
            if item.name not in self.began and all(n in ready for n in item.needs if n in names):
                self.began[item.name] = self.clock()

    def _raise_if_hopeless(self, items: Sequence[Item], start: float) -> None:
        now = self.clock()
        failed = [i for i in items if i.state == FAILED or i.fatal]
        if failed:
            blamed = culprit(failed)
            raise failure(blamed, "LOGIN_REFUSED" if blamed.fatal else "SERVICE_FAILED", self.retry)
        late = [i for i in items if i.state != READY and now - self.began.get(i.name, now) > allowed(i)]
        if late:
            needed = {n for item in late for n in item.needs}
            blamed = culprit([i for i in items if i in late or i.name in needed])
            raise failure(blamed, "WAIT_TIMEOUT", self.retry, now - self.began.get(blamed.name, start))
        if self.timeout is not None and now - start > self.timeout:
            raise failure(culprit(items), "WAIT_TIMEOUT", self.retry, now - start)

    @contextmanager
    def _display(self) -> Iterator[Callable[[Sequence[Item], dict[str, float]], None]]:
        if not self.console.live:
            yield Lines(self.console, self.clock).show
            return
        from rich.console import Console as Terminal
        from rich.live import Live

        terminal = Terminal(file=self.console.stderr, no_color=not self.console.color(self.console.stderr))
        with Live(console=terminal, refresh_per_second=8, transient=True) as live:
            yield lambda items, began: live.update(live_table(items, began, self.clock(), self.console))
        self.console.say(f"{self.console.symbol('good')} {', '.join(i.name for i in self.poll())}: ready", "good")


@dataclass
class Lines:
    """One line for each change of a state, and a heartbeat that names the blocker."""

    console: Console
    clock: Callable[[], float]
    seen: dict[str, str] = field(default_factory=dict)
    spoke: float = 0.0

    def show(self, items: Sequence[Item], began: dict[str, float]) -> None:
        """Print what has changed since the last call."""
        now = self.clock()
        if not self.spoke:
            self.spoke = now
            self.seen = {i.name: READY for i in items if i.state == READY}
        for item in items:
            if item.state not in QUIET and self.seen.get(item.name) != item.state:
                self.seen[item.name] = item.state
                self.spoke = now
                self.console.say(_line(item, now - began.get(item.name, now)))
        if now - self.spoke > HEARTBEAT and any(i.state != READY for i in items):
            self.spoke = now
            blocker = culprit(items)
            waited = human_seconds(now - began.get(blocker.name, now))
            self.console.say(f"  still waiting for {blocker.name} ({waited}): {blocker.detail or blocker.state}")


def _line(item: Item, elapsed: float) -> str:
    detail = f" ({human_seconds(elapsed)})" if item.state == READY and elapsed >= 0.1 else ""
    if item.state in ("backoff", FAILED) and item.detail:
        detail = f": {item.detail}"
    return f"  {item.name:<16} {item.state}{detail}"


def live_table(items: Sequence[Item], began: dict[str, float], now: float, console: Console) -> Any:
    """Return the table that a terminal shows while waiting: service, state, elapsed time, what it waits for."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    styles = {READY: ("good", "green"), FAILED: ("bad", "red"), "backoff": ("warn", "yellow")}
    for item in items:
        mark, color = styles.get(item.state, ("dim", "cyan"))
        elapsed = human_seconds(now - began[item.name]) if item.name in began and item.state != READY else ""
        detail = "" if item.state == READY else visible(item.detail[:80])
        cells = (console.symbol(mark, console.stderr), item.name, elapsed, detail)
        symbol, name, age, rest = (Text(cell) for cell in cells)  # not as they are: brackets would be markup
        table.add_row(symbol, name, Text(item.state, color), age, rest)
    return table


def culprit(items: Sequence[Item]) -> Item:
    """Return the item to blame: the first failed, or else unready, one whose own dependencies are ready."""
    unready = [i for i in items if i.state != READY]
    blamed = [i for i in unready if i.state == FAILED or i.fatal] or unready
    names = {i.name for i in blamed}
    roots = [i for i in blamed if not names & set(i.needs)]
    return (roots or blamed or list(items))[0]


def recovering(detail: str) -> bool:
    """Return whether an answer says that the server is still taking up its data."""
    return any(said in detail for said in _RECOVERING)


def allowed(item: Item) -> float:
    """Return the seconds that an item may take: its budget, or more while it recovers."""
    return max(item.budget, RECOVERY) if recovering(item.detail) else item.budget


def last_lines(log: Path | None, count: int = LAST_LINES) -> list[str]:
    """Return the last lines of a log file, without control characters; empty where there is none."""
    if log is None:
        return []
    try:
        with open(log, "rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - 65536))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return []
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    return ["".join(c for c in line if c.isprintable() or c == "\t")[:400] for line in lines[-count:]]


def login_steps(service: str) -> tuple[str, ...]:
    """List what to do when a service refuses the user or the password of the settings."""
    names = next((s.login for s in catalog.SERVICES if s.name == service and s.login), ("its user", "its password"))
    return (
        f"its data was created with another user or password: set {names[0]} and {names[1]} in .env to the old values",
        f"or delete its data: invoke reset -s {service}",
    )


def failure(item: Item, code: str, retry: str, waited: float = 0.0) -> PlatformError:
    """Return the error for a service that failed, refused our login, or was not ready in time."""
    what = {
        "LOGIN_REFUSED": f"{item.name} is running but refuses the login",
        "SERVICE_FAILED": f"{item.name} failed",
        "WAIT_TIMEOUT": f"{item.name} was not ready within {human_seconds(waited)}",
    }[code]
    steps: tuple[str, ...] = (f"invoke logs -s {item.name}", "fix the cause, then run: " + retry)
    if code == "LOGIN_REFUSED":
        steps = login_steps(item.name)
    elif code == "WAIT_TIMEOUT" and recovering(item.detail):
        steps = ("it is recovering by itself; let it run: invoke wait", steps[0])
    details = {"service": item.name, "state": item.state, "log": last_lines(item.log), "path": str(item.log or "")}
    return PlatformError(code, what, why=item.detail, steps=steps, details=details)
