"""A drill: the archive restored into a scratch Cluster, to a moment whose content is known, and compared with it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from infra.errors import PlatformError
from infra.prod import content, postgres
from infra.prod.cluster import Cluster, Object, listed
from infra.prod.postgres import NAMESPACE, RESOURCE, SiteServer

SCRATCH, RESULT = "postgresql-drill", "platform-drill"
"""The scratch Cluster, and the ConfigMap of the last drill that went well, whose age kube-state-metrics gives."""
MARK = "platform/drill"
BUDGET = 3600.0
"""Seconds that a recovery may take."""


@dataclass(frozen=True)
class DrillOutcome:
    """A drill that went well: the restore point, tables and rows that were compared."""

    point: str
    tables: int
    rows: int


def run(cluster: Cluster, name: str, say: Callable[[str], None], budget: float = BUDGET) -> DrillOutcome:
    """Restore into a scratch Cluster, compare, remove it again.

    Raises:
        PlatformError: RESTORE_DIFFERS; WAIT_TIMEOUT or SERVICE_FAILED where the archive cannot be restored.
    """
    server, scratch = SiteServer(cluster, name), SiteServer(cluster, SCRATCH)
    source = server.server_name()
    if not source:
        raise PlatformError("BACKUP_FAILED", f"the Cluster {name} archives nothing: there is nothing to restore")
    backup = _backup(server)
    point = f"drill-{datetime.now(UTC):%Y%m%d%H%M%S}"
    _remove(cluster)
    say(f"{point}: reading every table")
    before = content.at_restore_point(server, point)
    postgres.archived(server)
    say(f"restoring {source} to {point} into {SCRATCH}")
    target = {"targetName": point, "backupID": backup}  # by a name alone the operator finds no backup
    cluster.apply([postgres.recovered(SCRATCH, server.live(), source, target, labels={MARK: "true"})])
    try:
        postgres.until(f"the recovery into {SCRATCH}", lambda: recovering(scratch), budget)
        wrong = content.differences(before, content.now(scratch))
    finally:
        _remove(cluster)
    if wrong:
        what = f"what was restored differs from the original in {len(wrong)} tables"
        raise PlatformError("RESTORE_DIFFERS", what, details={"tables": wrong})
    done = DrillOutcome(point, len(before), sum(digest.rows for digest in before.values()))
    _note(cluster, done)
    return done


def _backup(server: SiteServer) -> str:
    """Return the archive's name of the newest complete backup. Raises PlatformError BACKUP_FAILED."""
    done = server.backups()
    if not done:
        steps = ("invoke prod.backup SITE",)
        raise PlatformError("BACKUP_FAILED", f"the Cluster {server.name} has no backup", steps=steps)
    return str(done[-1]["backupId"])


def recovering(server: SiteServer) -> str:
    """Say what a recovery lacks; '' once its primary answers. Raises PlatformError SERVICE_FAILED."""
    live = server.live()
    status = live.get("status") or {}
    if int(status.get("readyInstances", 0)) >= int(live["spec"]["instances"]):
        return ""
    failed = _failed_job(server)
    if failed:
        raise PlatformError("SERVICE_FAILED", f"{server.name} cannot be restored", why=failed)
    return str(status.get("phase") or "no word of the operator yet")


def _failed_job(server: SiteServer) -> str:
    """Read why the Job of a recovery failed, from its last pod; '' while it may still succeed."""
    words = ("get", "jobs", "-n", NAMESPACE, "-l", f"cnpg.io/cluster={server.name}", "-o", "json")
    jobs = listed(server.cluster.run(*words).out)
    if not any((job.get("status") or {}).get("failed", 0) >= 3 for job in jobs):
        return ""
    log = server.cluster.run(
        *("logs", "-n", NAMESPACE, "-l", f"cnpg.io/cluster={server.name},cnpg.io/jobRole=full-recovery"),
        *("-c", "full-recovery", "--tail=40"),
        check=False,
    )
    wrong = [line for line in log.out.splitlines() if "FATAL" in line or '"error"' in line]
    return wrong[-1][-400:] if wrong else "its Job has failed three times"


def _remove(cluster: Cluster) -> None:
    """Remove a scratch Cluster, ours by its mark, with its volumes, and wait until it is gone."""
    words = ("delete", RESOURCE, "-n", NAMESPACE, "-l", f"{MARK}=true", "--ignore-not-found", "--wait=true")
    cluster.run(*words, limit=180)


def _note(cluster: Cluster, done: DrillOutcome) -> None:
    """Make the result again: the age of the last drill is the age of this object."""
    about = {"name": RESULT, "namespace": NAMESPACE}
    data = {"at": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}", "point": done.point, "tables": str(done.tables)}
    body: Object = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": about,
        "data": {**data, "rows": str(done.rows)},
    }
    cluster.run("delete", "configmap", RESULT, "-n", NAMESPACE, "--ignore-not-found")
    cluster.run("create", "-f", "-", stdin=json.dumps(body))
