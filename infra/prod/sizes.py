"""Sizes of a site: replicas, requests and limits, connections. One table, so that their sums can be checked.

Requests are what a node must have free. PostgreSQL requests all the memory that it may use: it is evicted last.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Resources = Mapping[str, Mapping[str, str]]


@dataclass(frozen=True)
class Size:
    """Replicas and resources of the parts.

    `connections` is PostgreSQL's max_connections; `pool` how many of them one Temporal server may hold for each of its
    two stores; `buffers` is shared_buffers, a quarter of PostgreSQL's memory; `training` is of a training without GPUs,
    None: as values-production.yaml says.
    """

    replicas: int
    temporal: int
    connections: int
    pool: int
    postgres: Resources
    buffers: str
    redis_memory: str
    redis: Resources
    server: Resources
    mlflow: Resources
    app: Resources
    training: Resources | None = None


def _resources(cpu: str, memory: str, most_cpu: str, most_memory: str = "") -> dict[str, dict[str, str]]:
    return {
        "requests": {"cpu": cpu, "memory": memory},
        "limits": {"cpu": most_cpu, "memory": most_memory or memory},
    }


SIZES: Mapping[str, Size] = {
    "rehearsal": Size(
        replicas=2,
        temporal=2,
        connections=200,
        pool=5,
        postgres=_resources("100m", "384Mi", "2"),
        buffers="96MB",
        redis_memory="64mb",
        redis=_resources("20m", "64Mi", "500m", "192Mi"),
        server=_resources("100m", "192Mi", "2", "768Mi"),
        mlflow=_resources("50m", "384Mi", "2", "1Gi"),
        app=_resources("20m", "96Mi", "1", "512Mi"),
        training=_resources("100m", "256Mi", "1", "1Gi"),
    ),
    "small": Size(
        replicas=2,
        temporal=3,
        connections=400,
        pool=10,
        postgres=_resources("1", "4Gi", "4"),
        buffers="1GB",
        redis_memory="1gb",
        redis=_resources("200m", "1Gi", "1", "2560Mi"),
        server=_resources("500m", "1Gi", "2", "2Gi"),
        mlflow=_resources("250m", "1Gi", "2", "2Gi"),
        app=_resources("100m", "256Mi", "1", "1Gi"),
    ),
    "medium": Size(
        replicas=2,
        temporal=3,
        connections=500,
        pool=12,
        postgres=_resources("2", "8Gi", "4"),
        buffers="2GB",
        redis_memory="2gb",
        redis=_resources("500m", "2Gi", "2", "5Gi"),
        server=_resources("1", "1Gi", "2", "2Gi"),
        mlflow=_resources("500m", "1Gi", "2", "2Gi"),
        app=_resources("250m", "256Mi", "2", "1Gi"),
    ),
    "large": Size(
        replicas=3,
        temporal=5,
        connections=800,
        pool=12,
        postgres=_resources("4", "32Gi", "16"),
        buffers="8GB",
        redis_memory="6gb",
        redis=_resources("1", "6Gi", "4", "14Gi"),
        server=_resources("2", "2Gi", "4", "4Gi"),
        mlflow=_resources("1", "2Gi", "4", "4Gi"),
        app=_resources("500m", "512Mi", "2", "2Gi"),
    ),
}


def of(says: Mapping[str, Any]) -> Size:
    """Return the size that a site asks for."""
    return SIZES[str(says["size"])]
