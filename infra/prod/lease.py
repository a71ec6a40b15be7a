"""One deployer at a time: a Lease in the cluster, renewed while it is held."""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from infra.errors import PlatformError
from infra.prod.cluster import Cluster

NAME, NAMESPACE = "platform-deploy", "default"
DURATION = 60
"""Seconds that a Lease is good for without being renewed: after that its holder counts as dead."""
FREEZE = "platform/freeze"
"""Annotation of the namespace kube-system that stops every deployment; its text is the reason."""


@dataclass
class Held:
    """A Lease that this run holds; `lost` is true when another one has taken it over."""

    cluster: Cluster
    holder: str
    duration: int = DURATION
    lost: threading.Event = field(default_factory=threading.Event)
    _end: threading.Event = field(default_factory=threading.Event)

    def require(self) -> None:
        """Go on only while this run holds it. Raises PlatformError LOCKED."""
        if self.lost.is_set():
            what = "another deployer has taken over; this one stops"
            raise PlatformError("LOCKED", what, steps=("invoke prod.status SITE",))

    def keep(self) -> None:
        """Renew it until the end, in a thread of its own."""
        while not self._end.wait(self.duration / 3):
            with contextlib.suppress(PlatformError):
                self.renew()

    def renew(self) -> None:
        """Renew it once, or find out that it is lost."""
        there = _read(self.cluster)
        if there is None or there["spec"].get("holderIdentity") != self.holder:
            self.lost.set()
            return
        there["spec"]["renewTime"] = _stamp(datetime.now(UTC))
        self.cluster.run("replace", "-f", "-", stdin=json.dumps(there), check=False)

    def end(self) -> None:
        """Give it back."""
        self._end.set()
        with contextlib.suppress(PlatformError):
            there = _read(self.cluster)
            if there is not None and there["spec"].get("holderIdentity") == self.holder:
                self.cluster.run("delete", "lease", NAME, "-n", NAMESPACE, "--ignore-not-found", check=False)


@contextlib.contextmanager
def held(cluster: Cluster, duration: int = DURATION) -> Iterator[Held]:
    """Take the Lease, keep it, give it back.

    Raises:
        PlatformError: LOCKED, naming who holds it; FROZEN.
    """
    refuse_frozen(cluster)
    mine = Held(cluster, f"{getpass.getuser()}@{socket.gethostname()} {os.getpid()}", duration)
    _take(mine, datetime.now(UTC))
    threading.Thread(target=mine.keep, daemon=True).start()
    try:
        yield mine
    finally:
        mine.end()


def refuse_frozen(cluster: Cluster) -> None:
    """Go on only while nobody has frozen the cluster. Raises PlatformError FROZEN."""
    body = json.loads(cluster.run("get", "namespace", "kube-system", "-o", "json").out)
    reason = (body["metadata"].get("annotations") or {}).get(FREEZE)
    if reason is not None:
        steps = (f"when that is over: kubectl annotate namespace kube-system {FREEZE}-",)
        raise PlatformError("FROZEN", "the cluster is frozen; nothing was changed", why=reason, steps=steps)


def _take(mine: Held, now: datetime) -> None:
    there = _read(mine.cluster)
    if there is None:
        done = mine.cluster.run("create", "-f", "-", stdin=json.dumps(_lease(mine, now)), check=False)
    elif not expired(there, now):
        raise _taken(there)
    else:  # with the version that was read: of two that take it over one is refused
        body = {**there, "spec": _lease(mine, now)["spec"]}
        done = mine.cluster.run("replace", "-f", "-", stdin=json.dumps(body), check=False)
    if done.code:
        raise _taken(_read(mine.cluster) or {"spec": {"holderIdentity": "somebody else"}})


def expired(lease: dict[str, Any], now: datetime) -> bool:
    """Tell whether the holder of a Lease has stopped renewing it."""
    spec = lease["spec"]
    if not spec.get("holderIdentity") or not spec.get("renewTime"):
        return True
    renewed = datetime.fromisoformat(spec["renewTime"].replace("Z", "+00:00"))
    return bool(now - renewed > timedelta(seconds=int(spec.get("leaseDurationSeconds", DURATION))))


def _taken(lease: dict[str, Any]) -> PlatformError:
    spec = lease["spec"]
    why = f"{spec.get('holderIdentity')} has been at it since {spec.get('acquireTime', 'just now')}"
    steps = (f"wait for its end; a deployer that died is taken over after {DURATION} s",)
    return PlatformError("LOCKED", "another deployment is in progress on this cluster", why=why, steps=steps)


def _read(cluster: Cluster) -> dict[str, Any] | None:
    return cluster.one("lease", NAME, NAMESPACE)


def _lease(mine: Held, now: datetime) -> dict[str, Any]:
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": NAME, "namespace": NAMESPACE},
        "spec": {
            "holderIdentity": mine.holder,
            "leaseDurationSeconds": mine.duration,
            "acquireTime": _stamp(now),
            "renewTime": _stamp(now),
        },
    }


def _stamp(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
