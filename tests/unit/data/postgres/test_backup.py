"""Where backups go, how they are found, what is said of them, and the plan of a restore."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from infra.data import store
from infra.data.postgres import backup as postgres_backup
from infra.data.postgres import backups as postgres_backups
from infra.data.postgres import children as postgres_children
from infra.data.postgres import clients, verify
from infra.data.postgres import metrics as postgres_metrics
from infra.errors import PlatformError
from infra.shell import Result
from tests.unit.data.manifests import manifest_facts
from tests.unit.helpers import context_of


def _published(target: Path, **facts: object) -> store.Backup:
    target.mkdir(exist_ok=True, parents=True)
    with store.publishing(target, postgres_backups.KIND) as (draft, noted):
        draft.path("a").write_text("content")
        draft.add("a")
        noted |= {"seconds": 2.5, **manifest_facts(), **facts}
    return store.load(Path(str(noted["path"])))


def test_directories_are_safe_whatever_a_database_is_called() -> None:
    made = postgres_backup.directories(["../x", "Users", "users", "a/b", "ü" * 90])
    assert len({d.lower() for d in made.values()}) == 5
    assert all("/" not in d and ".." not in d and len(d) < 50 for d in made.values())


def test_backups_are_found_by_path_by_name_and_as_latest(tmp_path: Path) -> None:
    with pytest.raises(PlatformError) as caught:
        postgres_backups.find(tmp_path, "latest")
    assert caught.value.code == "NOT_FOUND"
    first, second = _published(tmp_path), _published(tmp_path)
    assert postgres_backups.find(tmp_path, "latest").path == second.path
    assert postgres_backups.find(tmp_path, first.path.name).path == first.path
    assert postgres_backups.find(Path("/nowhere"), str(first.path)).path == first.path
    (second.path / store.MANIFEST).write_text("{}")
    assert postgres_backups.find(tmp_path, "latest").path == first.path
    with pytest.raises(PlatformError) as caught:
        postgres_backups.find(tmp_path, second.path.name)
    assert caught.value.code == "BACKUP_DAMAGED"


def test_only_verified_backups_have_an_age_and_the_metrics_say_so(tmp_path: Path) -> None:
    context = context_of(tmp_path)
    home = context.stack
    target = postgres_backups.default_target(home)
    assert postgres_backups.last_verified(home) is None
    made = _published(target)
    assert postgres_backups.last_verified(home) is None
    text = postgres_metrics.text(postgres_backups.listing(target))
    assert "platform_backup_last_verified_timestamp_seconds 0" in text
    assert "platform_backup_last_duration_seconds 2.5" in text
    (made.path / "verified.json").write_text("{}")
    assert postgres_metrics.write(context, target) == home.home / "metrics" / "backup.prom"
    when = postgres_backups.last_verified(home)
    assert when is not None
    assert abs(time.time() - when) < 100
    text = postgres_metrics.write(context, target).read_text()
    assert f"platform_backup_last_verified_size_bytes {made.size}" in text


def test_what_would_be_pruned_is_known_before(tmp_path: Path) -> None:
    made = [_published(tmp_path) for _ in range(4)]
    assert store.prunable(store.catalogue(tmp_path, "db"), 1)[0] == []
    for backup in made[:3]:
        (backup.path / "verified.json").write_text("{}")
    doomed, why = store.prunable(store.catalogue(tmp_path, "db"), 2)
    assert [b.path for b in doomed] == [made[0].path]
    assert not why
    assert all(b.path.exists() for b in made)


def test_a_full_disk_is_said_with_what_is_needed(tmp_path: Path) -> None:
    log = {"log": ["pg_dump: error: could not write to file: No space left on device"]}
    with pytest.raises(PlatformError) as caught, postgres_backup._room(tmp_path, 5_000_000):
        raise PlatformError("BACKUP_FAILED", "pg_dump ended with 1", details=log)
    assert "about 5 MB is needed" in caught.value.what


def test_children_end_with_their_task() -> None:
    children = postgres_children.Children()
    sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
    jobs = [lambda: children.run(sleep, {}), lambda: children.run([sys.executable, "-c", "raise SystemExit(3)"], {})]

    def failing() -> object:
        time.sleep(0.3)
        raise PlatformError("BACKUP_FAILED", "no")

    began = time.monotonic()
    with pytest.raises(PlatformError, match="no"):
        postgres_children.side_by_side(children, 3, [*jobs, failing])
    assert time.monotonic() - began < 30
    assert not children.running
    with pytest.raises(PlatformError) as caught:
        children.start(sleep, {})
    assert caught.value.code == "INTERRUPTED"


def test_the_first_failure_is_told_and_not_what_ended_because_of_it() -> None:
    children = postgres_children.Children()
    sleep = [sys.executable, "-c", "import time; time.sleep(60)"]

    def ended() -> None:
        raise PlatformError("BACKUP_FAILED", f"ended with {children.run(sleep, {}).code}")

    def failing() -> None:
        while not children.running:
            time.sleep(0.01)
        raise PlatformError("BACKUP_DAMAGED", "the reason")

    def nested() -> None:
        postgres_children.side_by_side(children, 2, [failing, ended])

    with pytest.raises(PlatformError, match="the reason"):
        postgres_children.side_by_side(children, 2, [ended, nested])
    assert not children.running


def test_the_password_goes_by_environment_and_foreign_settings_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    from infra import endpoints, settings

    monkeypatch.setenv("PGSERVICE", "elsewhere")
    ends = endpoints.build(settings.load(environ={"POSTGRES_PASSWORD": "geheim"}), ("postgres",))
    there = clients.Server(ends, 180006, True, clients.Clients(Path("/x"), 180006))
    env = clients.login(there)
    assert env["PGPASSWORD"] == "geheim"
    assert "PGSERVICE" not in env
    assert "event_triggers=off" in env["PGOPTIONS"]
    for other in (replace(there, number=160004), replace(there, superuser=False)):
        assert "event_triggers" not in clients.login(other)["PGOPTIONS"]


@pytest.mark.parametrize(
    ("made_by", "server", "client", "refused"),
    [
        (180006, 180006, 180006, ""),
        (150018, 180006, 180006, ""),
        (190001, 180006, 190001, "19.1"),
        (150018, 150018, 180006, "pg_restore 18.6"),
        (150018, 150018, 150018, ""),
    ],
)
def test_versions_that_do_not_fit_are_refused_with_both(made_by: int, server: int, client: int, refused: str) -> None:
    from infra import endpoints, settings

    ends = endpoints.build(settings.load(environ={}), ("postgres",))
    there = clients.Server(ends, server, True, clients.Clients(Path("/x"), client))
    backup = store.Backup(Path("/b"), "db", 1, "", {"server": {"number": made_by}, "client": {"number": client}})
    if not refused:
        verify.check_versions(backup, there)
        return
    with pytest.raises(PlatformError) as caught:
        verify.check_versions(backup, there)
    assert caught.value.exit == 8
    assert refused in caught.value.what
    assert clients.version_text(server) in caught.value.what


def test_the_tasks_have_help_and_an_example() -> None:
    from infra.tasks import db

    names = [task.name for task in db.TASKS]
    assert names == ["backup", "list", "verify", "restore", "prune", "shell", "init", "databases", "upgrade"]
    assert all(task.__doc__ and "Example: invoke db." in task.__doc__ for task in db.TASKS)


def test_an_exit_by_signal_is_said_as_such() -> None:
    error = clients.failure("BACKUP_FAILED", ["/x/pg_dump"], Result(-9, "", ""), "users")
    assert "pg_dump was killed by signal 9" in error.what
    assert json.dumps(error.details)
