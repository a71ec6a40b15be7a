"""The verbs on a tier that does nothing: what they answer, with which code, and what they leave alone."""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import invoke
import pytest
from dotenv import dotenv_values

from infra import catalog, health, proof, settings, stack, tier_choice
from infra.endpoints import contract, familiar
from infra.errors import PlatformError
from infra.loglines import LogQuery
from infra.probes import Finding
from infra.tasks import verbs
from infra.tiers.base import Check, LogLine, Removal, ServiceStatus
from tests.unit.test_endpoints import ALWAYS, built
from tests.unit.test_lifecycle import CORE, FakeTier

COMMON: dict[str, Any] = {"output": "table", "json": False, "no_color": False, "debug": False, "tier": ""}
TASKS: dict[str, invoke.Task[Any]] = {str(task.name): task for task in verbs.tasks()}


class Tier(FakeTier):
    """A tier with a log and with data."""

    def logs(self, services: Sequence[str], query: LogQuery) -> Iterator[LogLine]:
        yield LogLine("redis", "password geheim-redis [x]")

    def removals(self, services: Sequence[str]) -> list[Removal]:
        found = [
            Removal(n, self.context.stack.home / n, 5) for n in ("redis", "postgres") if not services or n in services
        ]
        return [r for r in found if r.path and r.path.exists()]

    def remove(self, removals: Sequence[Removal]) -> None:
        for removal in removals:
            Path(removal.place).unlink()

    def stash(self, removal: Removal, into: Path) -> None:
        Path(removal.place).rename(into / "data")

    def unstash(self, removal: Removal, kept: Path) -> None:
        (kept / "data").rename(removal.place)


@pytest.fixture
def tier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tier:
    """The only tier there is, on an empty checkout; everything that runs answers."""
    made, real = Tier(), settings.load
    monkeypatch.setattr(settings, "load", lambda root=tmp_path, **more: real(root=root, **more))
    monkeypatch.setattr(tier_choice, "tiers", lambda context: {"native": made.of(context)})
    monkeypatch.setattr(proof, "psql", lambda settings: Path("/x/psql"))
    monkeypatch.setattr(health, "ask", lambda questions, limit=5.0: {name: Finding(True) for name in questions})
    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "1.2.3"\n')
    return made


@pytest.fixture
def up(tier: Tier) -> Tier:
    """The same, running."""
    tier.runs, tier.found = True, [ServiceStatus(n, "ready", pid=os.getpid()) for n in CORE]
    return tier


@pytest.fixture
def data(tier: Tier, tmp_path: Path) -> Path:
    """Data of two services."""
    home = tmp_path / ".platform"
    home.mkdir()
    for name in ("redis", "postgres"):
        (home / name).write_text("12345")
    return home


def call(name: str, **options: Any) -> int:
    """Run a task as Invoke does; its exit code."""
    task = TASKS[name]
    given: dict[str, Any] = {str(a.name): [] if a.name == "service" else a.default for a in task.get_arguments()}
    try:
        task.body(invoke.Context(), **{**given, **COMMON, **options})
    except invoke.Exit as end:
        return end.code
    return 0


Captured = Callable[[], tuple[str, str]]


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Captured:
    def both() -> tuple[str, str]:
        out, err = capsys.readouterr()
        return out, err

    return both


def data_of(said: Captured) -> Any:
    return json.loads(said()[0])["data"]


def error_of(said: Captured) -> Any:
    return json.loads(said()[0])["error"]


# --- nothing runs


def test_with_nothing_running(tier: Tier, said: Captured) -> None:
    codes = {name: call(name) for name in ("status", "down", "wait", "restart", "reset", "env", "version")}
    assert codes == {"status": 9, "down": 0, "wait": 9, "restart": 9, "reset": 0, "env": 0, "version": 0}
    out, err = said()
    assert "nothing was running" in out
    assert "no data to remove" in out
    assert "Traceback" not in err


def test_waiting_for_what_was_not_started(up: Tier, said: Captured) -> None:
    assert call("wait", service=["mlflow"], json=True) == 9
    assert error_of(said)["code"] == "NOT_RUNNING"


# --- up and status


def test_obs_and_no_obs_contradict_each_other(tier: Tier, said: Captured) -> None:
    assert call("up", obs=True, no_obs=True, json=True) == 2
    assert error_of(said)["message"] == "--obs and --no-obs contradict each other"
    assert tier.asked == []


def test_up_says_where_everything_is_and_a_second_one_that_nothing_was_to_do(tier: Tier, said: Captured) -> None:
    assert call("up") == 0
    first = said()
    assert "http://127.0.0.1:8233" in first[0]
    assert "admin / devpass" in first[0]
    assert "Next:" in first[0]
    assert "native is fine" in first[1], "a tier that was picked is named with the reason"
    assert call("up") == 0
    assert "already runs" in said()[1]


def test_up_that_is_interrupted_says_what_goes_on_and_how_to_stop_it(
    tier: Tier, said: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(type(tier), "start", interrupted)
    assert call("up", json=True) == 130
    error = error_of(said)
    assert "keep running" in error["message"]
    assert any("invoke down" in action["command"] for action in error["actions"])


def test_up_of_an_unknown_service(tier: Tier, said: Captured) -> None:
    assert call("up", service=["postgrs"], json=True) == 2
    assert error_of(said)["actions"][0]["command"] == "did you mean postgres?"
    assert "start" not in tier.asked


def test_up_shows_no_password_of_the_users_own(tier: Tier, said: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTGRES_PASSWORD", "hunter2hunter2")
    call("up")
    assert "hunter2" not in "".join(said())


def test_status_codes(up: Tier, said: Captured) -> None:
    assert call("status") == 0
    assert "ready on the native tier" in said()[0]
    up.found[1] = ServiceStatus("redis", "backoff", "exit 1; next try in 1 s")
    assert call("status") == 7
    assert "exit 1; next try in 1 s" in said()[0]


def test_status_why_names_the_culprit_and_its_victims(up: Tier, said: Captured) -> None:
    up.found = [
        ServiceStatus("postgres", "failed", "exit 1"),
        ServiceStatus("minio-results", "ready"),
        ServiceStatus("mlflow", "waiting", "waits for postgres"),
    ]
    assert call("status", why=True) == 7
    out = said()[0]
    assert out.splitlines() == ["postgres is failed: exit 1; invoke logs -s postgres", "waiting for it: mlflow"]


def test_status_as_data(up: Tier, said: Captured) -> None:
    call("status", json=True)
    found = {s["name"]: s for s in data_of(said)["services"]}
    assert tuple(found) == CORE
    assert found["postgres"]["login"] == "admin / ****"
    assert found["temporal"]["urls"] == ["127.0.0.1:7233", "http://127.0.0.1:8233"]


@pytest.mark.parametrize("output", ["table", "json"])
def test_show_secrets_shows_them_and_only_that_does(
    up: Tier, said: Captured, monkeypatch: pytest.MonkeyPatch, output: str
) -> None:
    monkeypatch.setenv("POSTGRES_PASSWORD", "hunter2hunter2")
    call("status", output=output)
    assert "hunter2" not in "".join(said())
    call("status", output=output, show_secrets=True)
    assert "admin / hunter2hunter2" in said()[0]


def test_status_in_the_shape_of_the_contract(up: Tier, said: Captured) -> None:
    call("status", output="env")
    assert "REDIS_URL=redis://localhost:6379/0" in said()[0].splitlines()
    call("status", output="name")
    assert said()[0].split() == list(CORE)


# --- logs


@pytest.mark.parametrize("output", ["table", "json", "yaml"])
def test_logs_are_masked(up: Tier, said: Captured, monkeypatch: pytest.MonkeyPatch, output: str) -> None:
    monkeypatch.setenv("REDIS_PASSWORD", "geheim-redis")
    assert call("logs", output=output) == 0
    out = said()[0]
    assert "geheim" not in out
    assert "password ****" in out
    assert ("schemaVersion" in out) == (output != "table")


def test_followed_logs_are_one_event_a_line(up: Tier, said: Captured) -> None:
    assert call("logs", json=True, follow=True) == 0
    (event,) = map(json.loads, said()[0].splitlines())
    assert {k: event[k] for k in ("type", "service")} == {"type": "log", "service": "redis"}


def test_logs_are_searched(up: Tier, said: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[LogQuery] = []
    monkeypatch.setattr(up, "logs", lambda services, query: iter(asked.append(query) or ()))  # type: ignore[func-returns-value]
    assert call("logs", since="10m", grep="ERROR|fail", tail=0) == 0
    (query,) = asked
    assert query.tail == 0
    assert query.since is not None
    assert 0 <= time.time() - 600 - query.since < 60
    assert query.matches("it Failed")
    assert not query.matches("fine")


@pytest.mark.parametrize(("option", "text"), [("since", "yesterday"), ("grep", "(")])
def test_logs_say_what_cannot_be_searched_for(up: Tier, said: Captured, option: str, text: str) -> None:
    assert call("logs", json=True, **{option: text}) == 2
    error = error_of(said)
    assert f"--{option} '{text}'" in error["message"]
    assert error["actions"]


def test_logs_of_an_unknown_service(up: Tier, said: Captured) -> None:
    assert call("logs", service=["redsi"]) == 2
    assert "did you mean redis?" in said()[1]


# --- restart and down


def test_restart_names_what_it_restarted(up: Tier, said: Captured) -> None:
    assert call("restart", service=["redis,postgres"], json=True) == 0
    assert data_of(said) == {"restarted": ["redis", "postgres"]}
    assert up.asked == ["restart"]


def test_down_keeps_the_data(up: Tier, data: Path, said: Captured) -> None:
    assert call("down", json=True) == 0
    assert data_of(said) == {"stopped": True}
    assert (data / "redis").exists()


# --- reset


def test_reset_without_consent_deletes_nothing(up: Tier, data: Path, said: Captured) -> None:
    assert call("reset", json=True) == 3
    out, err = said()
    assert json.loads(out)["error"]["code"] == "CONFIRMATION_NEEDED"
    assert str(data / "postgres") in err, "the plan is shown all the same"
    assert "platform is stopped first" in err
    assert (data / "postgres").exists()
    assert up.asked == []


def test_reset_with_consent_puts_what_was_named_into_the_trash(up: Tier, data: Path, said: Captured) -> None:
    assert call("reset", service=["redis"], yes=True, json=True) == 0
    assert not (data / "redis").exists()
    assert (data / "postgres").exists()
    (entry,) = data_of(said)["trash"]
    assert (entry["service"], entry["bytes"]) == ("redis", 5)
    assert (Path(entry["path"]) / "0" / "data").read_text() == "12345"


def test_reset_says_the_way_back(up: Tier, data: Path, said: Captured) -> None:
    assert call("reset", service=["redis"], yes=True) == 0
    assert "invoke trash.restore" in said()[0]


def test_reset_for_good_needs_consent_on_the_command_line(up: Tier, data: Path, said: Captured) -> None:
    assert call("reset", no_backup=True) == 3
    assert (data / "redis").exists()
    assert "permanently deletes" in said()[1]
    assert call("reset", no_backup=True, yes=True) == 0
    assert not (data / "redis").exists()
    assert not (data / "trash").exists()


def test_reset_while_another_run_is_at_work(up: Tier, data: Path, said: Captured, tmp_path: Path) -> None:
    with stack.lock(stack.of(settings.load(flags={})), "up"):
        assert call("reset", yes=True) == 12
    assert (data / "redis").exists()


# --- env


def test_env_prints_the_contract_and_nothing_else(tier: Tier, said: Captured) -> None:
    assert call("env") == 0
    out, err = said()
    ends = built(Path("/nowhere"))
    assert [line.split("=")[0] for line in out.splitlines() if not line.startswith("#")] == [
        *contract(ends),
        *familiar(ends),
    ]
    assert err == ""


@pytest.mark.parametrize(
    ("shell", "line"),
    [
        ("sh", "export REDIS_URL='redis://localhost:6379/0'"),
        ("fish", "set -gx REDIS_URL 'redis://localhost:6379/0'"),
        ("powershell", "$Env:REDIS_URL = 'redis://localhost:6379/0'"),
        ("cmd", 'set "REDIS_URL=redis://localhost:6379/0"'),
    ],
)
def test_env_for_each_shell(tier: Tier, said: Captured, shell: str, line: str) -> None:
    assert call("env", **{"shell": shell}) == 0
    assert line in said()[0].splitlines()


def test_env_for_a_shell_that_nobody_knows(tier: Tier, said: Captured) -> None:
    assert call("env", **{"shell": "tcsh", "json": True}) == 2
    assert "powershell" in error_of(said)["actions"][0]["command"]


@pytest.mark.parametrize("output", ["table", "env", "json", "yaml"])
def test_env_carries_the_passwords(tier: Tier, said: Captured, monkeypatch: pytest.MonkeyPatch, output: str) -> None:
    monkeypatch.setenv("MINIO_ROOT_PASSWORD", "hunter2hunter2")
    assert call("env", output=output) == 0
    assert "hunter2hunter2" in said()[0]


def test_env_as_names(tier: Tier, said: Captured) -> None:
    call("env", output="name")
    assert tuple(said()[0].split()) == (*ALWAYS, *catalog.FAMILIAR_NAMES)


def test_env_says_in_a_comment_what_is_left_out_since_it_does_not_run(tier: Tier, said: Captured) -> None:
    assert call("env") == 0
    *_, last = said()[0].splitlines()
    assert last == "# MLflow is not running (MLFLOW_TRACKING_URI); start it with: invoke up --obs"
    assert call("env", **{"shell": "sh"}) == 0
    assert "#" not in said()[0], "an unquoted eval makes one line of it"


def test_env_write_makes_a_private_file_that_readers_understand(
    tier: Tier, said: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINIO_ROOT_PASSWORD", "pa'ss wörd")
    target = tmp_path / "app" / ".env"
    target.parent.mkdir()
    assert call("env", write=str(target)) == 0
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    values = dotenv_values(target)
    assert values["INTERNAL_STORAGE_SECRET_KEY"] == "pa'ss wörd"
    assert tuple(values) == (*ALWAYS, *catalog.FAMILIAR_NAMES)
    assert "hunter2" not in "".join(said())
    assert call("env", write=str(target)) == 0, "our own file is written again without a question"


def test_env_write_touches_no_file_of_others_without_consent(tier: Tier, said: Captured, tmp_path: Path) -> None:
    target = tmp_path / "app.env"
    target.write_text("THEIRS=1\n")
    assert call("env", write=str(target), json=True) == 3
    assert error_of(said)["code"] == "CONFIRMATION_NEEDED"
    assert target.read_text() == "THEIRS=1\n"
    assert call("env", write=str(target), yes=True) == 0
    (kept,) = tmp_path.glob("app.env.*.bak")
    assert kept.read_text() == "THEIRS=1\n"
    assert str(kept) in said()[1]


@pytest.mark.parametrize("way", [".env", "./app/../.env", "link"])
def test_env_write_never_replaces_the_settings(tier: Tier, said: Captured, tmp_path: Path, way: str) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / ".env").write_text("REDIS_PORT=7000\n")
    (tmp_path / "link").symlink_to(tmp_path / ".env")
    assert call("env", write=str(tmp_path / way), yes=True, json=True) == 2
    assert error_of(said)["code"] == "USAGE"
    assert (tmp_path / ".env").read_text() == "REDIS_PORT=7000\n"


def test_env_write_where_nothing_can_be_written(tier: Tier, said: Captured, tmp_path: Path) -> None:
    assert call("env", write=str(tmp_path / "missing" / ".env"), json=True) == 2
    assert "cannot be written" in error_of(said)["message"]
    (tmp_path / "dir").mkdir()
    assert call("env", write=str(tmp_path / "dir"), yes=True) == 2
    assert (tmp_path / "dir").is_dir()


# --- values that no task can use


@pytest.mark.parametrize("timeout", [-1.0, float("nan"), float("inf"), 1e9])
def test_a_wait_has_a_sensible_end(up: Tier, said: Captured, timeout: float) -> None:
    assert call("wait", service=[], timeout=timeout) == 2
    assert "--timeout" in said()[1]
    assert "wait" not in up.asked


@pytest.mark.parametrize("names", [[""], [" "], ["redis", ""], [","]])
def test_an_empty_name_is_not_all_services(
    tier: Tier, data: Path, said: Captured, names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert call("reset", service=names, yes=True) == 2
    assert "--service is empty" in said()[1]
    assert sorted(p.name for p in data.iterdir()) == ["postgres", "redis"]


@pytest.mark.parametrize("verb", ["wait", "restart"])
def test_an_unknown_service_is_told_even_when_nothing_runs(tier: Tier, said: Captured, verb: str) -> None:
    assert call(verb, service=["redi"]) == 2
    assert "did you mean redis?" in said()[1]


def test_a_negative_number_of_lines(tier: Tier, said: Captured) -> None:
    assert call("logs", service=[], tail=-1) == 2
    assert "--tail -1 is less than 0" in said()[1]


# --- doctor and version


@pytest.mark.parametrize(
    ("status", "strict", "code"),
    [("ok", True, 0), ("warn", False, 0), ("warn", True, 4), ("fail", False, 4)],
)
def test_doctor_codes(
    tier: Tier, said: Captured, monkeypatch: pytest.MonkeyPatch, status: str, strict: bool, code: int
) -> None:
    monkeypatch.setattr("infra.doctor.other_people", list)  # those who have an account on this machine
    tier.checks = [Check("disk", status, "the finding", "the remedy")]
    assert call("doctor", strict=strict) == code
    out = said()[0]
    assert "the finding" in out
    assert ("next for disk: the remedy" in out) == (status != "ok")


def test_doctor_as_data(tier: Tier, said: Captured) -> None:
    tier.checks = [Check("disk", "fail", "full", "free some", "PREFLIGHT_FAILED")]
    assert call("doctor", json=True) == 4
    found = data_of(said)
    assert found["worst"] == "fail"
    assert found["checks"][-1]["remedy"] == "free some"


def test_version(tier: Tier, said: Captured) -> None:
    call("version", json=True)
    found = data_of(said)
    assert found["platform"] == "1.2.3"
    assert found["invoke"] == invoke.__version__
    assert found["tier"] == "native"
    assert found["S3 server"] == "rclone 1.75.2 (bundled)"
    call("version", output="name")
    assert said()[0] == "1.2.3\n"


def test_version_of_a_tier_that_lacks_a_program(tier: Tier, said: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    def engines() -> dict[str, str]:
        raise PlatformError("PROGRAM_MISSING", "rclone was not found")

    monkeypatch.setattr(tier, "engines", engines)
    assert call("version", json=True) == 0
    assert data_of(said)["platform"] == "1.2.3"
