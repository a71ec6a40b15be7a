"""The state of a site: its waves, differences from its files, replicas and nodes, PostgreSQL's replicas and archive."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from infra.kube import snapshot
from infra.kube.api import NoAnswer
from infra.kube.snapshot import Snapshot
from infra.kube.verdict import READY
from infra.prod import drill, postgres, ready
from infra.prod.cluster import Cluster, Object, key
from infra.prod.render import Rendered
from infra.prod.rules.base import title

DRILL_DAYS = 35
"""Days after which a drill is due again; the alert says the same."""
METRICS = 9187
"""Port of the exporter in each instance of CloudNativePG."""
_SAMPLE = re.compile(r"^(\w+)(?:\{[^}]*\})? ([-+0-9.eE]+|NaN)$", re.MULTILINE)
LAG, ARCHIVED = "cnpg_pg_replication_lag", "cnpg_pg_stat_archiver_seconds_since_last_archival"


@dataclass(frozen=True)
class Line:
    """One finding: what it is about, ok or warn or fail, and what there is to say."""

    about: str
    state: str
    text: str


def status(rendered: Rendered, cluster: Cluster, now: datetime | None = None) -> list[Line]:
    """Collect everything; what cannot be asked is reported in its line and ends nothing.

    Raises:
        PlatformError: UNREACHABLE, LOGIN_REFUSED.
    """
    live, found = cluster.live(rendered.objects), snapshot.take(cluster)
    lines = [_wave(wave, things, live, found) for wave, things in rendered.waves.items()]
    lines += [_spread(thing, found) for thing in rendered.objects if _several(thing)]
    for thing in rendered.objects:
        if thing["kind"] == "Cluster" and key(thing) in live:
            lines += _postgres(live[key(thing)], cluster, now or datetime.now(UTC))
            lines.append(_drill(cluster, now or datetime.now(UTC)))
    return lines


def _drill(cluster: Cluster, now: datetime) -> Line:
    """Report the age of the last drill: a backup that nobody has restored is a hope."""
    found = cluster.one("configmap", drill.RESULT, postgres.NAMESPACE)
    if found is None:
        return Line("drill", "warn", "the archive has never been restored: invoke prod.drill SITE")
    at = str(found["data"]["at"])
    days = (now - datetime.fromisoformat(at.replace("Z", "+00:00"))).days
    return Line("drill", "ok" if days < DRILL_DAYS else "warn", f"the archive was last restored and compared at {at}")


def _wave(wave: str, things: Sequence[Object], live: Mapping[Any, Object], found: Snapshot) -> Line:
    absent = [t for t in things if key(t) not in live]
    if len(absent) == len(things):
        return Line(wave, "fail", "not deployed")
    if absent:
        return Line(wave, "fail", f"{len(absent)} of {len(things)} objects are absent, e.g. {title(absent[0])}")
    seen = ready.judge(things, found, live)
    return Line(wave, "ok" if seen.state == READY else "fail", seen.detail or f"{len(things)} objects, ready")


def _several(thing: Object) -> bool:
    return thing["kind"] in ("Deployment", "StatefulSet") and int(thing["spec"].get("replicas", 1)) > 1


def _spread(thing: Object, found: Snapshot) -> Line:
    """Count the nodes that run the ready pods of a workload."""
    about = thing["metadata"]
    mine = found.of_names({(thing["kind"], about["namespace"], about["name"])})
    up = [p for p in mine.pods if {"type": "Ready", "status": "True"}.items() <= _ready(p).items()]
    nodes = {p["spec"].get("nodeName") for p in up}
    wanted = int(thing["spec"]["replicas"])
    state = "fail" if not up else "ok" if len(up) >= wanted and len(nodes) > 1 else "warn"
    return Line(title(thing), state, f"{len(up)} of {wanted} replicas are ready, on {len(nodes)} nodes")


def _ready(pod: Mapping[str, Any]) -> dict[str, Any]:
    found = [c for c in (pod.get("status") or {}).get("conditions") or [] if c["type"] == "Ready"]
    return dict(found[0]) if found else {}


def _postgres(live: Object, cluster: Cluster, now: datetime) -> Iterator[Line]:
    status, name = live.get("status") or {}, title(live)
    wanted, up = int(live["spec"].get("instances", 1)), int(status.get("readyInstances", 0))
    state = "ok" if up == wanted else "warn" if up > 1 else "fail"
    yield Line(name, state, f"{up} of {wanted} instances are ready, the primary is {status.get('currentPrimary', '?')}")
    conditions = {c["type"]: c for c in status.get("conditions") or []}
    yield _archive(name, conditions.get("ContinuousArchiving", {}))
    yield from _instances(live, cluster)
    backup = status.get("lastSuccessfulBackup") or _newest_backup(live, cluster)
    yield Line(
        f"{name}: backup", "ok" if backup else "fail", f"the newest is of {backup}" if backup else "there is none"
    )
    for secret, end in (status.get("certificates") or {}).get("expirations", {}).items():
        yield _certificate(secret, end, now)


def _archive(name: str, condition: Mapping[str, Any]) -> Line:
    if condition.get("status") == "True":
        return Line(f"{name}: archive", "ok", "WAL is archived continuously")
    return Line(f"{name}: archive", "fail", str(condition.get("message") or "no WAL has been archived"))


def _instances(live: Object, cluster: Cluster) -> Iterator[Line]:
    """Report replication lag and age of the archive, as each instance's exporter says it."""
    space, primary = live["metadata"]["namespace"], (live.get("status") or {}).get("currentPrimary")
    for instance in (live.get("status") or {}).get("instanceNames") or []:
        path = f"/api/v1/namespaces/{space}/pods/{instance}:{METRICS}/proxy/metrics"
        try:
            samples = parse(cluster.text(path))
        except NoAnswer as error:
            yield Line(instance, "warn", f"its metrics do not answer: {str(error)[:100]}")
            continue
        if instance == primary:
            age = samples.get(ARCHIVED, -1)
            yield Line(
                instance, "ok", f"primary; WAL was last archived {age:.0f} s ago, which would be lost with all nodes"
            )
        else:
            lag = samples.get(LAG, 0.0)
            yield Line(instance, "ok" if lag < 30 else "warn", f"replica, {lag:.0f} s behind")


def parse(text: str) -> dict[str, float]:
    """Read samples in Prometheus' text format; of several with one name the last one."""
    return {name: float(value) for name, value in _SAMPLE.findall(text)}


def _newest_backup(live: Object, cluster: Cluster) -> str:
    about = live["metadata"]
    with contextlib.suppress(NoAnswer):
        path = f"/apis/postgresql.cnpg.io/v1/namespaces/{about['namespace']}/backups"
        done = [(b.get("status") or {}) for b in cluster.items(path) if b["spec"]["cluster"]["name"] == about["name"]]
        return max((s.get("stoppedAt", "") for s in done if s.get("phase") == "completed"), default="")
    return ""


def _certificate(secret: str, end: str, now: datetime) -> Line:
    """Judge a certificate by its end; CloudNativePG writes times as Go does: 2027-02-28 08:00:00 +0000 UTC."""
    moment = datetime.strptime(end[:25], "%Y-%m-%d %H:%M:%S %z")
    days = (moment - now).days
    state = "fail" if days < 0 else "ok"  # the operator renews it 7 days before
    return Line(f"certificate {secret}", state if days >= 3 or days < 0 else "warn", f"valid for {days} days more")


def as_data(lines: Sequence[Line]) -> list[dict[str, str]]:
    """Return the lines as data."""
    return list(json.loads(json.dumps([vars(line) for line in lines])))
