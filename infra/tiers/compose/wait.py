"""Waiting for containers while Compose works: what each does, and why one failed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from infra import docker_engine
from infra.errors import PlatformError
from infra.shell import Running
from infra.tiers.compose import logs, model, state
from infra.tiers.compose.model import ComposePart
from infra.tiers.compose.session import Session
from infra.tiers.compose.state import Container, Watch
from infra.waiting import FAILED, LAST_LINES, READY, Item, Wait, login_steps

BUDGET = 180.0
"""Seconds that a part may take to become ready; pulls are not counted."""


def run(session: Session, parts: Sequence[ComposePart], timeout: float | None, *words: str) -> None:
    """Let Compose work while the containers are watched; it is ended when one of them has failed."""
    compose = session.compose.start(*words)
    try:
        wait(session, parts, timeout, compose)
    finally:
        if compose.code() is None:
            compose.stop()


def wait(session: Session, parts: Sequence[ComposePart], timeout: float | None, compose: Running | None = None) -> None:
    """Block until all parts are ready.

    Raises:
        PlatformError: SERVICE_FAILED or WAIT_TIMEOUT with the last lines of the culprit's log; what Compose said.
    """
    events = docker_engine.client(session.engine, limit=None)
    with Watch(session.client, events, session.project) as watch:
        try:
            Wait(session.context.console, poller(parts, watch, compose), timeout).until_ready()
        except PlatformError as error:
            raise explained(session, error, watch.last) from error


def poller(parts: Sequence[ComposePart], watch: Watch, compose: Running | None) -> Callable[[], list[Item]]:
    """Return the function that a wait calls again and again."""
    began = time.time()

    def poll() -> list[Item]:
        code = compose.code() if compose else 0
        busy = code is None
        seen = watch.look(force=not busy and not watch.settled)
        watch.settled = not busy
        items = [_item(p, seen.get(p.name), watch, began, busy) for p in parts]
        if code and not any(i.state == FAILED for i in items) and compose:
            raise compose_failed(compose)
        if busy and all(i.state == READY for i in items):
            items[-1] = replace(items[-1], state="starting", detail="Compose is working")
        return items

    return poll


def _item(part: ComposePart, container: Container | None, watch: Watch, began: float, busy: bool) -> Item:
    verdict = state.judged(part, container, began, part.name in watch.oom, busy)
    return state.item(part, container, verdict, BUDGET)


def compose_failed(compose: Running) -> PlatformError:
    """Explain the failure of a run of Compose in which no container has failed."""
    lines = [line for line in compose.lines if line.strip()]
    why = next((x for x in reversed(lines) if "rror" in x or "ailed" in x), lines[-1] if lines else "")
    code = "PORT_TAKEN" if "port is already allocated" in why or "address already in use" in why else "PROGRAM_FAILED"
    steps = ("invoke doctor", "invoke status --why")
    return PlatformError(code, "docker compose could not start it", why=why, steps=steps, details={"log": lines[-20:]})


def explained(session: Session, error: PlatformError, seen: Mapping[str, Container]) -> PlatformError:
    """Return the error with the last log lines of the part that it blames, and with commands that name it."""
    name = str(error.details.get("service", ""))
    container = seen.get(name)
    if not container or error.details.get("log"):
        return error
    log = logs.last(session.client, container, LAST_LINES)
    owner = model.owner_of(name) or name
    steps = tuple(step.replace(f"-s {name}", f"-s {owner}") for step in error.steps)
    details = {**error.details, "log": log, "path": f"docker logs {container.name}"}
    refused = next((line for line in log if "password authentication failed" in line), "")
    if refused:
        what = f"{error.what}: PostgreSQL refuses its login"
        return PlatformError("LOGIN_REFUSED", what, why=error.why, steps=login_steps("postgres"), details=details)
    return PlatformError(error.code, error.what, why=error.why, steps=steps, details=details)
