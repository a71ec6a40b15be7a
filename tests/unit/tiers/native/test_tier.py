"""The native tier on programs that only seem to be there; nothing is started but sleepers under a supervisor."""

from __future__ import annotations

import os
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from infra.context import Context
from infra.endpoints import Login
from infra.errors import PlatformError
from infra.loglines import LogQuery
from infra.supervision import client as supervise
from infra.supervision.client import Spec, State
from infra.tiers import providers
from infra.tiers.base import Removal
from infra.tiers.native import object_store, postgres, status
from infra.tiers.native.services import CORE
from infra.tiers.native.tier import Native
from infra.tiers.providers import Program
from tests.smoke.stage import free_ports
from tests.unit.helpers import context_of, eventually, free_port, script
from tests.unit.tiers.services import SLEEP, listening, pids, reach, spec, up

pytestmark = [
    pytest.mark.skipif(os.name == "nt", reason="programs are played by shell scripts"),
    pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning"),
]


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Context:
    """A stack with free ports, on programs that say their version and do nothing."""
    monkeypatch.setattr(postgres, "is_root", lambda: False)
    for name in ("postgres", "initdb", "psql", "valkey-server", "temporal", "rclone"):
        script(tmp_path / name, "echo 'postgres (PostgreSQL) 18.6'")
    settings = {"PLATFORM_POSTGRES_BIN": "", "PLATFORM_REDIS_SERVER": "valkey-server", "PLATFORM_TEMPORAL": "temporal"}
    values = {name: str(tmp_path / program) for name, program in settings.items()}
    rclone = Program(tmp_path / "rclone", "rclone", "bundled")
    monkeypatch.setattr(providers, "_bundled", lambda engine: None if engine == "weed" else rclone)
    return context_of(tmp_path, **values, **free_ports())


def fails(tier: Native) -> list[str]:
    return [c.id for c in tier.preflight(CORE) if c.status == "fail"]


# --- availability and preflight


def test_the_tier_is_there_when_every_program_is(context: Context) -> None:
    assert Native(context).available().ok


def test_a_missing_program_is_the_reason_why_not(tmp_path: Path, context: Context) -> None:
    (tmp_path / "temporal").unlink()
    found = Native(context).available()
    assert not found.ok
    assert "PLATFORM_TEMPORAL" in found.reason


def test_a_machine_that_is_ready(context: Context) -> None:
    assert fails(Native(context)) == []
    assert not context.stack.home.exists(), "looking writes nothing"


def test_a_taken_port_is_found(context: Context) -> None:
    port = context.settings.port("REDIS_PORT")
    with socket.create_server(("127.0.0.1", port)):
        assert fails(Native(context)) == [f"port.{port}"]


def test_data_of_another_version_or_engine_is_refused(context: Context) -> None:
    home = context.stack.tier_home("native")
    (home / "data" / "postgres").mkdir(parents=True)
    (home / "data" / "postgres" / "PG_VERSION").write_text("16\n")
    with pytest.raises(PlatformError) as caught:
        Native(context).preflight(CORE)
    assert caught.value.code == "DATA_INCOMPATIBLE"


@pytest.fixture
def running(context: Context) -> Iterator[tuple[Path, Spec]]:
    """A service `redis` that holds its port."""
    home, port = context.stack.tier_home("native"), context.settings.port("REDIS_PORT")
    made = listening(home, "redis", port)
    wanted = Native(context).builder.redis()
    with up(home, [made]):
        yield home, replace(wanted, generation=0)


def test_our_own_services_are_not_in_their_own_way(context: Context, running: tuple[Path, Spec]) -> None:
    assert fails(Native(context)) == []


def test_a_service_that_moves_to_a_taken_port_is_found_before_it_is_stopped(
    tmp_path: Path, context: Context, running: tuple[Path, Spec]
) -> None:
    before = pids(running[0])
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        port = stranger.getsockname()[1]
        values = {**context.settings.values}
        values["REDIS_PORT"] = replace(values["REDIS_PORT"], text=str(port))
        moved = replace(context, settings=replace(context.settings, values=values))
        assert fails(Native(moved)) == [f"port.{port}"]
    assert pids(running[0]) == before


def test_a_service_of_another_specification_is_named(
    context: Context, running: tuple[Path, Spec], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, wanted = running
    tier = Native(context)
    assert tier.outdated() == ("redis",)
    monkeypatch.setattr(supervise, "desired", lambda _: [replace(wanted, generation=3)])
    assert tier.outdated() == (), "a restart by hand is no difference"


# --- the states that a wait and a status see


def seen(state: State | None, wanted: Spec, home: Path) -> str:
    return status.item(wanted, state).state


def test_a_state_of_an_earlier_command_is_no_answer(tmp_path: Path) -> None:
    wanted = spec(tmp_path, "redis")
    failed = State("redis", "failed", fingerprint="older")
    assert seen(failed, wanted, tmp_path) == "waiting"
    assert seen(None, wanted, tmp_path) == "waiting"
    assert seen(replace(failed, fingerprint=wanted.fingerprint), wanted, tmp_path) == "failed"


def test_a_ready_process_that_has_gone_is_not_ready(tmp_path: Path) -> None:
    wanted = spec(tmp_path, "redis")
    gone = State("redis", "ready", pid=1 << 22, create_time=1.0, fingerprint=wanted.fingerprint)
    assert seen(gone, wanted, tmp_path) != "ready"
    assert status.service(wanted, gone, supervised=True).state == "stopped"


def test_status_of_what_runs_and_of_what_lost_its_supervisor(context: Context, running: tuple[Path, Spec]) -> None:
    home, _ = running
    (found,) = Native(context).status()
    assert (found.name, found.state, found.pid) == ("redis", "ready", pids(home)["redis"])
    assert (found.memory or 0) > 1_000_000
    assert Native(context).processes() == {("redis", found.pid)}
    wanted, state = supervise.desired(home)[0], supervise.states(home)["redis"]
    alone = status.service(wanted, state, supervised=False)
    assert (alone.state, alone.pid) == ("unsupervised", found.pid)


def test_nothing_runs_before_anything_was_started(context: Context) -> None:
    tier = Native(context)
    assert not tier.running()
    assert tier.status() == []
    assert not tier.stop()
    assert tier.endpoints().services == CORE


def test_programs_are_told_even_where_one_is_missing(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(providers, "prometheus", lambda settings: None)
    told = Native(context).programs()
    assert told["PostgreSQL server"] == "postgresql 18.6 (PLATFORM_POSTGRES_BIN)"
    assert told["S3 server"] == "rclone 18.6 (bundled)"
    assert told["Prometheus server"] == "not installed"
    gone = replace(context.settings.values["PLATFORM_TEMPORAL"], text="/gone")
    lacking = replace(context.settings, values={**context.settings.values, "PLATFORM_TEMPORAL": gone})
    told = Native(replace(context, settings=lacking)).programs()
    assert told["Temporal server"].startswith("unknown: PLATFORM_TEMPORAL: /gone")
    assert told["Redis server"] == "valkey-server 18.6 (PLATFORM_REDIS_SERVER)"


def test_which_services_an_up_starts(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(providers, "prometheus", lambda settings: None)
    tier = Native(context)
    assert tier.selection(obs=False, only=()) == CORE
    assert tier.selection(obs=True, only=()) == (*CORE, "mlflow")
    assert tier.selection(obs=False, only=["mlflow"]) == ("postgres", "minio-results", "mlflow")


@pytest.mark.parametrize(
    ("used", "best", "chosen", "advice"),
    [
        ("rclone", "weed", "", True),
        ("weed", "weed", "", False),
        ("rclone", "rclone", "", False),
        ("rclone", "weed", "rclone", False),
    ],
)
def test_a_stack_that_still_uses_rclone_is_told_the_way(
    context: Context, monkeypatch: pytest.MonkeyPatch, used: str, best: str, chosen: str, advice: bool
) -> None:
    def server(settings: object, recorded: str = "") -> Program:
        return Program(Path("/x"), used if recorded or chosen else best, "bundled")

    monkeypatch.setattr(providers, "s3_server", server)
    monkeypatch.setitem(providers.SERVERS, "object store", providers.NativeServer("S3 server", server))
    context.stack.tier_home("native").mkdir(parents=True)
    object_store.record(context.stack.tier_home("native"), used)
    text = replace(context.settings.values["PLATFORM_S3_SERVER"], text=chosen)
    settings = replace(context.settings, values={**context.settings.values, "PLATFORM_S3_SERVER": text})
    said = Native(replace(context, settings=settings)).advice
    assert said == ("The object stores still use rclone; to move them: invoke minio.engine --to weed" if advice else "")


# --- logs


def logs_of(context: Context, **texts: str) -> None:
    directory = context.stack.tier_home("native") / "logs"
    directory.mkdir(parents=True)
    for name, text in texts.items():
        (directory / f"{name}.log").write_text(text, encoding="utf-8")


def test_the_last_lines_of_each_log(context: Context) -> None:
    logs_of(context, redis="1\n2\n3\n", postgres="a\nb")
    lines = [(x.service, x.text) for x in Native(context).logs((), LogQuery(2))]
    assert lines == [("postgres", "a"), ("postgres", "b"), ("redis", "2"), ("redis", "3")]
    assert [x.text for x in Native(context).logs(["redis"], LogQuery(0))] == ["1", "2", "3"]


def test_following_yields_whole_lines_as_they_come(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    logs_of(context, redis="old\n")
    log = context.stack.tier_home("native") / "logs" / "redis.log"
    news = iter(["ne", "w 한글\nmore\n"])

    def sleep(seconds: float) -> None:
        with open(log, "a", encoding="utf-8") as file:
            file.write(next(news))

    monkeypatch.setattr(time, "sleep", sleep)
    lines = Native(context).logs((), LogQuery(1, follow=True))
    assert [next(lines).text for _ in range(3)] == ["old", "new 한글", "more"]


def data(context: Context, *names: str) -> Path:
    home = context.stack.tier_home("native")
    for name in names:
        (home / "data" / name).mkdir(parents=True)
        (home / "data" / name / "rows").write_text("12345")
    return home


def test_the_plan_lists_data_with_its_size_and_deletes_nothing(context: Context) -> None:
    home = data(context, "redis", "minio-datasets", "minio-datasets-versions", "stranger")
    plan = Native(context).removals(())
    assert {(r.service, Path(r.place).name, r.size) for r in plan} == {
        ("redis", "redis", 5),
        ("minio-datasets", "minio-datasets", 5),
        ("minio-datasets", "minio-datasets-versions", 5),
    }
    assert [r.service for r in Native(context).removals(["redis"])] == ["redis"]
    assert (home / "data" / "redis" / "rows").exists()


def test_only_what_was_planned_is_removed(context: Context) -> None:
    home = data(context, "redis", "postgres", "stranger")
    tier = Native(context)
    tier.remove(tier.removals(["redis"]))
    assert sorted(p.name for p in (home / "data").iterdir()) == ["postgres", "stranger"]


def test_the_engine_is_forgotten_with_the_last_store_and_not_before(context: Context) -> None:
    home = data(context, "minio-datasets", "minio-results")
    object_store.record(home, "rclone")
    tier = Native(context)
    tier.remove(tier.removals(["minio-datasets"]))
    assert object_store.recorded(home) == "rclone"
    tier.remove(tier.removals(["minio-results"]))
    assert object_store.recorded(home) == ""


def test_what_an_initdb_that_was_killed_left_is_removed_with_the_data(context: Context) -> None:
    home = data(context, "postgres", ".postgres-new-1")
    (home / "postgres-data").write_text("x")
    tier = Native(context)
    tier.remove([Removal("postgres", home / "data" / "postgres", 5)])
    assert list((home / "data").iterdir()) == []
    assert not (home / "postgres-data").exists()


# --- files for the services


def test_the_password_of_redis_goes_into_a_private_file(tmp_path: Path, context: Context) -> None:
    values = {**context.settings.values}
    values["REDIS_PASSWORD"] = replace(values["REDIS_PASSWORD"], text='a"b\\c d')
    changed = replace(context, settings=replace(context.settings, values=values))
    tier = Native(changed)
    made = tier.builder
    tier._prepare(made, CORE)
    assert made.config("redis").read_text() == 'requirepass "a\\"b\\\\c d"\n'
    assert made.config("redis").stat().st_mode & 0o777 == 0o600
    assert all(d.is_dir() for name in CORE for d in made.directories(name))


def test_a_state_directory_that_takes_no_files(context: Context) -> None:
    context.stack.home.write_text("a file")
    tier = Native(context)
    with pytest.raises(PlatformError) as caught:
        tier._prepare(tier.builder, CORE)
    assert caught.value.code == "STATE_UNWRITABLE"


def test_a_wait_for_what_is_late_names_it_with_its_log(context: Context) -> None:
    home = context.stack.tier_home("native")
    late = listening(home, "redis", free_port(), budget=0.3)
    silent = replace(late, argv=[*late.argv[:3], f"print('loading', flush=True); {SLEEP}"])
    with up(home, [silent, spec(home, "temporal")], ready=False):
        eventually(lambda: "connection refused" in (supervise.states(home).get("redis") or State("", "")).detail)
        with pytest.raises(PlatformError) as caught:
            Native(context).wait((), None)
    assert caught.value.code == "WAIT_TIMEOUT"
    assert caught.value.why.startswith("connection refused")
    assert (caught.value.details["service"], caught.value.details["log"]) == ("redis", ["loading"])


def test_mlflow_wants_the_login_of_the_settings(context: Context) -> None:
    assert Native(context).endpoints().mlflow == Login("admin", "")
    private = context.with_values({"MLFLOW_ADMIN_PASSWORD": "twelve-or-more"}, "a test")
    assert Native(private).endpoints().mlflow == Login("admin", "twelve-or-more")


@pytest.mark.skipif(sys.platform != "linux", reason="which file a process runs is told by /proc")
def test_a_service_whose_program_was_replaced_is_named_and_started_again_once(tmp_path: Path) -> None:
    program, home = tmp_path / "server", tmp_path / "home"
    shutil.copy(shutil.which("sleep") or "/bin/sleep", program)
    wanted = replace(spec(home, "redis"), argv=[str(program), "600"])
    with up(home, [wanted]):
        before = pids(home)
        assert supervise.replaced(home) == set()
        newer = tmp_path / "newer"
        shutil.copy(program, newer)
        newer.replace(program)
        assert supervise.replaced(home) == {"redis"}
        supervise.ensure(home, [wanted], supervise.replaced(home))
        eventually(lambda: pids(home).get("redis") not in (None, before["redis"]), "another process")
        reach(home, "ready", "redis")
        assert supervise.replaced(home) == set()
        after = pids(home)
        supervise.ensure(home, [wanted], supervise.replaced(home))
        assert pids(home) == after
