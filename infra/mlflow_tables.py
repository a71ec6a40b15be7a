"""MLflow's tables before another version of MLflow changes them: a backup first, since nothing else leads back."""

from __future__ import annotations

from infra import catalog, database
from infra.data import store
from infra.data.postgres import backup as postgres_backup
from infra.data.postgres import backups as postgres_backups
from infra.data.postgres import clients
from infra.endpoints import Endpoints
from infra.tiers.base import Tier

TABLE = f"{catalog.MLFLOW_SCHEMA}.alembic_version"


def back_up(tier: Tier) -> None:
    """Back up the database with MLflow's tables, unless they are of the version that its server makes.

    Raises:
        PlatformError: BACKUP_FAILED, LOCKED, UNREACHABLE; MLflow must not be started then.
    """
    ends, context = tier.endpoints(), tier.context
    found = version(ends)
    if found in ("", tier.mlflow_tables):
        return
    context.console.say(f"  MLflow's tables have version {found}, which this MLflow may change: backing them up first")
    target = postgres_backups.default_target(context.stack)
    with store.locked(target, "up"):
        server = clients.find_server(ends, context.settings)
        made = postgres_backup.backup(server, context.console, postgres_backup.BackupOrder(target, ("platform",)))
    context.console.say(f"  backed up: {made.path}")


def version(ends: Endpoints) -> str:
    """Return the version that the tables have, as Alembic notes it; '' where there are none."""
    with database.session(ends.database_url("platform"), "look at MLflow's tables", name="platform-mlflow") as link:
        there = link.execute("select to_regclass(%s) is not null", [TABLE]).fetchone()
        row = link.execute(f"select version_num from {TABLE}").fetchone() if there and there[0] else None
        return str(row[0]) if row else ""
