"""Checks before the Compose tier starts: engine, Compose, ports, disk, memory, images, data, line ends."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from infra import ports, pull
from infra.console import human_bytes
from infra.ports import Claim, Conflict
from infra.settings import Settings
from infra.tiers.base import Check
from infra.tiers.compose import model
from infra.tiers.compose.model import ComposePart
from infra.tiers.compose.project import Listed
from infra.tiers.port_checks import by_whom

DISK_NEEDED = 1_000_000_000
"""Bytes that must be free in the engine's root: volumes at first use, logs; images are counted apart."""
DISK_WARN = 5_000_000_000
RESERVE = 500_000_000
"""Bytes of memory that the engine's machine needs for itself."""


def claims(settings: Settings, parts: Sequence[ComposePart]) -> list[Claim]:
    """Return the ports that these parts publish, with the settings that move them."""
    names = {settings.port(n): n for n in settings.values if _is_port(n)}
    return [Claim(p.owner or p.name, names.get(port, ""), port) for p in parts for port in p.ports]


def _is_port(name: str) -> bool:
    from infra import catalog

    return catalog.SETTINGS[name].kind == "port"


def port_checks(host: str, wanted: Sequence[Claim], seen: Sequence[Listed], project: str) -> list[Check]:
    """Return one failure for each port that another container or process has, our own containers aside."""
    own = {port for c in seen if c.project == project and c.runs for port in c.ports}
    found = ports.conflicts(host, [c for c in wanted if c.port not in own])
    publishers = {port: c for c in seen if c.runs for port in c.ports}
    return [_port(c, publishers.get(c.claim.port)) for c in found] or [
        Check("ports", "ok", "not in use by another program")
    ]


def _port(conflict: Conflict, publisher: Listed | None) -> Check:
    claim = conflict.claim
    move = f"set {claim.setting} to another port, or use --auto-ports" if claim.setting else "change compose/"
    text = f"port {claim.port} ({claim.service}{f', {claim.setting}' if claim.setting else ''}) "
    if publisher is not None:
        whose = f" of the Compose project {publisher.project}" if publisher.project else ""
        where = f" ({publisher.directory})" if publisher.directory else ""
        text += f"is taken by the container {publisher.name}{whose}{where}"
        if publisher.project and claim.setting:  # one step for all of a project's ports
            move = "use other ports: --auto-ports, or the settings named above"
            stop = f"docker compose -p {publisher.project} stop"
            return Check(f"port.{claim.port}", "fail", text, f"stop that project: {stop}; or {move}", "PORT_TAKEN")
        return Check(f"port.{claim.port}", "fail", text, f"docker stop {publisher.name}, or {move}", "PORT_TAKEN")
    text += conflict.reason or f"is taken{by_whom(conflict.holder, conflict.holder.stack_home is not None)}"
    remedy = f"end that process, or {move}" if conflict.holder.pid else move
    return Check(f"port.{claim.port}", "fail", text, remedy, "PORT_TAKEN")


def memory(total: int, parts: Sequence[ComposePart]) -> Check:
    """Return the engine's memory against the sum of the limits: a warning, since limits are rarely reached together."""
    limits = sum(p.memory for p in parts if not p.ends)
    text = f"the engine has {human_bytes(total)} of memory; the services' limits add up to {human_bytes(limits)}"
    if total and total - RESERVE < limits:
        remedy = "give Docker more memory, or leave out what you do not need: --light, --no-clearml"
        return Check("memory", "warn", text, remedy)
    return Check("memory", "ok", text)


def disk(root: str) -> Check:
    """Free space where the engine keeps its data, where that is on this machine."""
    path = Path(root)
    try:
        free = shutil.disk_usage(path).free
    except OSError:
        return Check("disk", "ok", f"the engine stores its data in {root}, which is not on this machine")
    text = f"{human_bytes(free)} free in {root}"
    if free < DISK_NEEDED:
        remedy = f"free {human_bytes(DISK_NEEDED - free)}: docker system df shows what takes it"
        return Check("disk", "fail", f"only {text}; {human_bytes(DISK_NEEDED)} is needed", remedy)
    return Check("disk", "warn" if free < DISK_WARN else "ok", text)


def images(parts: Sequence[ComposePart], present: Mapping[str, str]) -> Check:
    """Check that the images are here; missing ones are pulled by `up`."""
    absent = pull.missing([p.image for p in parts], present)
    if absent:
        return Check("images", "warn", f"not present yet, will be pulled: {', '.join(absent)}", "invoke compose.pull")
    return Check("images", "ok", "all images are present")


def line_ends(parts: Sequence[ComposePart], root: Path) -> list[Check]:
    """Check that no mounted file has Windows line endings, on which shells and entry points fail."""
    files = {p for part in parts for p in model.mounted_files(part, root)}
    bad = sorted(str(p.relative_to(root)) for p in files if p.suffix != ".json" and _has_crlf(p))
    if not bad:
        return []
    remedy = f"git config core.autocrlf false, then: git checkout -- {' '.join(bad)}"
    return [Check("line-ends", "fail", f"Windows line endings (CRLF) in {', '.join(bad)}", remedy)]


def _has_crlf(path: Path) -> bool:
    try:
        return b"\r\n" in path.read_bytes()
    except OSError:
        return False
