"""Drills and restores: what is compared, what is planned, what is refused. The rehearsal shows them at work."""

from __future__ import annotations

import sys
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from infra import shell
from infra.errors import PlatformError
from infra.prod import cluster, content, drill, postgres, restore
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


FAILED: Any = {"phase": "failed", "stoppedAt": "2026-11-28T00:00:00Z"}
"""A backup that did not succeed says when it ended, too."""
FIRST: Any = {"phase": "completed", "stoppedAt": "2026-11-29T00:00:00Z", "backupId": "first"}
SECOND: Any = {"phase": "completed", "stoppedAt": "2026-11-29T06:00:00Z", "backupId": "second"}


def _played(*backups: Any, there: Played | None = None) -> Played:
    """A site with some backups; without any given, a failed one and two that are complete, the newest first."""
    there = there or Played()
    there.put(LIVE)
    for number, status in enumerate(backups or (FAILED, SECOND, FIRST)):
        about = {"name": f"b{number}", "namespace": "platform"}
        body = {"apiVersion": "postgresql.cnpg.io/v1", "kind": "Backup", "metadata": about}
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
        restore.plan(_site(), _played(FAILED), "2026-11-29T10:00:00Z", NOW)
    assert refused.value.code == "BACKUP_FAILED"


def test_the_archive_reaches_back_to_the_oldest_complete_backup() -> None:
    assert restore.plan(_site(), _played(), "2026-11-29T00:00:01Z", NOW).first == FIRST["stoppedAt"]


class Restored(Played):
    """A cluster whose operator restores at once, and moves the Service to whoever asks for it."""

    def _annotate(self, words: Any, things: Any) -> shell.Result:
        self.log.append(f"annotate {words[2]}")
        return shell.Result(0, "", "")

    def _patch(self, words: Any, things: Any) -> shell.Result:
        self.log.append(f"patch {words[2]}")
        self.has.pop(("Service", "platform", "postgresql"), None)
        return shell.Result(0, "", "")


def _operated(there: Played, thing: Any) -> None:
    if thing["kind"] != "Cluster":
        return
    thing["status"] = {"readyInstances": thing["spec"]["instances"]}
    if (thing["spec"].get("managed") or {}).get("services", {}).get("additional"):
        about = {"name": "postgresql", "namespace": "platform"}
        selector = {"selector": {"cnpg.io/cluster": thing["metadata"]["name"]}}
        there.put({"apiVersion": "v1", "kind": "Service", "metadata": about, "spec": selector})


def _noted(there: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have it said in the log when the archive is brought up to date."""
    monkeypatch.setattr(postgres, "archived", lambda server: there.log.append("archived"))


def test_a_restore_touches_what_serves_only_once_the_new_one_is_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    # Archived first: a time after the last archived commit can never be reached. Stopped before the Service goes: no
    # client writes to the old one any more when another one is asked.
    there = Restored(becomes=lambda thing: _operated(there, thing))
    _noted(_played(there=there), monkeypatch)
    due = restore.plan(_site(), there, "2026-11-29T10:00:00Z", NOW)
    managed = {"services": {"additional": [{"selectorType": "rw"}]}}
    made = {
        **LIVE,
        "metadata": {"name": due.new, "namespace": "platform"},
        "spec": {**LIVE["spec"], "managed": managed},
    }
    waits: list[float] = []
    restore.run(_site(), there, due, lambda site: [made], lambda text: None, waits.append)
    new = f"apply Cluster {due.new}"
    assert there.log == ["archived", new, "annotate postgresql", "patch postgresql", new]
    assert waits == [restore.SETTLE]
    assert restore.serving(there) == due.new


def test_a_drill_names_its_moment_before_the_archive_is_asked_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    there = _played(there=Restored(becomes=lambda thing: _operated(there, thing)))
    _noted(there, monkeypatch)
    digests = {"platform.public.users": Digest(3, "7")}

    def named(server: postgres.SiteServer, point: str) -> content.Digests:
        there.log.append("named")
        return digests

    monkeypatch.setattr(content, "at_restore_point", named)
    monkeypatch.setattr(content, "now", lambda server: digests)
    done = drill.run(there, "postgresql", lambda text: None)
    made = [entry for entry in there.log if entry in ("named", "archived") or entry.startswith("apply")]
    assert made == ["named", "archived", f"apply Cluster {drill.SCRATCH}"]
    assert (done.tables, done.rows) == (1, 3)
    recovery = there.has["Cluster.postgresql.cnpg.io", "platform", drill.SCRATCH]["spec"]["bootstrap"]["recovery"]
    assert recovery["recoveryTarget"] == {"targetName": done.point, "backupID": "second"}


def test_a_drill_without_a_backup_touches_nothing() -> None:
    there = _played(FAILED)
    with pytest.raises(PlatformError) as refused:
        drill.run(there, "postgresql", lambda text: None)
    assert refused.value.code == "BACKUP_FAILED"
    assert not there.log


def test_a_line_across_a_table_name_is_part_of_it() -> None:
    assert content.read(["platform.public.a|b|3|-7", "BEGIN", "x|1"]) == {"platform.public.a|b": Digest(3, "-7")}


def test_no_session_is_left_when_one_cannot_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    there = _played()
    begun: list[shell.Child] = []
    server = postgres.SiteServer(there, "postgresql")
    monkeypatch.setattr(postgres.SiteServer, "databases", lambda self: ["a", "b"])
    monkeypatch.setattr(postgres.SiteServer, "primary", lambda self: "postgresql-1")
    spawn = shell.spawn

    def first_only(argv: Any, stdin: str) -> shell.Child:
        if begun:
            raise PlatformError("PROGRAM_MISSING", "kubectl is not there")
        begun.append(spawn([sys.executable, "-c", "import time; time.sleep(60)"], stdin=stdin))
        return begun[0]

    monkeypatch.setattr(shell, "spawn", first_only)
    with pytest.raises(PlatformError):
        content.now(server)
    assert begun[0].result() is not None


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
