"""The state of a service from the supervisor's notes: for a wait, and for people."""

from __future__ import annotations

import contextlib
from pathlib import Path

from infra.supervision import process
from infra.supervision.client import Spec, State
from infra.tiers.base import ServiceStatus
from infra.waiting import Item


def item(spec: Spec, state: State | None) -> Item:
    """Return a service as a wait sees it; notes that were made of another specification are none."""
    name, needs, budget, log = spec.name, tuple(spec.needs), spec.budget, Path(spec.log)
    if state is None or state.fingerprint != spec.fingerprint:
        return Item(name, "waiting", "for the supervisor", needs, budget, log=log)
    if state.state == "ready" and not (state.identity and state.identity.process()):
        return Item(name, "starting", "its process has just ended", needs, budget, log=log)
    return Item(name, state.state, state.detail, needs, budget, state.fatal, log, state.restarts)


def service(spec: Spec, state: State | None, supervised: bool) -> ServiceStatus:
    """Return a service for people, without its memory; `supervised`: whether the supervisor runs."""
    live = state.identity.process() if state and state.identity else None
    if state is None or (live is None and state.state in ("ready", "starting")):
        return ServiceStatus(spec.name, "stopped", log=spec.log)
    alone = live is not None and not supervised
    return ServiceStatus(
        spec.name,
        "unsupervised" if alone else state.state,
        "its supervisor has ended, so nothing would restart it; invoke up starts a new one" if alone else state.detail,
        state.pid if live else None,
        restarts=state.restarts,
        since=state.since,
        log=spec.log,
    )


def memory(state: State | None) -> int | None:
    """Sum the resident bytes of a service's whole process tree; None when it does not run."""
    import psutil

    live = state.identity.process() if state and state.identity else None
    if live is None:
        return None
    total = 0
    for member in process.tree(live):
        with contextlib.suppress(psutil.Error):
            total += member.memory_info().rss
    return total
