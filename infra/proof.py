"""The proof that the platform works: every functional question, after what is missing was made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from infra import database, health, probes
from infra.endpoints import Endpoints
from infra.errors import PlatformError
from infra.probes import Finding
from infra.settings import Settings
from infra.sqlstate import TOO_MANY_CONNECTIONS, of_text
from infra.waiting import login_steps

PATIENCE = 20.0
"""Seconds for an answer that did not come in the usual time."""


def heal(endpoints: Endpoints, client: Path) -> list[str]:
    """Ask every functional question; make the databases and buckets that are missing, and ask those again.

    Returns what had to be made.

    Raises:
        PlatformError: SERVICE_FAILED or LOGIN_REFUSED, naming what does not work although its process runs.
    """
    from infra.provision import ensure

    questions = health.thorough(endpoints, client)
    bad = _unanswered(questions)
    made: list[str] = []
    if bad and not set(bad) & set(endpoints.services):
        made = ensure.everything(endpoints)
        bad = _unanswered({name: questions[name] for name in bad})
    if bad:
        name, finding = next(iter(bad.items()))
        if of_text(finding.detail) == TOO_MANY_CONNECTIONS:
            raise database.full(endpoints.database_url("postgres"), f"{name} could not be asked", finding.detail)
        refused = finding.fatal and name in endpoints.services
        raise PlatformError(
            "LOGIN_REFUSED" if refused else "SERVICE_FAILED",
            f"{name} runs, but refuses the login" if refused else f"started, but {name} does not work",
            why=finding.detail,
            steps=(*(login_steps(name) if refused else ()), "invoke status", "invoke doctor"),
            details={"failed": {n: f.detail for n, f in bad.items()}},
        )
    return made


def _unanswered(questions: dict[str, dict[str, Any]]) -> dict[str, Finding]:
    """Return what is not as it should be; services that were only too slow are asked once more, with more time.

    And one by one where the server has not a connection for each question at once.
    """
    bad = {name: finding for name, finding in health.ask(questions).items() if not finding.ok}
    for name in [n for n, finding in bad.items() if of_text(finding.detail) == TOO_MANY_CONNECTIONS]:
        bad |= health.ask({name: questions[name]})
    slow = {name: questions[name] for name, finding in bad.items() if finding.detail == probes.TOO_SLOW}
    if slow:
        bad |= health.ask(slow, limit=PATIENCE)
    return {name: finding for name, finding in bad.items() if not finding.ok}


def psql(settings: Settings) -> Path:
    """Return the client program with which SQL servers are probed."""
    from infra.tiers import providers

    return providers.postgres_bin(settings).path / f"psql{providers.EXE}"
