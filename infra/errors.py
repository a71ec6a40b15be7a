"""Every failure a user can meet: its code, its exit status, and how it is said.

The exit codes are the stable, documented interface to scripts (docs/errors.md is made from this module).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum


class ExitCode(IntEnum):
    """Exit statuses of every task; the numbers never change."""

    OK = 0
    FAILED = 1
    USAGE = 2
    CONFIRM = 3
    PREFLIGHT = 4
    DEPENDENCY = 5
    TIMEOUT = 6
    SERVICE_FAILED = 7
    INCOMPATIBLE = 8
    NOTHING = 9
    BACKUP = 10
    PARTIAL = 11
    LOCKED = 12
    INTERRUPTED = 130
    TERMINATED = 143


EXIT_MEANING: Mapping[ExitCode, str] = {
    ExitCode.OK: "done, healthy",
    ExitCode.FAILED: "failed; the error code says why",
    ExitCode.USAGE: "wrong usage or a wrong setting",
    ExitCode.CONFIRM: "confirmation needed: add --yes",
    ExitCode.PREFLIGHT: "a check before the start, or doctor, found a failure; nothing was started",
    ExitCode.DEPENDENCY: "a program or server is missing, cannot be reached or refused the login",
    ExitCode.TIMEOUT: "timed out",
    ExitCode.SERVICE_FAILED: "a service entered a failed state",
    ExitCode.INCOMPATIBLE: "data or version incompatible; refused, nothing was changed",
    ExitCode.NOTHING: "not running, or not found",
    ExitCode.BACKUP: "a backup or its verification failed",
    ExitCode.PARTIAL: "done, except the items named",
    ExitCode.LOCKED: "another run holds the lock",
    ExitCode.INTERRUPTED: "interrupted (Ctrl-C)",
    ExitCode.TERMINATED: "terminated (SIGTERM)",
}


@dataclass(frozen=True)
class ErrorKind:
    """The meaning of an error code."""

    exit: ExitCode
    summary: str
    retryable: bool = False


CODES: Mapping[str, ErrorKind] = {
    "INTERNAL": ErrorKind(ExitCode.FAILED, "a bug in this tool; run it again with --debug and report it"),
    "TASK_FAILED": ErrorKind(ExitCode.FAILED, "the task ran, but its work failed, e.g. a training"),
    "USAGE": ErrorKind(ExitCode.USAGE, "unknown task, option, service or job, or an invalid value"),
    "SETTING_INVALID": ErrorKind(ExitCode.USAGE, "a setting has an invalid value"),
    "SETTING_UNKNOWN": ErrorKind(ExitCode.USAGE, "a setting with this name does not exist; probably a typo"),
    "SITE_INVALID": ErrorKind(ExitCode.USAGE, "a site file has values that do not fit"),
    "SETTINGS_UNREADABLE": ErrorKind(ExitCode.USAGE, "the .env file cannot be read or parsed"),
    "CONFIRMATION_NEEDED": ErrorKind(ExitCode.CONFIRM, "this deletes or overwrites something: add --yes"),
    "PLAN_STALE": ErrorKind(
        ExitCode.CONFIRM, "files or cluster have changed since the plan was made; nothing was changed"
    ),
    "FROZEN": ErrorKind(ExitCode.PREFLIGHT, "the cluster is frozen by an annotation; nothing was changed"),
    "TRUST_NEEDED": ErrorKind(ExitCode.CONFIRM, "a backup that was made elsewhere can run code here: add --trust"),
    "PREFLIGHT_FAILED": ErrorKind(ExitCode.PREFLIGHT, "a check before the start failed; nothing was started"),
    "PORT_TAKEN": ErrorKind(ExitCode.PREFLIGHT, "a port that a service needs is in use"),
    "STATE_UNWRITABLE": ErrorKind(ExitCode.PREFLIGHT, "the state directory cannot be written"),
    "STATE_UNSAFE": ErrorKind(ExitCode.PREFLIGHT, "a directory is another user's, or others may write to it; not used"),
    "PROGRAM_MISSING": ErrorKind(ExitCode.DEPENDENCY, "a required program is not installed"),
    "PROGRAM_FAILED": ErrorKind(ExitCode.FAILED, "a program that the task called failed"),
    "UNREACHABLE": ErrorKind(ExitCode.DEPENDENCY, "a server does not answer", retryable=True),
    "LOGIN_REFUSED": ErrorKind(ExitCode.DEPENDENCY, "a server refused the user or the password"),
    "SQL_FAILED": ErrorKind(ExitCode.FAILED, "PostgreSQL refused a statement; its SQLSTATE says why"),
    "REQUEST_REFUSED": ErrorKind(ExitCode.DEPENDENCY, "a server answered a request with an error"),
    "DATABASE_BUSY": ErrorKind(
        ExitCode.DEPENDENCY, "PostgreSQL answers, but not now: it starts, is full, or in use", True
    ),
    "TIER_UNAVAILABLE": ErrorKind(ExitCode.DEPENDENCY, "the tier cannot run on this machine"),
    "DOCKER_MISSING": ErrorKind(ExitCode.DEPENDENCY, "Docker is not installed"),
    "DOCKER_STOPPED": ErrorKind(ExitCode.DEPENDENCY, "Docker is installed but not running", retryable=True),
    "DOCKER_REFUSED": ErrorKind(ExitCode.DEPENDENCY, "this user is not allowed to use Docker"),
    "DOCKER_TOO_OLD": ErrorKind(ExitCode.DEPENDENCY, "the Docker engine is older than 20.10 (API 1.41)"),
    "COMPOSE_UNFIT": ErrorKind(ExitCode.DEPENDENCY, "Docker Compose is missing, is version 1, or is older than 2.24.4"),
    "REGISTRY_UNREACHABLE": ErrorKind(
        ExitCode.DEPENDENCY, "an image is not available locally, and its registry does not answer", True
    ),
    "IMAGE_UNAVAILABLE": ErrorKind(
        ExitCode.SERVICE_FAILED, "the registry does not have this image, or denies access to it"
    ),
    "CONTEXT_REFUSED": ErrorKind(
        ExitCode.PREFLIGHT, "the kubeconfig points to a different cluster; nothing was changed"
    ),
    "WAIT_TIMEOUT": ErrorKind(ExitCode.TIMEOUT, "the service was not ready within its time limit", retryable=True),
    "SERVICE_FAILED": ErrorKind(ExitCode.SERVICE_FAILED, "a service kept crashing or could not start"),
    "DATA_INCOMPATIBLE": ErrorKind(
        ExitCode.INCOMPATIBLE, "the data was written by an incompatible version; nothing was changed"
    ),
    "NOT_RUNNING": ErrorKind(ExitCode.NOTHING, "the platform or the service is not running"),
    "NOT_FOUND": ErrorKind(ExitCode.NOTHING, "the job or object does not exist"),
    "BACKUP_FAILED": ErrorKind(ExitCode.BACKUP, "a backup could not be made; earlier ones are untouched"),
    "BACKUP_DAMAGED": ErrorKind(ExitCode.BACKUP, "a backup is incomplete or damaged; it was not used"),
    "RESTORE_DIFFERS": ErrorKind(
        ExitCode.BACKUP, "a restored copy is not what was backed up, although the files are whole"
    ),
    "PARTIAL": ErrorKind(ExitCode.PARTIAL, "done, except the items named"),
    "LOCKED": ErrorKind(ExitCode.LOCKED, "another run is in progress on this stack", retryable=True),
    "INTERRUPTED": ErrorKind(ExitCode.INTERRUPTED, "interrupted by Ctrl-C", retryable=True),
    "TERMINATED": ErrorKind(ExitCode.TERMINATED, "terminated by SIGTERM", retryable=True),
}


def nearest(word: str, known: Iterable[str], cutoff: float = 0.5) -> tuple[str, ...]:
    """Make the first step of an error about an unknown name: `did you mean X?`; () where nothing is near.

    Args:
        cutoff: how alike they have to be, from 0 to 1 (difflib.get_close_matches).
    """
    import difflib

    return tuple(f"did you mean {name}?" for name in difflib.get_close_matches(word, list(known), n=1, cutoff=cutoff))


class PlatformError(Exception):
    """A failure with everything its reader needs: what, why, and what to do next.

    Args:
        code: a key of `CODES`; decides the exit status.
        what: one sentence that says what failed.
        why: the cause, where it is known.
        steps: what to do next; commands or short sentences, most useful first.
        details: data for the JSON envelope (and, as `log`, last lines of a log to print).

    Raises:
        KeyError: for a code that is not in `CODES`.
    """

    def __init__(
        self,
        code: str,
        what: str,
        *,
        why: str = "",
        steps: tuple[str, ...] = (),
        details: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(what)
        self.code = code
        self.kind = CODES[code]
        self.what = what
        self.why = why
        self.steps = steps
        self.details = dict(details or {})

    @property
    def exit(self) -> ExitCode:
        """The exit status that this failure ends with."""
        return self.kind.exit
