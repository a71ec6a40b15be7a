"""Backend and frontend on this machine (the way to develop them): supervised, stopped with the platform."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

from infra import catalog, private
from infra.console import Console
from infra.endpoints import HOST, Endpoints
from infra.ports import Claim, Conflict, conflicts
from infra.settings import ROOT, Settings
from infra.stack import Stack, unwritable
from infra.supervision import client as supervise
from infra.supervision.client import Spec
from infra.waiting import Item, Wait

NAMES = tuple(catalog.APP_PORTS)
BUDGET = 60.0
"""Seconds for each to answer."""


def home(stack: Stack) -> Path:
    """Return the application's directory."""
    return stack.home / "app"


def url(settings: Settings, name: str) -> str:
    """Return the address of `backend` or `frontend`."""
    return f"http://{HOST}:{settings.port(catalog.APP_PORTS[name].setting)}"


def log(stack: Stack, name: str) -> Path:
    """Return the path of its log."""
    return home(stack) / f"{name}.log"


def taken(settings: Settings, stack: Stack) -> list[Conflict]:
    """Return the ports that are taken; those of our own running application are not counted."""
    running = {state.name for state in supervise.survivors(home(stack))}
    ports = {name: port for name, port in catalog.APP_PORTS.items() if name not in running}
    return conflicts(HOST, [Claim(name, port.setting, settings.port(port.setting)) for name, port in ports.items()])


def ensure(stack: Stack, specs: list[Spec], console: Console) -> None:
    """Keep backend and frontend running and wait until they answer.

    Raises:
        PlatformError: SERVICE_FAILED, WAIT_TIMEOUT, STATE_UNWRITABLE.
    """
    try:
        for spec in specs:
            private.directory(Path(spec.cwd))
        supervise.ensure(home(stack), specs)
    except OSError as error:
        raise unwritable(home(stack), error) from error
    Wait(console, lambda: _items(home(stack)), retry="invoke app.run").until_ready()


def specs(
    settings: Settings,
    stack: Stack,
    values: Mapping[str, str],
    links: Mapping[str, str],
    runner: str,
    signing: Mapping[str, str],
) -> list[Spec]:
    """Specify the processes that the supervisor runs.

    Args:
        values: the `.env` contract.
        links: what the page lists, name -> address.
        runner: how the backend's trainings run.
        signing: the variable that holds, or leads to, the key that signs them.
    """
    backend = {**values, **signing, "SERVICE_LINKS": json.dumps(links), "TRAINING_RUNNER": runner}
    frontend = {"BACKEND_URL": url(settings, "backend")}
    return [_spec(settings, stack, name, env) for name, env in (("backend", backend), ("frontend", frontend))]


def _spec(settings: Settings, stack: Stack, name: str, env: Mapping[str, str]) -> Spec:
    port = settings.port(catalog.APP_PORTS[name].setting)
    own = {
        "APP_ALLOWED_HOSTS": settings.text("APP_ALLOWED_HOSTS"),
        "APP_HOST": HOST,
        "APP_PORT": str(port),
        "PYTHONPATH": str(ROOT),
        "PYTHONUTF8": "1",
    }
    return Spec(
        name=name,
        argv=[sys.executable, "-m", f"apps.{name}"],
        cwd=str(home(stack) / name),
        log=str(log(stack, name)),
        env={**supervise.passed(settings), **env, **own},
        probe={"kind": "http", "host": HOST, "port": port, "path": "/health"},
        budget=BUDGET,
    )


def addresses(endpoints: Endpoints, engines: Mapping[str, str]) -> dict[str, str]:
    """Return where people reach each running service, by its title; the page to look at where it has one."""
    found = {}
    for name in endpoints.services:
        entry = catalog.service(name)
        lacking = {gap.feature for gap in catalog.gaps(engines.get(name, ""))}
        roles = [p.role for p in entry.ports if not (p.role == "console" and "s3-console" in lacking)]
        page = next((role for role in ("ui", "web", "console") if role in roles), "")
        found[entry.title] = endpoints.url(name, page) if page else endpoints.address(name)
    return found


def _items(directory: Path) -> list[Item]:
    supervise.start_supervisor(directory)
    # What a supervisor that was killed wrote last is no news.
    states = supervise.states(directory) if supervise.supervisor_identity(directory) else {}
    return [_item(spec, states.get(spec.name)) for spec in supervise.desired(directory)]


def _item(spec: Spec, state: supervise.State | None) -> Item:
    if state is None or state.fingerprint != spec.fingerprint:
        return Item(spec.name, "waiting", budget=spec.budget, log=Path(spec.log))
    return Item(spec.name, state.state, state.detail, (), spec.budget, state.fatal, Path(spec.log), state.restarts)


def stop(stack: Stack) -> bool:
    """Stop both; True when something ran."""
    return supervise.stop(home(stack))
