"""A running platform whose checkout is upgraded by a real `git pull`: what is said, what is done, what is kept."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis

from tests.walkthrough.clone import START, USABLE, Clone, git

pytestmark = USABLE
FLAGS = '"--appendfsync", "everysec"'


def data(clone: Clone, *words: str) -> Any:
    """The answer of a task."""
    done = clone.invoke(*words, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["data"]


def pids(clone: Clone) -> Mapping[str, int]:
    """The processes of the services."""
    return {s["name"]: s["pid"] for s in data(clone, "status")["services"]}


def found(clone: Clone) -> Mapping[str, Mapping[str, str]]:
    """What doctor finds, by id."""
    return {check["id"]: check for check in data(clone, "doctor")["checks"]}


@pytest.fixture(scope="module")
def upstream(running: Clone, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the clone pulls from; a commit there changes packages, a server's command, the supervisor, the worker."""
    origin, work = tmp_path_factory.mktemp("origin") / "bare.git", tmp_path_factory.mktemp("work") / "tree"
    assert git("clone", "--quiet", "--bare", str(running.root), str(origin))
    assert git("remote", "set-url", "origin", str(origin), cwd=running.root)
    assert git("clone", "--quiet", str(origin), str(work))
    servers = work / "infra/tiers/native/services.py"
    text = servers.read_text(encoding="utf-8")
    assert FLAGS in text
    servers.write_text(text.replace(FLAGS, f'{FLAGS}, "--maxclients", "4000"'), encoding="utf-8")
    for name in ("infra/supervision/supervisor.py", "infra/training/worker.py", "requirements/platform.txt"):
        with (work / name).open("a", encoding="utf-8") as file:
            file.write("# a newer version\n")
    assert git("commit", "--quiet", "--all", "--message", "A newer version", cwd=work)
    assert git("push", "--quiet", "origin", "HEAD", cwd=work)
    return origin


def test_git_pull_under_a_running_platform(running: Clone, upstream: Path) -> None:
    env = data(running, "env")
    with psycopg.connect(env["DATABASE_URL"], autocommit=True) as link:
        link.execute("create table kept as select 'before'::text as said")
    redis.Redis.from_url(env["REDIS_URL"]).set("kept", "before")
    done = running.invoke("train.run", "--epochs", "1")
    assert done.returncode == 0, done.stderr
    before = pids(running)
    assert {found(running)[name]["status"] for name in ("packages",)} == {"ok"}
    assert not {"outdated", "moved"} & set(found(running))

    time.sleep(1.1)  # what is pulled must be newer than what runs by more than clocks differ
    assert git("pull", "--quiet", "--ff-only", cwd=running.root)
    now = found(running)
    assert (now["packages"]["status"], "start-infra.sh" in now["packages"]["remedy"]) == ("warn", True)
    assert now["outdated"]["text"].endswith("supervisor, training-worker")
    assert now["moved"]["text"].endswith("redis")
    assert pids(running) == before, "looking changes nothing"

    done = running.invoke("up")
    assert done.returncode == 0, done.stderr
    assert ".venv is older than this checkout" in done.stderr
    assert "supervisor, training-worker" in done.stderr
    assert "restarting, since an earlier version or other settings started them: redis" in done.stderr
    after = pids(running)
    assert {name for name, pid in after.items() if before[name] != pid} == {"redis"}
    assert "moved" not in found(running)


def test_what_it_advises_brings_everything_up_to_date(running: Clone, upstream: Path) -> None:
    done = running.script(START)
    assert done.returncode == 0, done.stderr
    assert "bringing .venv up to date" in done.stderr
    assert running.invoke("down").returncode == 0
    assert running.invoke("up").returncode == 0
    now = found(running)
    assert now["packages"]["status"] == "ok"
    assert not {"outdated", "moved"} & set(now)


def test_the_data_is_what_it_was(running: Clone, upstream: Path) -> None:
    env = data(running, "env")
    with psycopg.connect(env["DATABASE_URL"]) as link:
        assert link.execute("select said from kept").fetchall() == [("before",)]
    client = redis.Redis.from_url(env["REDIS_URL"], decode_responses=True)
    assert (client.get("kept"), client.config_get("maxclients")) == ("before", {"maxclients": "4000"})
    assert [job["state"] for job in data(running, "train.list")] == ["succeeded"]
