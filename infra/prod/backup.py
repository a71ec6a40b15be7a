"""Backups of PostgreSQL by its operator: before a migration, and when somebody asks."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from infra.console import Console
from infra.errors import PlatformError
from infra.prod import postgres
from infra.prod.cluster import Cluster, Object
from infra.prod.diff import CREATE, Plan
from infra.prod.render import Rendered

MIGRATION = "platform/migration"
"""Label of the Jobs that change a schema."""
BUDGET = 3600.0
"""Seconds that a backup may take."""


def before_migration(rendered: Rendered, plan: Plan, cluster: Cluster, console: Console) -> str:
    """Make a backup where the plan changes a schema and there is a database already; its name, '' where none is due."""
    from infra.prod.rules.base import title

    new = {c.object for c in plan.changes if c.action == CREATE}
    due = [t for t in rendered.objects if title(t) in new and MIGRATION in (t["metadata"].get("labels") or {})]
    there = [c for c in clusters(rendered.objects) if cluster.live([c])]
    if not due or not there:
        return ""
    console.say(f"a backup first: {', '.join(title(t) for t in due)} changes a schema")
    return make(cluster, there[0])


def clusters(objects: Sequence[Object]) -> list[Object]:
    """Select the Clusters of PostgreSQL that have an archive."""
    return [o for o in objects if o["kind"] == "Cluster" and o["spec"].get("plugins")]


def make(cluster: Cluster, of: Object, budget: float = BUDGET, sleep: Callable[[float], None] = time.sleep) -> str:
    """Make a base backup and wait for its end; its name.

    Raises:
        PlatformError: BACKUP_FAILED.
    """
    about = of["metadata"]
    name = f"{about['name']}-{datetime.now(UTC):%Y%m%d%H%M%S}"
    body = {
        "apiVersion": "postgresql.cnpg.io/v1",
        "kind": "Backup",
        "metadata": {"name": name, "namespace": about["namespace"]},
        "spec": {
            "cluster": {"name": about["name"]},
            "method": "plugin",
            "pluginConfiguration": {"name": postgres.PLUGIN},
        },
    }
    cluster.run("create", "-f", "-", stdin=json.dumps(body))
    end = time.monotonic() + budget
    while time.monotonic() < end:
        status = (cluster.one(postgres.BACKUPS, name, about["namespace"]) or {}).get("status") or {}
        if status.get("phase") == "completed":
            return name
        if status.get("phase") == "failed":
            raise _failed(name, str(status.get("error", "")))
        sleep(2.0)
    raise _failed(name, f"it is not complete after {budget:.0f} s")


def _failed(name: str, why: str) -> PlatformError:
    steps = ("kubectl get backups -n platform", "invoke prod.status SITE")
    return PlatformError("BACKUP_FAILED", f"the backup {name} failed; nothing was deployed", why=why, steps=steps)
