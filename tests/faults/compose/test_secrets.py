"""Odd passwords work in every container and show up in no command and no log; those that cannot are refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
import redis
import requests

from tests.faults.compose.conftest import error, project
from tests.faults.conftest import Victim
from tests.faults.watcher import Watcher, guarded_start
from tests.smoke import containers
from tests.smoke.stage import Stage, stage

# Each with a core that is found however the rest is quoted.
CORES = {"POSTGRES_PASSWORD": "pg7Kq", "REDIS_PASSWORD": "rd7Kq", "MINIO_ROOT_PASSWORD": "s37Kq"}
REST = "'$HOME${HOME}$$%41%s#;&|<>*?~!=@:/[]{}()`id`ü한🙂"
ODD = {
    "POSTGRES_PASSWORD": f"pg7Kq{REST},",
    "REDIS_PASSWORD": f' "rd7Kq \\x41\\ {REST}" ',
    "MINIO_ROOT_PASSWORD": f'"s37Kq \\n\\ {REST}"',
}


@pytest.fixture(scope="module")
def guarded() -> Iterator[tuple[Victim, Watcher, str]]:
    """A platform with odd passwords, all commands that were seen during its start, and what `up` said."""
    with guarded_start("compose", ODD, "--obs") as made:
        yield made


Guarded = tuple[Victim, Watcher, str]


def leaks(text: str) -> list[str]:
    return [name for name, core in CORES.items() if core in text]


def test_applications_get_in(guarded: Guarded) -> None:
    contract = guarded[0].contract
    with psycopg.connect(contract["DATABASE_URL"]) as link:
        assert link.execute("select 1").fetchone() == (1,)
    with redis.Redis.from_url(contract["REDIS_URL"]) as client:
        assert client.ping()
    assert contract["EXTERNAL_STORAGE_SECRET_KEY"] == ODD["MINIO_ROOT_PASSWORD"]


def test_exporters_get_in(guarded: Guarded) -> None:
    victim = guarded[0]
    if "prometheus" not in {s["name"] for s in victim.stage.data("status")["services"]}:
        pytest.skip("prometheus was not started: its image is not here")
    url = f"http://127.0.0.1:{victim.env['PROMETHEUS_PORT']}/api/v1/query"
    victim.invoke("obs.check")  # waits for the first scrapes
    for metric in ("pg_up", "redis_up"):
        found = requests.get(url, params={"query": metric}, timeout=10).json()["data"]["result"]
        assert [sample["value"][1] for sample in found] == ["1"], metric


def test_a_training_with_its_backends_works(guarded: Guarded) -> None:
    guarded[0].invoke("train.run", "--epochs", "1", check=True)


@pytest.mark.parametrize("task", [("compose.psql", "--query", "select 40 + 2"), ("compose.redis", "--run", "ping")])
def test_programs_inside_get_in(guarded: Guarded, task: tuple[str, ...]) -> None:
    assert any(word in guarded[0].invoke(*task, check=True).stdout for word in ("42", "PONG"))


def test_no_command_has_one(guarded: Guarded, engine: Any) -> None:
    victim, watcher, _ = guarded
    assert leaks("\n".join(watcher.seen)) == []
    for listed in containers.of_project(engine, project(victim)):
        config = engine.inspect_container(listed["Id"])["Config"]
        said = {name: config.get(name) for name in ("Cmd", "Entrypoint", "Healthcheck", "Labels")}
        assert leaks(json.dumps(said, ensure_ascii=False)) == [], listed["Names"]


def test_no_log_has_one(guarded: Guarded) -> None:
    victim, _, said = guarded
    texts = [said, victim.invoke("logs", check=True).stdout, victim.invoke("compose.config", check=True).stdout]
    texts += [p.read_text("utf-8", "replace") for p in victim.stack_home.rglob("*.log")]
    texts += [p.read_text("utf-8", "replace") for p in victim.stack_home.glob("compose/*.json")]
    assert [leaks(text) for text in texts] == [[]] * len(texts)


@pytest.mark.parametrize("character", [" ", '"', "\\"])
def test_a_password_that_temporals_server_cannot_use_is_refused_first(
    engine: Any, guarded: Guarded, character: str
) -> None:
    with stage("compose") as made:
        env = {**made.env, "POSTGRES_PASSWORD": f"hush{character}hush"}
        done = Victim(Stage("compose", made.home, env, made.root)).invoke("up", "--json")
        assert (done.returncode, error(done)["code"]) == (2, "SETTING_INVALID")
        assert "POSTGRES_PASSWORD" in error(done)["message"]
        assert "hush" not in done.stdout + done.stderr
        assert containers.of_project(engine, env["PLATFORM_STACK"]) == []
