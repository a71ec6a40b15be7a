"""Unknown words: tasks, options, services, settings. Exit 2, the nearest name, and nothing done."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.settings import ROOT
from tests.faults.conftest import Victim
from tests.faults.native import tools
from tests.smoke.stage import HANG, Completed, run, stage


@pytest.fixture(scope="module")
def untouched() -> Iterator[Victim]:
    """A platform that no test of this module starts."""
    with stage("native") as made:
        yield Victim(made)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A copy of the checkout with a `.env` of its own; in a path with a blank and other letters."""
    copy = tmp_path_factory.mktemp("check out 한글")
    shutil.copytree(ROOT / "infra", copy / "infra", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("tasks.py", "platform_launcher.py"):
        shutil.copy(ROOT / name, copy)
    yield copy
    shutil.rmtree(copy)


def _in(checkout: Path, victim: Victim, dotenv: str, *arguments: str) -> Completed:
    (checkout / ".env").write_text(dotenv, encoding="utf-8")
    env = {k: v for k, v in victim.env.items() if k != "REDIS_PORT"}
    return run([sys.executable, "-m", "invoke", *arguments], checkout, env, HANG)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("upp",), ("upp", "did you mean up?", "invoke --list")),
        (("native.dwon",), ("native.dwon", "did you mean native.down?")),
        (("up", "--timout", "5"), ("up has no option --timout", "did you mean --timeout?", "invoke --help up")),
        (("up", "--tier", "nativ"), ("--tier", "nativ", "native")),
        (("status", "--output", "jsn"), ("jsn", "json")),
        (("logs", "-s", "temporl"), ("temporl", "did you mean temporal?", "the services are")),
        (("restart", "-s", "postgress"), ("postgress", "did you mean postgres?")),
        (("logs", "rediss"), ("rediss", "did you mean redis?")),
        (("status", "-s", "redis"), ("status has no option -s", "use --show-secrets")),
        (("reset", "-s", "rediss", "--yes"), ("rediss", "did you mean redis?")),
        (("env", "--shell", "tcsh"), ("tcsh", "fish")),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) and len(value) < 5 else None,
)
def test_unknown_words_on_the_command_line(
    untouched: Victim, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    tools.refused(untouched.invoke(*arguments), 2, *words)
    assert not (untouched.stack_home / "native").exists()


def test_an_unknown_service_of_a_running_platform(running: Victim) -> None:
    before = tools.pids(running)
    tools.refused(running.invoke("restart", "-s", "postgress"), 2, "postgress", "did you mean postgres?")
    tools.refused(running.invoke("wait", "-s", "grafana"), 2, "grafana", "container")
    assert tools.pids(running) == before


@pytest.mark.parametrize("task", ["up", "down", "status", "reset", "doctor"])
def test_an_unknown_setting_in_the_environment_stops_every_task(untouched: Victim, task: str) -> None:
    wrong = tools.with_settings(untouched, PLATFORM_STATEDIR="/tmp")
    tools.refused(wrong.invoke(task), 2, "PLATFORM_STATEDIR", "the environment", "did you mean PLATFORM_STATE_DIR?")
    assert not (untouched.stack_home / "native").exists()


@pytest.mark.parametrize(
    ("dotenv", "words"),
    [
        ("# ports\n\nREDIS_PROT=6380\n", ("REDIS_PROT", "line 3", "did you mean REDIS_PORT?", ".env")),
        ("REDIS_PORT=70000\n", ("REDIS_PORT", "70000", "line 1", "1 to 65535")),
        ("A sentence.\n", (".env", "line 1", "NAME=value")),
        ("DATABASE_URL=x\n", ("DATABASE_URL", "invoke env", "POSTGRES_PORT")),
        ("POSTGRES_PASSWORD=\n", ("POSTGRES_PASSWORD", "is empty", "line 1")),
        ("MINIO_ROOT_PASSWORD=hush\n", ("MINIO_ROOT_PASSWORD", "8 characters", "line 1")),
    ],
    ids=["unknown name", "no port", "no assignment", "an answer", "empty password", "short password"],
)
def test_a_wrong_line_in_the_env_file(untouched: Victim, checkout: Path, dotenv: str, words: tuple[str, ...]) -> None:
    said = tools.refused(_in(checkout, untouched, dotenv, "up"), 2, *words, str(checkout))
    assert "hush" not in said
    assert not (untouched.stack_home / "native").exists()


def test_an_env_file_that_is_no_text(untouched: Victim, checkout: Path) -> None:
    _in(checkout, untouched, "", "version")
    (checkout / ".env").write_bytes(b"REDIS_PORT=\xff\xfe\n")
    env = {k: v for k, v in untouched.env.items() if k != "REDIS_PORT"}
    done = run([sys.executable, "-m", "invoke", "up"], checkout, env, HANG)
    tools.refused(done, 2, str(checkout / ".env"), "UTF-8")


def test_a_program_that_is_not_there(untouched: Victim) -> None:
    wrong = tools.with_settings(untouched, PLATFORM_REDIS_SERVER="/no/such/redis")
    tools.refused(wrong.invoke("up"), 5, "PLATFORM_REDIS_SERVER", "/no/such/redis")
    assert not (untouched.stack_home / "native").exists()
