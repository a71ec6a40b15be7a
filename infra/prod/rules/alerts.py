"""A rule for alerts: each asks for series that something gives, with names that exist."""

from __future__ import annotations

import re
from collections.abc import Iterator

from infra.prod.rules.base import Broken, Objects, Rule, of_kind

SERIES = frozenset(
    {
        "up",
        # CloudNativePG 1.30: pkg/management/postgres/webserver/metricserver, config/manager/default-monitoring.yaml
        *("cnpg_collector_up", "cnpg_collector_pg_wal_archive_status", "cnpg_backends_total"),
        *("cnpg_pg_replication_lag", "cnpg_pg_replication_in_recovery", "cnpg_pg_replication_streaming_replicas"),
        *("cnpg_pg_replication_slots_active", "cnpg_pg_settings_setting", "cnpg_pg_database_size_bytes"),
        *("cnpg_pg_stat_archiver_last_failed_time", "cnpg_pg_stat_archiver_last_archived_time"),
        "cnpg_pg_stat_archiver_seconds_since_last_archival",
        # plugin-barman-cloud 0.13: internal/cnpgi/instance/metrics.go
        "barman_cloud_cloudnative_pg_io_first_recoverability_point",
        "barman_cloud_cloudnative_pg_io_last_available_backup_timestamp",
        "barman_cloud_cloudnative_pg_io_last_failed_backup_timestamp",
        # redis_exporter; Temporal's server
        *("redis_up", "redis_aof_last_write_status", "redis_rdb_last_bgsave_status"),
        "approximate_backlog_age_seconds",
        # kube-state-metrics; kubelet
        *("kube_deployment_status_replicas_available", "kube_deployment_spec_replicas", "kube_job_failed"),
        "kube_configmap_created",
        *("kubelet_volume_stats_available_bytes", "kubelet_volume_stats_capacity_bytes"),
    }
)
"""Series that what a site installs gives, by their names."""
_WORDS = frozenset({"by", "without", "or", "and", "unless", "on", "ignoring", "group_left", "group_right", "bool"})
_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")


def named(expression: str) -> set[str]:
    """Return the names of the series in an expression of PromQL."""
    text = re.sub(r'"[^"]*"|\{[^}]*\}|\[[^\]]*\]', " ", expression)
    text = re.sub(r"\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", " ", text)
    functions = set(re.findall(r"([a-zA-Z_]+)\s*\(", text))
    return set(_NAME.findall(re.sub(r"\b[0-9.]+e?[0-9]*\b", " ", text))) - functions - _WORDS


def _series(objects: Objects) -> Broken:
    for thing in of_kind(objects, "PrometheusRule"):
        for alert, expression in _expressions(thing["spec"]):
            unknown = sorted(named(expression) - SERIES)
            if unknown:
                yield thing, f"the alert {alert} asks for {', '.join(unknown)}, which nothing gives"


def _expressions(spec: dict[str, object]) -> Iterator[tuple[str, str]]:
    groups = spec.get("groups")
    for group in groups if isinstance(groups, list) else []:
        yield from ((rule["alert"], rule["expr"]) for rule in group["rules"] if "alert" in rule)


RULES: tuple[Rule, ...] = (Rule("alert-series", "alerts ask for series that something gives", _series),)
