"""Drills and restores: what is compared, what is planned, what is refused. The rehearsal shows them at work."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from infra.errors import PlatformError
from infra.prod import cluster, content, postgres, restore
from infra.prod.content import Digest
from infra.prod.site import Site
from tests.unit.prod.played import SITE, Played

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
PLUGIN = {"barmanObjectName": "postgresql-backup", "serverName": "postgresql"}
LIVE: Any = {
    "apiVersion": "postgresql.cnpg.io/v1",
    "kind": "Cluster",
    "metadata": {"name": "postgresql", "namespace": "platform"},
    "spec": {
        "instances": 3,
        "imageName": "postgres:18@sha256:1",
        "storage": {"size": "10Gi"},
        "postgresql": {"parameters": {"max_connections": "200"}, "synchronous": {"method": "any", "number": 1}},
        "plugins": [{"name": "barman-cloud.cloudnative-pg.io", "isWALArchiver": True, "parameters": PLUGIN}],
    },
}


def _site() -> Site:
    return replace(SITE, says={**SITE.says, "postgres": {"engine": "cloudnativepg", "size": "10Gi", "backup": {}}})


def _played(stopped: str = "2026-11-29T00:00:00Z") -> Played:
    there = Played()
    there.put(LIVE)
    status = {"phase": "completed", "stoppedAt": stopped} if stopped else {"phase": "failed"}
    body = {"apiVersion": "postgresql.cnpg.io/v1", "kind": "Backup", "metadata": {"name": "b", "namespace": "platform"}}
    there.put({**body, "spec": {"cluster": {"name": "postgresql"}}, "status": status})
    return there


@pytest.mark.parametrize(
    "text", ["", "yesterday", "2026-11-29T10:00:00", "2026-11-28T23:59:59Z", "2026-11-30T12:00:01Z"]
)
def test_a_time_that_the_archive_cannot_give_is_refused(text: str) -> None:
    there = _played()
    with pytest.raises(PlatformError) as refused:
        restore.plan(_site(), there, text, NOW)
    assert refused.value.code == "USAGE"
    assert not there.log


def test_without_a_complete_backup_there_is_nothing_to_restore() -> None:
    with pytest.raises(PlatformError) as refused:
        restore.plan(_site(), _played(stopped=""), "2026-11-29T10:00:00Z", NOW)
    assert refused.value.code == "BACKUP_FAILED"


def test_a_restore_makes_another_cluster_that_archives_under_another_name() -> None:
    due = restore.plan(_site(), _played(), "2026-11-29T12:00:00+02:00", NOW)
    said = due.site(_site()).part("postgres")
    assert said["cluster"] == said["recovery"]["as"] == "postgresql-20261130120000"
    assert said["recovery"]["server"] == "postgresql"
    assert said["recovery"]["to"] == "2026-11-29T10:00:00Z"
    assert said["size"] == "10Gi"


def test_the_service_is_left_to_the_old_cluster_at_first() -> None:
    managed: Any = {"services": {"additional": [{"selectorType": "rw"}]}, "roles": []}
    found = restore.without_service({**LIVE, "spec": {**LIVE["spec"], "managed": managed}})
    assert "additional" not in found["spec"]["managed"]["services"]
    assert managed["services"]["additional"]


def test_a_scratch_cluster_archives_nothing_and_has_the_size_of_the_original() -> None:
    made = postgres.recovered("scratch", LIVE, "postgresql", {"targetName": "here"})
    assert "plugins" not in made["spec"]
    assert made["spec"]["bootstrap"]["recovery"]["recoveryTarget"] == {"targetName": "here"}
    assert made["spec"]["externalClusters"][0]["plugin"]["parameters"] == PLUGIN
    assert made["spec"]["storage"] == LIVE["spec"]["storage"]
    assert made["spec"]["postgresql"] == {"parameters": {"max_connections": "200"}}
    assert made["spec"]["instances"] == 1


def test_differences_name_each_table() -> None:
    before = {"a": Digest(1, "x"), "b": Digest(2, "x"), "c": Digest(3, "x"), "e": Digest(0, "0")}
    after = {"a": Digest(1, "y"), "b": Digest(3, "x"), "d": Digest(1, "x"), "e": Digest(0, "0")}
    assert content.differences(before, after) == [
        "a: rows differ",
        "b: 2 rows, 3 in the copy",
        "c: only in the original",
        "d: only in the copy",
    ]


@pytest.mark.parametrize("text", ["", "{}", '{"kind": "List", "items": []}'])
def test_nothing_found_is_nothing_in_every_way_that_kubectl_says_it(text: str) -> None:
    assert cluster.listed(text) == []
