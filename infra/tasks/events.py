"""What happens during long work, as NDJSON on stdout where that was asked for (`--json-stream`)."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

from infra.console import Answer, write_line
from infra.errors import PlatformError
from infra.tasks.command import Run

Event = Callable[[str, dict[str, Any]], None]

STREAM = "events as JSON, one a line, instead of the answer"


@contextlib.contextmanager
def events(run: Run, stream: bool) -> Iterator[Event]:
    """A function that takes (type, facts); a failure is an event, too."""

    def event(kind: str, facts: dict[str, Any]) -> None:
        if stream:
            now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            line = json.dumps({"ts": now, "type": kind, **facts}, default=str)
            write_line(run.console.stdout, run.console.mask(line))

    try:
        yield event
    except PlatformError as error:
        event("error", {"code": error.code, "message": error.what})
        raise


def ended(event: Event, stream: bool, answer: Answer) -> Answer:
    """The answer, which is the last event of a stream."""
    if not stream:
        return answer
    event("result", {"data": answer.data})
    return Answer(answer.data, exit=answer.exit)
