"""The notification at the end of a training (PLATFORM_NOTIFY): a program that is run, or a webhook that gets a POST.

Both get the same JSON object, the program on its standard input. A worker that dies meanwhile notifies again: at least
once.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from infra import catalog, setting_rules, shell
from infra.errors import PlatformError
from infra.training import command_line
from infra.training.jobs import Job

NOTIFY = "PLATFORM_NOTIFY"
LIMIT = 10.0
"""Seconds for the whole notification."""
CONNECT = 3.0
"""Seconds to reach a webhook."""
VARIABLES: Mapping[str, str] = {
    **{"TRAINING_JOB_ID": "job", "TRAINING_STATE": "state", "TRAINING_EXPERIMENT": "experiment"},
    **{"TRAINING_ERROR": "error", "TRAINING_SECONDS": "seconds"},
}
"""Variable of the program -> the field that it has the value of."""
_OURS = ("PLATFORM_", "TRAINING_")


class NotifyError(Exception):
    """The notification was not delivered; its text holds nothing of the address, which may be a secret."""


def body(job: Job) -> dict[str, Any]:
    """Return the message about a training that has ended; times are ISO 8601, `seconds` from its start."""
    took = (job.finished_at - job.started_at).total_seconds() if job.finished_at and job.started_at else None
    return {
        **{"job": job.id, "state": job.state, "experiment": job.experiment, "command": job.command or ""},
        **{"sweep": job.sweep, "attempt": job.attempt, "error": job.error or "", "val_accuracy": job.val_accuracy},
        "created_at": job.created_at.isoformat(),
        "started_at": job.started_at.isoformat() if job.started_at else None,
        "finished_at": job.finished_at.isoformat() if job.finished_at else None,
        "seconds": took,
    }


def send(target: str, told: Mapping[str, Any], cwd: Path) -> None:
    """Send a notification; a program runs in `cwd`.

    Raises:
        NotifyError: it was refused, failed, or took too long.
    """
    if setting_rules.is_webhook(target):
        _post(target, told)
    else:
        _run(target, told, cwd)


def _post(url: str, told: Mapping[str, Any]) -> None:
    import requests

    try:
        # Redirects are not followed: a POST would become a GET.
        answer = requests.post(url, json=told, timeout=(CONNECT, LIMIT), allow_redirects=False, stream=True)
        answer.close()
    except requests.RequestException as error:
        raise NotifyError(f"{urlsplit(url).hostname} does not answer ({type(error).__name__})") from error
    if not 200 <= answer.status_code < 300:
        raise NotifyError(f"{urlsplit(url).hostname} answered {answer.status_code}")


def _run(command: str, told: Mapping[str, Any], cwd: Path) -> None:
    given = {name: str("" if told[field] is None else told[field]) for name, field in VARIABLES.items()}
    env = {name: value.replace("\0", "") for name, value in given.items()}
    try:
        argv = command_line.split(command)
        done = shell.run(argv, env=env, cwd=cwd, stdin=json.dumps(told), limit=LIMIT, check=False, without=_withheld())
    except PlatformError as error:
        raise NotifyError(error.what) from error
    if done.code:
        raise NotifyError(f"{Path(argv[0]).name} ended with {done.code}: {done.last_line}".rstrip(": "))


def _withheld() -> list[str]:
    """Return the worker's variables that are none of the program's business: logins and keys."""
    names = {*catalog.CONTRACT_NAMES, *catalog.MLFLOW_LOGIN}
    return [name for name in os.environ if name.startswith(_OURS) or name in names]
