"""Carrying out a plan: wave by wave, each judged before the next; a wave that fails is taken back."""

from __future__ import annotations

import base64
import gzip
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infra.console import Console
from infra.errors import PlatformError
from infra.kube import snapshot, trouble
from infra.kube.api import NoAnswer
from infra.kube.verdict import FAILED, READY, STARTING, Verdict
from infra.prod import backup, diff, lease, ready, restore, trust
from infra.prod.cluster import Cluster, Object, key
from infra.prod.render import Rendered

BUDGET = 900.0
"""Seconds that a wave may take, migrations not counted."""
PAUSE = 2.0
"""Seconds between two looks."""
RECORD, NAMESPACE = "platform-deployed", "default"
"""Prefix of the ConfigMaps that hold what was last deployed, by wave; there is no secret in it."""
REMOVABLE = (
    "Job",
    "Deployment",
    "ConfigMap",
    "Service",
    "NetworkPolicy",
    "PodDisruptionBudget",
    "Ingress",
    "HTTPRoute",
)
"""Kinds that are removed again when the wave that made them has failed: they hold no data."""
FIRST = (
    *("Namespace", "CustomResourceDefinition", "PriorityClass", "ServiceAccount", "ConfigMap", "Secret"),
    *("ExternalSecret", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding", "NetworkPolicy"),
    *("PersistentVolumeClaim", "Service", "ObjectStore", "Cluster", "DatabaseRole", "Database", "Job"),
)
"""The order of kinds inside a wave; all others follow."""


@dataclass
class Deployment:
    """A deployment at work."""

    rendered: Rendered
    cluster: Cluster
    console: Console
    notes: Path
    budget: float = BUDGET
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    done: list[str] = field(default_factory=list)

    def run(self, wanted: str) -> list[str]:
        """Carry out exactly the plan with that id; the names of the waves that were applied.

        Raises:
            PlatformError: LOCKED, FROZEN, PLAN_STALE, PREFLIGHT_FAILED with nothing changed; SERVICE_FAILED,
                WAIT_TIMEOUT or PROGRAM_FAILED for a wave that was taken back.
        """
        with lease.held(self.cluster) as mine:
            found = diff.plan(self.rendered, self.cluster)
            self._refuse(found, wanted)
            backup.before_migration(self.rendered, found, self.cluster, self.console)
            for wave, things in self.rendered.waves.items():
                mine.require()
                self._wave(wave, things)
        return self.done

    def _refuse(self, found: diff.Plan, wanted: str) -> None:
        site = self.rendered.site.name
        if found.id != wanted:
            raise diff.stale(wanted, found, site)
        self._refuse_earlier_data()
        if found.refused:
            problems = [f"{c.object}: {' '.join(c.fields)}" for c in found.refused]
            what = "the API server refuses a part of the plan; nothing was changed"
            raise PlatformError(
                "PREFLIGHT_FAILED", what, steps=(f"invoke prod.diff {site}",), details={"problems": problems}
            )

    def _refuse_earlier_data(self) -> None:
        """Refuse a site file that names another Cluster than the one that serves, e.g. that from before a restore."""
        site = self.rendered.site
        serving = restore.serving(self.cluster) if site.engine("postgres") == "cloudnativepg" else ""
        if serving and serving != site.postgresql:
            what = f"{site.path.name} names the Cluster {site.postgresql}, but {serving} serves; nothing was changed"
            steps = (f"write into {site.path}, below postgres: cluster: {serving}, and the recovery of that restore",)
            raise PlatformError("PREFLIGHT_FAILED", what, steps=steps)

    def _wave(self, wave: str, things: Sequence[Object]) -> None:
        ordered = sorted(things, key=lambda t: FIRST.index(t["kind"]) if t["kind"] in FIRST else len(FIRST))
        before = self.cluster.live(ordered)
        self.console.say(f"{wave}: {len(ordered)} objects")
        try:
            self.cluster.apply(ordered)
            self._wait(wave, ordered)
        except PlatformError as error:
            raise self._taken_back(wave, ordered, set(before), error) from error
        self._record(wave, ordered)
        if any(thing["kind"] == "Cluster" for thing in ordered):
            trust.copy(self.rendered.site, self.cluster)
        self.done.append(wave)

    def _wait(self, wave: str, things: Sequence[Object]) -> None:
        """Block until a wave is ready. Raises PlatformError SERVICE_FAILED or WAIT_TIMEOUT."""
        left, last, said = self.budget, self.clock(), ""
        while True:
            seen, migrating = self._look(things)
            if seen.detail and seen.detail != said:
                said = seen.detail
                self.console.say(f"  {said}")
            if seen.state == READY:
                return
            now = self.clock()
            left, last = left - (0.0 if migrating else now - last), now
            if seen.state == FAILED or left <= 0:
                raise self._failed(wave, seen)
            self.sleep(PAUSE)

    def _look(self, things: Sequence[Object]) -> tuple[Verdict, bool]:
        try:
            found = snapshot.take(self.cluster)
            operated = [t for t in things if ready.operated(t)]
            live = self.cluster.live(operated) if operated else {}
        except (NoAnswer, PlatformError) as error:  # an API server that is away for a while is waited for
            return Verdict(STARTING, str(error)), False
        return ready.judge(things, found, live), ready.migrating(things, found)

    def _failed(self, wave: str, seen: Verdict) -> PlatformError:
        code = "SERVICE_FAILED" if seen.state == FAILED else "WAIT_TIMEOUT"
        log: list[str] = []
        if seen.pod:
            trouble.describe(self.cluster, seen, snapshot.take(self.cluster), self.notes / f"{wave}.txt")
            log = trouble.log(self.cluster, seen, trouble.LINES)
        where = f" ({seen.namespace}/{seen.pod})" if seen.pod else ""
        return PlatformError(
            code, f"the wave {wave} did not become ready{where}", why=seen.detail, details={"log": log}
        )

    def _taken_back(self, wave: str, things: Sequence[Object], before: set[Any], error: PlatformError) -> PlatformError:
        """Bring back what the wave was before, and say so; the error that the deployment ends with."""
        site = self.rendered.site.name
        earlier = recorded(self.cluster, wave)
        again = f"correct it, then: invoke prod.diff {site}"
        if earlier is None:
            kept = "it is the first deployment of this wave: there is nothing to go back to, and nothing was removed"
            return PlatformError(error.code, error.what, why=error.why, steps=(kept, again), details=error.details)
        made = [t for t in things if key(t) not in before and t["kind"] in REMOVABLE]
        try:
            self.cluster.apply(earlier)
            self.cluster.delete(made)
            back = "the wave is as it was before; the earlier version has been serving all the time"
        except PlatformError as second:
            back = f"going back failed as well ({second.what}: {second.why}): see kubectl get pods -A"
        return PlatformError(error.code, error.what, why=error.why, steps=(back, again), details=error.details)

    def _record(self, wave: str, things: Sequence[Object]) -> None:
        self.cluster.apply([_record_of(wave, things)])


def _record_of(wave: str, things: Sequence[Object]) -> Object:
    packed = gzip.compress(json.dumps(list(things), default=str).encode(), mtime=0)
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": f"{RECORD}-{wave}", "namespace": NAMESPACE},
        "binaryData": {"objects.json.gz": base64.b64encode(packed).decode()},
    }


def recorded(cluster: Cluster, wave: str) -> list[Object] | None:
    """Read what a wave was when it was last deployed and ready; None when it never was."""
    found = cluster.one("configmap", f"{RECORD}-{wave}", NAMESPACE)
    if found is None:
        return None
    packed = base64.b64decode(found["binaryData"]["objects.json.gz"])
    return list(json.loads(gzip.decompress(packed)))
