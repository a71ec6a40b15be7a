"""Events of long work, as NDJSON on stdout where that was asked for (`--json-stream`)."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

from infra.console import Answer, write_line
from infra.context import Context
from infra.errors import ExitCode, PlatformError

Event = Callable[[str, dict[str, Any]], None]

TRUST_VERIFIED = "load a backup that was made elsewhere with all rights of the server, which can run code here"
TRUST = "restore a backup that was made elsewhere, whose contents can run code here"
STREAM = "print events as JSON, one per line, instead of the result"


def silent(kind: str, facts: dict[str, Any]) -> None:
    """Ignore an event, in runs whose events nobody follows."""


@contextlib.contextmanager
def events(context: Context, stream: bool) -> Iterator[Event]:
    """Open a stream of events: a function of (type, facts), `silent` where none is wanted; a failure is an event."""

    def event(kind: str, facts: dict[str, Any]) -> None:
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        line = json.dumps({"ts": now, "type": kind, **facts}, default=str)
        write_line(context.console.stdout, context.console.mask(line))

    told: Event = event if stream else silent
    try:
        yield told
    except PlatformError as error:
        told("error", {"code": error.code, "message": error.what, "exit": int(error.exit)})
        raise
    except KeyboardInterrupt:
        told("error", {"code": "INTERRUPTED", "message": "interrupted", "exit": int(ExitCode.INTERRUPTED)})
        raise


def ended(context: Context, event: Event, answer: Answer) -> Answer:
    """Return the answer, which is the last event of a stream."""
    if event is silent:
        return answer
    event("result", {"data": answer.data, "exit": answer.exit, "warnings": list(context.console.warnings)})
    return Answer(answer.data, exit=answer.exit)
