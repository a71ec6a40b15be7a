"""The Compose tier's decisions: states, names, images, versions; the engine itself is asked by the smoke tests."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from infra import settings, shell
from infra.console import Console
from infra.context import Context
from infra.errors import PlatformError
from infra.stack import Stack
from infra.tiers.compose import checks, cli, data, wait
from infra.tiers.compose import model as compose_model
from infra.tiers.compose import project as compose_project
from infra.tiers.compose import state as compose_state
from infra.tiers.compose import status as compose_status
from infra.tiers.compose.model import ComposeModel, ComposePart
from infra.tiers.compose.project import Listed
from infra.tiers.compose.state import Container, is_broken, judged
from infra.tiers.compose.tier import Compose

PART = ComposePart("redis", "valkey/valkey:9.1.2", "platform-redis", memory=512_000_000, checked=True)
SHOT = ComposePart("minio-setup", "x:1", "platform-minio-setup", ends=True)
UP = Container("redis", "1", "platform-redis", "running", "healthy", started=100.0)


def settings_of(root: Path, **values: str) -> settings.Settings:
    return settings.load(root, environ=values)


def test_mlflow_has_the_login_of_a_private_stack(tmp_path: Path) -> None:
    def tier_of(**values: str) -> Compose:
        return Compose(Context(settings_of(tmp_path, **values), Stack("test", tmp_path), Console(environ={})))

    assert tier_of().endpoints().mlflow.password == ""
    login = tier_of(MLFLOW_ADMIN_PASSWORD="hush-hush-hush").endpoints().mlflow
    assert (login.user, login.password) == ("admin", "hush-hush-hush")


# --- what a container's state means


@pytest.mark.parametrize(
    ("container", "state", "said"),
    [
        (None, "waiting", ""),
        (UP, "ready", ""),
        (replace(UP, health="starting", health_text="no route"), "starting", "no route"),
        (replace(UP, health="unhealthy", health_text="LOADING"), "failed", "LOADING"),
        (replace(UP, state="paused"), "failed", "paused"),
        (replace(UP, state="restarting", restarts=1, code=2), "backoff", "exit code 2"),
        (replace(UP, state="restarting", restarts=3, code=2), "failed", "3 restarts"),
        (replace(UP, health="", restarts=3), "failed", "3 restarts"),
        (
            replace(UP, state="restarting", code=137, oom=True, restarts=3),
            "failed",
            "killed: out of memory (limit 512 MB)",
        ),
        (replace(UP, state="exited", code=0, ended=300.0), "waiting", "for Compose"),
        (replace(UP, state="exited", code=1, ended=50.0), "waiting", "for Compose"),
        (replace(UP, state="created", error="no such file"), "failed", "no such file"),
    ],
)
def test_state_while_compose_works(container: Container | None, state: str, said: str) -> None:
    found, detail = judged(PART, container, began=200.0, oom=False, busy=True)
    assert found == state
    assert said in detail


def test_what_has_ended_when_compose_is_done_has_failed() -> None:
    ended = replace(UP, state="exited", code=1, ended=300.0)
    assert judged(PART, ended, 200.0, oom=False, busy=False) == ("failed", "ended with exit code 1")


def test_a_kill_for_memory_that_only_an_event_has_told_counts() -> None:
    found = judged(PART, replace(UP, state="restarting", restarts=1, code=137), 0.0, oom=True, busy=True)
    assert found == ("failed", "killed: out of memory (limit 512 MB), 1 restarts")


@pytest.mark.parametrize(("code", "state"), [(0, "ready"), (3, "failed")])
def test_a_one_shot_is_ready_when_it_has_ended_well(code: int, state: str) -> None:
    ended = Container("minio-setup", "2", "m", "exited", code=code, ended=300.0)
    assert judged(SHOT, ended, 200.0, oom=False, busy=False)[0] == state


@pytest.mark.parametrize(
    ("changes", "broken"),
    [
        ({}, False),
        ({"restarts": 9, "health": "healthy"}, True),
        ({"restarts": 1, "health": "healthy"}, False),  # it has crashed once, long ago
        ({"restarts": 1, "health": "starting"}, True),  # between two crashes
        ({"restarts": 0, "health": "starting"}, False),
        ({"health": "unhealthy"}, True),
        ({"state": "restarting", "restarts": 1, "code": 1}, True),
    ],
)
def test_what_compose_must_not_find_running(changes: dict[str, Any], broken: bool) -> None:
    assert is_broken(PART, replace(UP, **changes)) is broken


def test_a_one_shot_that_works_is_not_ready_yet() -> None:
    verdict = judged(SHOT, replace(UP, part="minio-setup", health=""), 0.0, oom=False, busy=True)
    assert compose_state.item(SHOT, UP, verdict, 9.0).state == "starting"


def test_status_calls_a_container_that_is_gone_stopped() -> None:
    assert compose_status.state_of(PART, None)[0] == "stopped"
    assert compose_status.state_of(PART, replace(UP, state="exited", code=1))[0] == "stopped"
    assert compose_status.state_of(PART, replace(UP, health="unhealthy"))[0] == "unhealthy"
    assert compose_status.state_of(PART, replace(UP, restarts=9)) == ("ready", "")


def test_the_worst_part_decides() -> None:
    assert compose_state.worst(["ready", "starting", "failed"]) == "failed"
    assert compose_state.worst(["ready", "ready"]) == "ready"


def test_reading_what_the_engine_says() -> None:
    facts: dict[str, Any] = {
        "Id": "abc",
        "Name": "/platform-redis",
        "Image": "sha256:1",
        "RestartCount": 2,
        "Config": {"Labels": {"com.docker.compose.service": "redis"}},
        "State": {
            "Status": "running",
            "ExitCode": 0,
            "OOMKilled": False,
            "Pid": 7,
            "StartedAt": "2026-11-25T12:00:00.123456789Z",
            "FinishedAt": "0001-01-01T00:00:00Z",
            "Health": {"Status": "unhealthy", "Log": [{"Output": "first"}, {"Output": "a\nlast line\n"}]},
        },
    }
    found = compose_state.read(facts)
    assert (found.part, found.name, found.health_text, found.restarts, found.pid) == (
        "redis", "platform-redis", "last line", 2, 7,
    )  # fmt: skip
    assert found.started == 1795608000.0
    assert found.ended == 0.0


# --- which project


def container(project: str, directory: Path, *ports: int, runs: bool = True) -> Listed:
    return Listed(f"{project}-x", project, str(directory), runs, ports)


def test_the_project_is_platform(tmp_path: Path) -> None:
    found = compose_project.name(settings_of(tmp_path), Stack("s", tmp_path / "state"), [])
    assert found == "platform"


def test_our_own_containers_keep_the_name(tmp_path: Path) -> None:
    seen = [container("platform", tmp_path / "compose")]
    assert compose_project.name(settings_of(tmp_path), Stack("s", tmp_path / "state"), seen) == "platform"


def test_containers_of_another_checkout_make_it_another_name(tmp_path: Path) -> None:
    seen = [container("platform", tmp_path / "elsewhere" / "compose")]
    found = compose_project.name(settings_of(tmp_path), Stack("s", tmp_path / "state"), seen)
    assert found.startswith("platform-")
    assert len(found) == len("platform-") + 6


def test_volumes_of_another_stack_make_it_another_name_while_that_exists(tmp_path: Path) -> None:
    home, other = Stack("s", tmp_path / "state"), tmp_path / "other"
    assert compose_project.name(settings_of(tmp_path), home, [], str(other)) == "platform"
    other.mkdir()
    assert compose_project.name(settings_of(tmp_path), home, [], str(other)) != "platform"


def test_the_setting_wins(tmp_path: Path) -> None:
    seen = [container("platform", tmp_path / "elsewhere")]
    chosen = settings_of(tmp_path, PLATFORM_STACK="mine")
    assert compose_project.name(chosen, Stack("s", tmp_path / "state"), seen) == "mine"


# --- Compose itself


@pytest.mark.parametrize(
    ("text", "fits"),
    [("2.24.4", True), ("2.24.3", False), ("2.40.3-3", True), ("5.5.1", True), ("1.29.2", False), ("dev", True)],
)
def test_versions_of_compose(text: str, fits: bool) -> None:
    assert cli.new_enough(text) == fits


def answering(monkeypatch: pytest.MonkeyPatch, **answers: shell.Result) -> None:
    """Programs that are there, with what they say."""
    monkeypatch.setattr(shell, "find", lambda program: program if program in answers else None)
    monkeypatch.setattr(shell, "run", lambda argv, **_: answers[argv[0]])


@pytest.mark.parametrize(
    ("answers", "code", "said"),
    [
        ({}, "PROGRAM_MISSING", "`docker` command is not installed"),
        ({"docker": shell.Result(1, "", "not a docker command")}, "COMPOSE_UNFIT", "not installed"),
        ({"docker": shell.Result(0, "2.20.0\n", "")}, "COMPOSE_UNFIT", "2.20.0 is too old"),
    ],
)
def test_compose_that_does_not_fit(
    monkeypatch: pytest.MonkeyPatch, answers: dict[str, shell.Result], code: str, said: str
) -> None:
    answering(monkeypatch, **answers)
    with pytest.raises(PlatformError) as caught:
        cli.version()
    assert (caught.value.code, caught.value.exit) == (code, 5)
    assert said in caught.value.what


def test_version_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    old = {"docker": shell.Result(1, "", "no"), "docker-compose": shell.Result(0, "1.29.2\n", "")}
    answering(monkeypatch, **old)
    with pytest.raises(PlatformError) as caught:
        cli.version()
    assert "1.29.2" in caught.value.why


def test_no_setting_is_in_the_command_line(tmp_path: Path) -> None:
    chosen = settings_of(tmp_path, POSTGRES_PASSWORD="very secret")
    environ = cli.environment(chosen, None, "p")
    compose = cli.ComposeCommand("p", (tmp_path / "a.yml",), environ, tmp_path / "no.env")
    assert environ["POSTGRES_PASSWORD"] == "very secret"
    assert "secret" not in " ".join(compose.argv("up", "-d"))


def test_what_steers_this_tool_does_not_change_containers(tmp_path: Path) -> None:
    plain = cli.environment(settings_of(tmp_path), None, "p")
    steered = settings_of(tmp_path, PLATFORM_LEAVE_OUT="clearml", PLATFORM_IMAGE_MIRRORS="m", PLATFORM_TIER="compose")
    assert cli.environment(steered, None, "p") == plain


# --- the model


def test_the_model_from_compose_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = {
        "volumes": {"data": {"name": "p_data"}},
        "services": {
            "redis": {
                "image": "r:1",
                "container_name": "p-redis",
                "environment": {"REDIS_PASSWORD": "hidden"},
                "ports": [{"published": "6379", "target": 6379}],
                "volumes": [
                    {"type": "volume", "source": "data", "target": "/data"},
                    {"type": "bind", "source": "/x/y", "target": "/z"},
                ],
                "mem_limit": "536870912",
                "restart": "unless-stopped",
                "healthcheck": {"test": ["CMD", "x"]},
            },
            "minio-setup": {"image": "b:1", "restart": "on-failure:5", "depends_on": {"redis": {}}},
        },
    }
    asked = []

    def run(argv: list[str], **_: Any) -> shell.Result:
        if "version" in argv:
            return shell.Result(0, "2.40.3", "")
        asked.append(argv)
        return shell.Result(0, json.dumps(config), "")

    monkeypatch.setattr(shell, "run", run)
    compose = cli.ComposeCommand("p", (), {"A": "b"}, tmp_path / "no.env")
    model = compose_model.load(compose, tmp_path / "model.json")
    assert model.parts["redis"] == ComposePart(
        "redis", "r:1", "p-redis", (), (6379,), ("p_data",), ("/x/y",), 536870912, ends=False, checked=True
    )
    assert model.parts["minio-setup"].ends
    assert [p.name for p in model.closure(["minio-setup"])] == ["redis", "minio-setup"]
    assert "hidden" not in (tmp_path / "model.json").read_text()
    compose_model.load(compose, tmp_path / "model.json")
    assert len(asked) == 1, "asked again although nothing has changed"
    compose_model.load(replace(compose, environ={"A": "c"}), tmp_path / "model.json")
    assert len(asked) == 2


def test_every_part_of_the_files_belongs_to_a_service() -> None:
    for name in ("temporal-schema", "clearml-mongo", "alloy", "redis-exporter", "minio-setup"):
        assert compose_model.owner_of(name)
    assert compose_model.owner_of("stranger") == ""


def test_services_that_are_left_out(tmp_path: Path) -> None:
    parts = {n: ComposePart(n, "i:1", n) for n in ("loki", "alloy")}
    chosen = settings_of(tmp_path, PLATFORM_LEAVE_OUT="alloy,clearml")
    assert [p.name for p in compose_model.selection(chosen, ComposeModel("", parts), ["loki"])] == ["loki"]


# --- images


# --- data and checks


@pytest.mark.parametrize(("found", "wanted"), [("", "18"), ("18", "18"), ("16", "")])
def test_data_of_the_same_major_is_fine(found: str, wanted: str) -> None:
    data.refuse_other_major(found, wanted, "v")


def test_data_of_another_major_is_refused() -> None:
    with pytest.raises(PlatformError) as caught:
        data.refuse_other_major("16", "18", "v")
    assert caught.value.exit == 8


def test_a_port_of_a_container_is_named_with_its_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infra.ports.blocked", lambda host, port: "taken")
    claims = checks.claims(settings_of(tmp_path), [ComposePart("redis", "r", "p-redis", ports=(6379,))])
    (check,) = checks.port_checks("127.0.0.1", claims, [container("other", tmp_path, 6379)], "platform")
    assert (check.status, check.code, check.id) == ("fail", "PORT_TAKEN", "port.6379")
    assert "other-x of the Compose project other" in check.text
    assert "REDIS_PORT" in check.text
    assert check.remedy.startswith("stop that project: docker compose -p other stop")


def test_ports_of_our_own_containers_are_no_conflict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infra.ports.blocked", lambda host, port: "taken")
    claims = checks.claims(settings_of(tmp_path), [ComposePart("redis", "r", "p-redis", ports=(6379,))])
    (check,) = checks.port_checks("127.0.0.1", claims, [container("platform", tmp_path, 6379)], "platform")
    assert check.status == "ok"


def test_memory_that_the_limits_exceed_is_a_warning() -> None:
    assert checks.memory(8_000_000_000, [PART]).status == "ok"
    assert checks.memory(600_000_000, [PART]).status == "warn"


def test_what_compose_says_of_a_port_has_the_code_of_a_port() -> None:
    running = shell.Running([], None)  # type: ignore[arg-type]
    running.lines.extend(
        ["Container x  Starting", "Error response from daemon: Bind for :5: port is already allocated"]
    )
    assert wait.compose_failed(running).code == "PORT_TAKEN"
