"""Orders that the worker may run: those that carry the stack's signature, each once.

Temporal, the database and the object stores have no login, or one that everybody knows. So nothing that stands there
decides what is run: the client of an order signs it (HMAC-SHA256) with a key that only this stack has, and the worker
checks that. An order for a program of the worker is also a private file, which ends with the training: the values of
its environment are in no server, and what has ended cannot be run again.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from infra import private
from infra.errors import PlatformError
from infra.stack import read_json, write_atomic
from infra.training.request import JOB, SUBPROCESS, Request, workflow_id

if TYPE_CHECKING:
    from infra.training.cluster import JobCluster

DIRECTORY = "TRAINING_ORDERS"
"""Variable of the worker and the backend: the private directory with the key and the orders."""
KEY = "TRAINING_KEY"
"""Variable that holds the key itself, in a cluster."""
VALID = 7 * 86_400
"""Seconds in which an order for a Kubernetes Job may begin. The Job of one that has ended stays longer than that."""
_PURPOSE = b"training order 1\n"
_JOB = re.compile(r"[a-z0-9][a-z0-9-]{0,99}")
_KEY_BYTES = 32
# Signed only where they are not the default: orders of earlier versions, which lack them, stay valid.
_ADDED: Mapping[str, object] = {"workers": 1, "queue": "", "priority": "", "env_names": []}
_KEY_PATIENCE = 2.0


class OrderRefused(Exception):
    """An order must not be run; the message says why."""


class Variables(Protocol):
    """The place for the variables that people give to the programs of Jobs."""

    def put(self, job: str, env: Mapping[str, str]) -> None:
        """Keep those of a training. Raises PlatformError USAGE, UNREACHABLE, REQUEST_REFUSED."""

    def drop(self, job: str) -> None:
        """Remove those of a training that has not begun, as far as that is possible."""


@dataclass(frozen=True)
class Orders:
    """Places and checks orders. Without a directory (in a cluster) there are only orders for Jobs.

    `variables` keeps those that people give to a Job; None where nobody gives any (workers, the backend).
    """

    key: bytes = field(repr=False)
    directory: Path | None = None
    variables: Variables | None = field(default=None, repr=False)

    @property
    def variable(self) -> dict[str, str]:
        """The variable by which another process of this user gets the same orders."""
        return {DIRECTORY: str(self.directory)} if self.directory else {KEY: self.key.decode("ascii")}

    def place(self, request: Request, env: Mapping[str, str], now: float | None = None) -> Request:
        """Sign an order, and keep the environment of its program: in a private file, of a Job in its Secret.

        Raises:
            PlatformError: STATE_UNWRITABLE; USAGE where nothing can be kept; of a Job what `Variables` raises.
            OSError: the file cannot be written.
        """
        names = sorted(env) if request.runner == JOB else []
        signed = replace(request, issued=int(time.time() if now is None else now), env_names=names)
        signed = replace(signed, signature=self._signature(signed))
        if signed.runner == SUBPROCESS:
            kept = {"signature": signed.signature, "env": dict(env)}
            write_atomic(self._file(signed.job), json.dumps(kept), mode=0o600)
        elif names:
            self._of_jobs().put(signed.job, env)
        return signed

    def check(self, request: Request, workflow: str, runner: str) -> None:
        """Accept an order of this stack, for this kind of worker, in its own workflow, that has not ended.

        Raises:
            Refused: it is unsigned, altered or replayed.
        """
        self._check_signature(request)
        if request.runner != runner:
            raise OrderRefused(f"it is for the runner {request.runner}, not for {runner}")
        if workflow != workflow_id(request.job):
            raise OrderRefused(f"it belongs to the workflow {workflow_id(request.job)}, not to another one")
        if request.runner == SUBPROCESS and self._kept(request.job).get("signature") != request.signature:
            raise OrderRefused("its training has ended, or was ordered on another machine: an order is not run again")

    def check_begins(self, request: Request, now: float | None = None) -> None:
        """Accept the order of a Kubernetes Job that may be made now.

        Raises:
            Refused: it is too old: its Job may have ended and been cleared away.
        """
        age = (time.time() if now is None else now) - request.issued
        if request.runner == JOB and age > VALID:
            raise OrderRefused(f"it was placed {age / 86_400:.0f} days ago: an order is not run again")

    def environment(self, job: str) -> dict[str, str]:
        """Return the environment that the program of an order gets, by name; nothing where none is kept."""
        found = self._kept(job).get("env")
        return {str(k): str(v) for k, v in found.items()} if isinstance(found, dict) else {}

    def close(self, job: str) -> None:
        """End an order: its values are gone, and it is not run again."""
        if self.directory is not None and _JOB.fullmatch(job):
            with contextlib.suppress(OSError):
                self._file(job).unlink(missing_ok=True)
        if self.variables is not None:
            self.variables.drop(job)

    def authentic(self, request: Request) -> bool:
        """Tell whether an order, running or ended, was placed with this key."""
        try:
            self._check_signature(request)
        except OrderRefused:
            return False
        return True

    def _check_signature(self, request: Request) -> None:
        if not request.signature:
            raise OrderRefused("it is not signed")
        if not hmac.compare_digest(self._signature(request).encode(), request.signature.encode()):
            raise OrderRefused("its signature is wrong: it was altered, or signed with the key of another stack")
        if not _JOB.fullmatch(request.job):
            raise OrderRefused("its job has a name that this platform never gives")

    def _signature(self, request: Request) -> str:
        fields = {name: value for name, value in asdict(request).items() if name != "signature"}
        fields = {name: value for name, value in fields.items() if _ADDED.get(name, ...) != value}
        text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
        return hmac.new(self.key, _PURPOSE + text.encode(), hashlib.sha256).hexdigest()

    def _kept(self, job: str) -> Mapping[str, object]:
        return (read_json(self._file(job)) or {}) if self.directory is not None else {}

    def _of_jobs(self) -> Variables:
        if self.variables is None:
            raise PlatformError("USAGE", "variables for a Job cannot be kept here", steps=("use invoke train.run",))
        return self.variables

    def _file(self, job: str) -> Path:
        if self.directory is None:
            steps = ("give the backend TRAINING_ORDERS as invoke app.run does", "or TRAINING_RUNNER=job")
            raise PlatformError("USAGE", f"a program of a worker cannot be ordered without {DIRECTORY}", steps=steps)
        return self.directory / f"{job}.json"


def open_orders(directory: Path) -> Orders:
    """Return the orders of a stack; its directory and key are made where they are missing.

    Raises:
        OSError: they cannot be made or read.
        PlatformError: DATA_INCOMPATIBLE for a damaged key.
    """
    private.directory(directory)
    path = directory / "key"
    with contextlib.suppress(FileExistsError):
        descriptor = private.new_file(path)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_hex(_KEY_BYTES))
    return Orders(_read_key(path), directory)


def from_environment(environ: Mapping[str, str]) -> Orders | None:
    """Return the orders of this process: in a cluster by TRAINING_KEY, else by TRAINING_ORDERS; None without either.

    Raises:
        OSError, PlatformError: as `open_orders`; USAGE for a key that is none.
    """
    if environ.get(KEY):
        return from_text(environ[KEY])
    return open_orders(Path(environ[DIRECTORY])) if environ.get(DIRECTORY) else None


def from_text(key: str) -> Orders:
    """Return the orders of a key that stands in a variable or a Secret; for Jobs only.

    Raises:
        PlatformError: USAGE for a key that is too short to be one.
    """
    if len(key.strip()) < _KEY_BYTES:
        raise PlatformError("USAGE", f"{KEY} is shorter than {_KEY_BYTES} characters", steps=("openssl rand -hex 32",))
    return Orders(key.strip().encode())


def of_cluster(cluster: JobCluster, secret: str, namespace: str) -> Orders:
    """Return the orders of the application in a cluster, by the key in its Secret of that namespace.

    Raises:
        cluster.Away, cluster.Refused: as the cluster answers.
        PlatformError: TIER_UNAVAILABLE when there is no key.
    """
    key = cluster.secret(secret, KEY, namespace)
    if key is None:
        what = "the application in the cluster has no key to sign trainings with"
        why = f"there is no Secret {secret} with {KEY} in the namespace {namespace}"
        raise PlatformError("TIER_UNAVAILABLE", what, why=why, steps=("invoke kind.up --apps",))
    return from_text(key.decode("ascii", "replace"))


def _read_key(path: Path) -> bytes:
    end = time.monotonic() + _KEY_PATIENCE
    while True:
        key = path.read_bytes().strip()
        if len(key) == 2 * _KEY_BYTES:
            return key
        if time.monotonic() > end:  # else another run is just writing it
            steps = (f"remove {path}: a new key is made, and trainings that wait are refused",)
            raise PlatformError("DATA_INCOMPATIBLE", f"the key {path} is damaged", steps=steps)
        time.sleep(0.05)
