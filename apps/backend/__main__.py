"""`python -m apps.backend`: serve on APP_HOST (127.0.0.1) and APP_PORT (8000).

TRAINING_RUNNER says how trainings run: `subprocess` (default) or `job`; SERVICE_LINKS what `/services` lists.
APP_ALLOWED_HOSTS names what it may be called, beside localhost. Trainings are signed with
the key in the directory TRAINING_ORDERS, or with TRAINING_KEY.
"""

from __future__ import annotations

import os
import sys

import uvicorn

from apps import hosts
from apps.backend import api
from apps.backend.links import links
from apps.backend.ready import warm_up
from infra.console import write_line
from infra.errors import PlatformError
from infra.training import contract, orders
from infra.training.request import RUNNERS, SUBPROCESS


def main() -> int:
    """Serve until SIGTERM; 2 when the environment lacks something."""
    environ = os.environ
    try:
        found = contract.read()
        runner = environ.get("TRAINING_RUNNER") or SUBPROCESS
        if runner not in RUNNERS:
            raise PlatformError("USAGE", f"TRAINING_RUNNER is {runner!r}", why=f"it is one of {', '.join(RUNNERS)}")
        app = api.create(found, links(found, environ), runner, orders.from_environment(environ), hosts.allowed(environ))
    except PlatformError as error:
        write_line(sys.stderr, f"{error.what}: {error.why}".rstrip(" :"))
        return int(error.exit)
    warm_up()
    host, port = environ.get("APP_HOST") or "127.0.0.1", int(environ.get("APP_PORT") or "8000")
    uvicorn.run(app, host=host, port=port, log_level="info", access_log=False, server_header=False)
    sys.stdout.flush()
    # Threads of temporalio's core may call into an interpreter that is being taken down, which aborts it.
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
