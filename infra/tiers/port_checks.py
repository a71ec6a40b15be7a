"""Ports of this machine that services want and that others hold, as findings with their remedies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from infra.ports import Conflict, Holder
from infra.tiers.base import Check


def ports(conflicts: Sequence[Conflict], own_home: Path) -> list[Check]:
    """Return one failure for each port that is not available, with its holder and the setting that moves it."""
    return [_port(conflict, own_home) for conflict in conflicts] or [
        Check("ports", "ok", "not in use by another program")
    ]


def _port(conflict: Conflict, own_home: Path) -> Check:
    claim, holder = conflict.claim, conflict.holder
    foreign = holder.stack_home is not None and holder.stack_home.resolve() != own_home.resolve()
    text = f"port {claim.port} ({claim.service}) {conflict.reason or 'is taken' + by_whom(holder, foreign)}"
    move = f"set {claim.setting} to another port, or use invoke up --auto-ports"
    if foreign:
        remedy = f"stop that stack (invoke down in its checkout), or {move}"
    elif holder.pid:
        remedy = f"end that process, or {move}"
    else:
        remedy = move
    return Check(f"port.{claim.port}", "fail", text, remedy, "PORT_TAKEN")


_UNSEEN = " by a process this user cannot see: another user's, or a closing connection"


def by_whom(holder: Holder, foreign: bool) -> str:
    """Name the holder of a port, as the end of a sentence that says that it is taken."""
    if foreign:
        return f" by another stack of this platform, {holder.stack_home} ({holder.name}, pid {holder.pid})"
    return f" by {holder.name or 'a process'}, pid {holder.pid}" if holder.pid else _UNSEEN
