"""PostgreSQL as it was at a time: a new Cluster from the archive takes over the Service; the old one stays, stopped."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from infra.errors import PlatformError
from infra.prod import drill, postgres, trust
from infra.prod.cluster import Cluster, Object
from infra.prod.postgres import NAMESPACE, RESOURCE, SiteServer
from infra.prod.site import POSTGRESQL, Site

FENCE = "cnpg.io/fencedInstances"
"""Annotation of CloudNativePG that stops PostgreSQL in all instances and leaves pods and volumes."""
BUDGET = 3600.0
"""Seconds for a recovery, and again for its replicas."""
SETTLE = 90.0
"""Seconds until kubelets have brought a changed ConfigMap into pods (its sync period and cache: at most a minute)."""


@dataclass(frozen=True)
class PointRestore:
    """A restore: from which Cluster and archive, to which time, into which new Cluster."""

    cluster: str
    source: str
    first: str
    to: datetime
    new: str

    def site(self, site: Site) -> Site:
        """Return the site as its file has to be afterwards."""
        return replace(site, says={**site.says, "postgres": {**site.part("postgres"), **self.entries()}})

    def entries(self) -> dict[str, Any]:
        """Return the entries of `postgres` in the site file."""
        recovery = {"server": self.source, "as": self.new, "to": stamp(self.to)}
        return {"cluster": self.new, "recovery": recovery}


def stamp(moment: datetime) -> str:
    """Write a time in RFC 3339, UTC, with all its digits."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def plan(site: Site, cluster: Cluster, to: str, now: datetime | None = None) -> PointRestore:
    """Say what a restore would do; nothing is changed.

    Raises:
        PlatformError: USAGE for a time that is none or lies outside the archive; BACKUP_FAILED without an archive.
    """
    if site.engine("postgres") != "cloudnativepg":
        raise PlatformError("USAGE", "PostgreSQL of this site is restored by who runs it: it is external")
    server, moment = SiteServer(cluster, site.postgresql), now or datetime.now(UTC)
    wanted, source = _time(to), server.server_name()
    backups = server.backups()
    if not source or not backups:
        steps = (f"invoke prod.backup {site.name}",)
        raise PlatformError("BACKUP_FAILED", f"the Cluster {server.name} has no backup to restore from", steps=steps)
    first = str(backups[0]["stoppedAt"])
    if not _time(first) <= wanted <= moment:
        why = f"the archive reaches from {first} to now ({stamp(moment)})"
        raise PlatformError("USAGE", f"{to} cannot be restored", why=why, steps=("name a time between the two",))
    return PointRestore(server.name, source, first, wanted, f"{POSTGRESQL}-{moment:%Y%m%d%H%M%S}")


def _time(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        found = datetime.min
    if found.tzinfo is None:
        steps = ("e.g. 2026-11-29T10:00:00Z",)
        raise PlatformError("USAGE", f"{text!r} is not a time with a time zone (RFC 3339)", steps=steps)
    return found


def run(
    site: Site,
    cluster: Cluster,
    due: PointRestore,
    render: Callable[[Site], list[Object]],
    say: Callable[[str], None],
    sleep: Callable[[float], None],
) -> None:
    """Make the new Cluster, and let it take over once it is complete.

    Args:
        render: gives the objects of the release `postgresql` for a site.

    Raises:
        PlatformError: SERVICE_FAILED or WAIT_TIMEOUT before the old Cluster was touched.
    """
    old, new = SiteServer(cluster, due.cluster), SiteServer(cluster, due.new)
    say(f"the archive of {due.source} is brought up to date")
    postgres.archived(old)
    objects = render(due.site(site))
    say(f"{due.new} is made from {due.source} as of {stamp(due.to)}")
    cluster.apply([without_service(thing) for thing in objects])
    postgres.until(f"the recovery into {due.new}", lambda: drill.recovering(new), BUDGET, sleep)
    trust.copy(site, cluster, due.cluster, due.new)
    sleep(SETTLE)
    say(f"{due.new} takes over from {due.cluster}, which is stopped and stays")
    _fence(old)
    _release(old)
    cluster.apply(objects)
    postgres.until("the Service", lambda: _owner(cluster, due.new), 120, sleep)


def without_service(thing: Object) -> Object:
    """Leave out the Service that another Cluster has at present."""
    if thing["kind"] != "Cluster":
        return thing
    managed = {**thing["spec"]["managed"], "services": {"disabledDefaultServices": ["ro", "r"]}}
    return {**thing, "spec": {**thing["spec"], "managed": managed}}


def _fence(server: SiteServer) -> None:
    """Stop PostgreSQL in every instance of a Cluster."""
    words = ("annotate", RESOURCE, server.name, "-n", NAMESPACE, "--overwrite", f'{FENCE}=["*"]')
    server.cluster.run(*words)


def _release(server: SiteServer) -> None:
    """Have the operator remove the Service of a Cluster, and wait for that."""
    body = json.dumps({"spec": {"managed": {"services": {"additional": None}}}})
    server.cluster.run("patch", RESOURCE, server.name, "-n", NAMESPACE, "--type", "merge", "-p", body)
    postgres.until("the old Service goes", lambda: serving(server.cluster), 120)


def _owner(cluster: Cluster, wanted: str) -> str:
    """Say what keeps the Service from leading to a Cluster; '' when it does."""
    found = serving(cluster)
    return "" if found == wanted else f"it leads to {found or 'nothing'}"


def serving(cluster: Cluster) -> str:
    """Return the Cluster to which the Service leads; '' where there is none."""
    body = cluster.one("service", POSTGRESQL, NAMESPACE) or {}
    return str(((body.get("spec") or {}).get("selector") or {}).get("cnpg.io/cluster", ""))
