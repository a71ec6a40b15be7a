"""The last words of a pod and the events about it, written down for the error block and for bug reports."""

from __future__ import annotations

import contextlib
from pathlib import Path

from infra import private
from infra.kube.api import NoAnswer, Reader
from infra.kube.snapshot import Snapshot
from infra.kube.verdict import Verdict
from infra.stack import write_atomic

LINES = 12
EVENTS = 8


def describe(api: Reader, seen: Verdict, found: Snapshot, note: Path) -> None:
    """Write what is known of the pod to blame to a file; an old one is gone when there is nothing to say."""
    lines = [*log(api, seen, LINES), *events(found, EVENTS)]
    with contextlib.suppress(OSError):
        private.directory(note.parent)
        if lines:
            write_atomic(note, "\n".join(lines) + "\n", mode=0o600, sync=False)
        else:
            note.unlink(missing_ok=True)


def log(api: Reader, seen: Verdict, count: int) -> list[str]:
    """Return the last lines of the container to blame, of its last run where it has crashed."""
    if not (seen.pod and seen.container):
        return []
    path = f"/api/v1/namespaces/{seen.namespace}/pods/{seen.pod}/log"
    for previous in ("true", "false") if seen.previous else ("false",):
        with contextlib.suppress(NoAnswer):
            text = api.text(path, container=seen.container, tailLines=str(count), previous=previous)
            if text.strip():
                return text.rstrip().splitlines()
    return []


def events(found: Snapshot, count: int) -> list[str]:
    """Return the last warnings, oldest first: reason, object and message."""
    warnings = [e for e in found.events if e.get("type") == "Warning"]
    warnings.sort(key=lambda e: str(e.get("lastTimestamp") or e.get("eventTime") or ""))
    lines = []
    for event in warnings[-count:]:
        about = event.get("involvedObject") or {}
        message = " ".join(str(event.get("message", "")).split())
        lines.append(
            f"event {event.get('reason', '')} {about.get('kind', '').lower()}/{about.get('name', '')}: {message}"
        )
    return lines
