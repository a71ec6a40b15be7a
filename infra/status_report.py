"""The state of the services: processes as the tier sees them, and whether each one answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from infra import health, proof
from infra.probes import Finding
from infra.tiers.base import ServiceStatus, Tier


@dataclass(frozen=True)
class StatusReport:
    """A tier's services with the answers of their functional probes, and the worst state of all."""

    services: list[ServiceStatus]
    findings: Mapping[str, Finding]
    state: str


def report(tier: Tier) -> StatusReport:
    """Return the status of everything: processes as the tier sees them, and whether each one answers now."""
    found = tier.status() if tier.running() else []
    live = [s.name for s in found if s.state in ("ready", "starting")]
    ends = tier.endpoints()
    client = proof.psql(tier.context.settings)
    findings = health.ask({n: health.probe(ends, n, client) for n in live}, limit=3.0)
    return StatusReport(found, findings, overall(found, findings))


def overall(found: Sequence[ServiceStatus], findings: Mapping[str, Finding]) -> str:
    """Return the state of several services as one word: ready, starting, degraded or stopped."""
    if not found or all(s.state == "stopped" for s in found):
        return "stopped"
    if all(s.state == "ready" and findings[s.name].ok for s in found):
        return "ready"
    on_the_way = all(s.state in ("starting", "waiting") or (s.state == "ready" and findings[s.name].ok) for s in found)
    return "starting" if on_the_way else "degraded"


def state_of(service: ServiceStatus, findings: Mapping[str, Finding]) -> tuple[str, str]:
    """Return state and detail of one service for people: a process that does not answer is `unhealthy`."""
    finding = findings.get(service.name)
    if service.state == "ready" and finding is not None and not finding.ok:
        return "unhealthy", one_line(service.detail or finding.detail)
    return service.state, one_line(service.detail)


def one_line(text: str, limit: int = 200) -> str:
    """Return a server's message, fit for a table."""
    flat = " ".join(text.split())
    return flat if len(flat) <= limit else f"{flat[:limit]}..."
