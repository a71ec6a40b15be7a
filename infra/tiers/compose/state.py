"""Containers of a stack as the engine sees them: state, health, why one ended; and a watch that tells when to look."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from infra.tiers.compose.model import ComposePart
from infra.waiting import FAILED, READY, Item

PROJECT_LABEL = "com.docker.compose.project"
SERVICE_LABEL = "com.docker.compose.service"
DIRECTORY_LABEL = "com.docker.compose.project.working_dir"
HASH_LABEL = "com.docker.compose.config-hash"
CRASHES = 3
"""Restarts after which a container is called failed."""
LOOK_AGAIN = 1.0
"""Seconds after which the containers are looked at even if no event came."""


@dataclass(frozen=True)
class Container:
    """A container of the stack; `started` and `ended` in seconds since 1970, `image` is the image's id."""

    part: str
    id: str
    name: str
    state: str
    health: str = ""
    health_text: str = ""
    code: int = 0
    oom: bool = False
    error: str = ""
    restarts: int = 0
    pid: int = 0
    started: float = 0.0
    ended: float = 0.0
    image: str = ""
    directory: str = ""
    created: float = 0.0

    @property
    def up(self) -> bool:
        """Return whether its program runs."""
        return self.state in ("running", "paused")


def containers(client: Any, project: str, same: Mapping[str, Container] | None = None) -> dict[str, Container]:
    """Return the containers of a project by the service of the files, one-off ones left out.

    Args:
        same: by id, those that nothing has happened to since; while containers are made, each question about one
            takes the engine long. One whose state has changed all the same is asked about.
    """
    import docker

    listed = client.containers(all=True, filters={"label": [f"{PROJECT_LABEL}={project}"]})
    found: dict[str, Container] = {}
    for entry in listed:
        if entry["Labels"].get("com.docker.compose.oneoff") == "True":
            continue
        with contextlib.suppress(docker.errors.NotFound):  # it has just gone
            known = (same or {}).get(entry["Id"])
            seen = known if known and known.state == entry["State"] else read(client.inspect_container(entry["Id"]))
            if seen.part not in found or found[seen.part].created < seen.created:  # one is being replaced
                found[seen.part] = seen
    return found


def read(facts: Mapping[str, Any]) -> Container:
    """Return a container from what the engine's API says of it (Docker Engine API 1.41, ContainerInspect)."""
    state, labels = facts["State"], facts["Config"].get("Labels") or {}
    health = state.get("Health") or {}
    log = health.get("Log") or []
    return Container(
        part=labels.get(SERVICE_LABEL, ""),
        id=facts["Id"],
        name=facts["Name"].lstrip("/"),
        state=state["Status"],
        health=health.get("Status", "") if health.get("Status") != "none" else "",
        health_text=_last_line(log[-1].get("Output", "")) if log else "",
        code=int(state.get("ExitCode") or 0),
        oom=bool(state.get("OOMKilled")),
        error=str(state.get("Error") or ""),
        restarts=int(facts.get("RestartCount") or 0),
        pid=int(state.get("Pid") or 0),
        started=_seconds(state.get("StartedAt", "")),
        ended=_seconds(state.get("FinishedAt", "")),
        image=str(facts.get("Image", "")),
        directory=labels.get(DIRECTORY_LABEL, ""),
        created=_seconds(facts.get("Created", "")),
    )


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:200] if lines else ""


def _seconds(stamp: str) -> float:
    """Parse RFC 3339 with nanoseconds into seconds since 1970; 0 for the year 1, which means never."""
    if not stamp or stamp.startswith("0001"):
        return 0.0
    text = stamp.replace("Z", "+00:00")
    head, dot, rest = text.partition(".")
    zone = rest[rest.find("+") :] if "+" in rest else (rest[rest.find("-") :] if "-" in rest else "+00:00")
    with contextlib.suppress(ValueError):
        return datetime.fromisoformat(head + zone if dot else text).timestamp()
    return 0.0


def why_ended(container: Container, limit: int, killed_for_memory: bool) -> str:
    """Explain in words why a container's program ended."""
    from infra.console import human_bytes

    if container.oom or killed_for_memory:
        return f"killed: out of memory (limit {human_bytes(limit)})" if limit else "killed: out of memory"
    if container.error:
        return container.error
    named = {
        137: " (killed)",
        139: " (crashed: segmentation fault)",
        126: " (cannot be run)",
        127: " (no such program)",
    }
    return f"ended with exit code {container.code}{named.get(container.code, '')}"


def judged(part: ComposePart, container: Container | None, began: float, oom: bool, busy: bool) -> tuple[str, str]:
    """Judge a part while waiting: its state and detail.

    Args:
        began: when the wait began (seconds since 1970).
        oom: whether it was killed: out of memory in that time.
        busy: whether Compose still works: what ended before is no news then.
    """
    if container is None or container.state == "created":
        if container is not None and container.error:
            return FAILED, container.error
        return "waiting", "for its dependencies" if busy else "it was not created"
    if container.state == "restarting" or (container.up and container.restarts >= CRASHES):
        why = f"{why_ended(container, part.memory, oom)}, {container.restarts} restarts"
        return (FAILED if container.restarts >= CRASHES or oom else "backoff"), why
    if container.up:
        return _running(container)
    # What is to stay up and has ended by itself is restarted by the engine; `exited` means that it was stopped.
    if busy and (not part.ends or container.ended < began):
        return ("waiting", "for Compose")
    if part.ends and container.code == 0:
        return READY, ""
    return FAILED, why_ended(container, part.memory, oom)


def is_broken(part: ComposePart, container: Container) -> bool:
    """Return whether it keeps crashing or is unhealthy, also in the moments just after it started again."""
    state, _ = judged(part, container, 0.0, container.oom, busy=False)
    return state in (FAILED, "backoff") or (state == "starting" and container.restarts > 0)


def _running(container: Container) -> tuple[str, str]:
    if container.state == "paused":
        return FAILED, "it is paused (docker unpause)"
    if container.health == "unhealthy":
        return FAILED, f"unhealthy: {container.health_text or 'its health check fails'}"
    if container.health == "starting":
        return "starting", container.health_text or "its health check has not passed yet"
    return READY, ""


def item(part: ComposePart, container: Container | None, verdict: tuple[str, str], budget: float) -> Item:
    """Describe a part for a wait; one-shots that have ended count as ready only when they may end."""
    state, detail = verdict
    if part.ends and container is not None and container.up:
        state, detail = "starting", "works"
    return Item(part.name, state, detail, part.needs, budget, restarts=container.restarts if container else 0)


@dataclass
class Watch:
    """Looks at the containers when the engine reports an event, and each second; remembers kills for memory."""

    client: Any
    events: Any
    project: str
    oom: set[str] = field(default_factory=set)
    last: dict[str, Container] = field(default_factory=dict)
    looked: float = 0.0
    settled: bool = False
    _news: threading.Event = field(default_factory=threading.Event)
    _touched: set[str] = field(default_factory=set)
    _stream: Any = None

    def __enter__(self) -> Watch:
        threading.Thread(target=self._listen, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._stream is not None:
            with contextlib.suppress(Exception):  # whatever a socket says when it is closed under its reader
                self._stream.close()

    def _listen(self) -> None:
        filters = {"type": "container", "label": f"{PROJECT_LABEL}={self.project}"}
        with contextlib.suppress(Exception):  # without events the second-wise look remains
            self._stream = self.events.events(decode=True, filters=filters)
            for event in self._stream:
                if str(event.get("Action")).startswith("exec_"):  # each health check; its outcome is another event
                    continue
                if event.get("Action") == "oom":
                    self.oom.add(event["Actor"]["Attributes"].get(SERVICE_LABEL, ""))
                self._touched.add(event["Actor"]["ID"])
                self._news.set()

    def look(self, force: bool = False) -> dict[str, Container]:
        """Return the containers as they are now, or as they were a moment ago when nothing has happened since.

        On an event only those are asked about that it is of, each second all.
        """
        due = force or time.monotonic() - self.looked > LOOK_AGAIN
        if due or self._news.is_set():
            self._news.clear()
            touched, self._touched = self._touched, set()
            same = {} if due else {c.id: c for c in self.last.values() if c.id not in touched}
            self.last = containers(self.client, self.project, same)
            self.looked = time.monotonic() if due else self.looked
        return self.last


def worst(states: Sequence[str]) -> str:
    """Return the state of a service out of those of its parts."""
    order = (FAILED, "unhealthy", "backoff", "stopped", "starting", "waiting", READY)
    return next((state for state in order if state in states), READY)
