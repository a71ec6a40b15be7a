"""The last door for failures of packages that speak to servers: none reaches a user by the name of its class."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from infra import database
from infra.errors import PlatformError

_LOOK = ("invoke status", "invoke doctor")
_DEBUG = "run it again with --debug for the place in the code"


def recognized(error: BaseException) -> PlatformError | None:
    """Return the error that a failure of psycopg, botocore, docker and the like stands for; None for any other."""
    root = type(error).__module__.partition(".")[0]
    made = _PACKAGES.get(root)
    return made(error) if made else None


def _postgres(error: Any) -> PlatformError:
    return database.failure(error, "", "a statement of this task") if database.is_failure(error) else _odd(error)


def _objects(error: Any) -> PlatformError:
    from botocore import exceptions

    if isinstance(error, exceptions.HTTPClientError | exceptions.ConnectionError | exceptions.IncompleteReadError):
        return _silent("an object store", error, "invoke logs -s minio-results")
    if not isinstance(error, exceptions.ClientError):
        return _odd(error)
    told = error.response.get("Error", {})
    code, status = str(told.get("Code", "")), error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    what = f"an object store refused the request {error.operation_name}"
    why = f"{code}: {told.get('Message', '')}".strip(": ")
    if status in (401, 403):
        return PlatformError("LOGIN_REFUSED", what, why=why, steps=("check MINIO_ROOT_USER in .env", "invoke doctor"))
    made = ("invoke up creates missing buckets",) if code in ("NoSuchBucket", "404") else ()
    return PlatformError("REQUEST_REFUSED", what, why=why, steps=(*made, "invoke logs -s minio-results", *_LOOK))


def _docker(error: Any) -> PlatformError:
    import docker
    import requests

    if isinstance(error.__cause__ or error.__context__, requests.RequestException):
        return _silent("Docker", error, "invoke doctor --tier compose")
    if isinstance(error, docker.errors.DockerException):
        steps = ("invoke doctor --tier compose", "docker info")
        return PlatformError("REQUEST_REFUSED", "Docker refused a request", why=_said(error), steps=steps)
    return _odd(error)


def _temporal(error: Any) -> PlatformError:
    from temporalio.service import RPCError, RPCStatusCode

    away = (RPCStatusCode.UNAVAILABLE, RPCStatusCode.DEADLINE_EXCEEDED, RPCStatusCode.CANCELLED)
    if isinstance(error, RPCError) and error.status in away:
        return _silent("Temporal", error, "invoke logs -s temporal")
    steps = ("invoke logs -s temporal", *_LOOK)
    return PlatformError("REQUEST_REFUSED", "Temporal refused a request", why=_said(error), steps=steps)


def _redis(error: Any) -> PlatformError:
    from redis import exceptions

    if isinstance(error, exceptions.AuthenticationError | exceptions.NoPermissionError):
        steps = ("check REDIS_PASSWORD in .env", "invoke doctor")
        return PlatformError("LOGIN_REFUSED", "Redis refused the password", why=_said(error), steps=steps)
    if isinstance(error, exceptions.ConnectionError | exceptions.TimeoutError):
        return _silent("Redis", error, "invoke logs -s redis")
    more = ("invoke logs -s redis", *_LOOK)
    return PlatformError("REQUEST_REFUSED", "Redis refused a command", why=_said(error), steps=more)


def _web(error: Any) -> PlatformError:
    return _silent("a server", error)


def _silent(who: str, error: BaseException, *steps: str) -> PlatformError:
    return PlatformError("UNREACHABLE", f"{who} does not answer", why=_said(error), steps=(*_LOOK, *steps))


def _odd(error: BaseException) -> PlatformError:
    """Describe a failure of a package before it asked any server, e.g. for an argument: a defect of this project."""
    return PlatformError("INTERNAL", "a request could not be made", why=_said(error), steps=(_DEBUG, "and report it"))


def _said(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), "")


_PACKAGES: Mapping[str, Callable[[Any], PlatformError]] = {
    "psycopg": _postgres,
    "botocore": _objects,
    "boto3": _objects,
    "docker": _docker,
    "temporalio": _temporal,
    "redis": _redis,
    "requests": _web,
    "urllib3": _web,
}
