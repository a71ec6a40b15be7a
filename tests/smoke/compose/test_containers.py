"""Names, addresses and habits that users know from Docker Compose, on the running platform."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import psycopg
import pytest

from infra import catalog
from infra.settings import ROOT
from tests.smoke.compose.conftest import docker
from tests.smoke.platform import Platform
from tests.smoke.stage import clean_environment, run

CORE = ("postgres", "redis", "temporal", "minio-datasets", "minio-results", "minio-setup")


@pytest.mark.parametrize("service", CORE)
def test_a_container_has_the_name_that_scripts_know(boxes: dict[str, Any], project: str, service: str) -> None:
    assert boxes[service]["Name"] == f"/{project}-{service}"


def test_every_port_is_on_the_loopback_only(boxes: dict[str, Any]) -> None:
    bound = [b for c in boxes.values() for b in (c["HostConfig"]["PortBindings"] or {}).values()]
    assert bound
    assert {entry["HostIp"] for bindings in bound for entry in bindings} == {"127.0.0.1"}


def test_the_volume_of_the_databases_has_the_name_that_scripts_know(boxes: dict[str, Any], project: str) -> None:
    mounts = {m["Destination"]: m.get("Name") for m in boxes["postgres"]["Mounts"]}
    assert mounts["/var/lib/postgresql"] == f"{project}_postgres_platform_data"


def test_no_container_is_privileged_or_may_gain_rights(boxes: dict[str, Any]) -> None:
    for name, box in boxes.items():
        assert not box["HostConfig"]["Privileged"], name
        assert "no-new-privileges:true" in box["HostConfig"]["SecurityOpt"], name
        assert box["HostConfig"]["CapDrop"] == ["ALL"], name


def test_psql_by_docker_exec(project: str) -> None:
    done = docker("exec", f"{project}-postgres", "psql", "-U", "admin", "-d", "platform", "-Atc", "select 40 + 2")
    assert (done.returncode, done.stdout.strip()) == (0, "42"), done.stderr


def test_redis_ping_by_docker_exec(project: str) -> None:
    done = docker("exec", f"{project}-redis", "redis-cli", "ping")
    assert (done.returncode, done.stdout.strip()) == (0, "PONG"), done.stderr


@pytest.mark.parametrize(
    ("words", "answer"),
    [(("compose.psql", "--query", "select 40 + 2"), "42"), (("compose.redis", "--run", "ping"), "PONG")],
)
def test_programs_inside_by_our_tasks(platform: Platform, words: tuple[str, ...], answer: str) -> None:
    done = platform.invoke(*words, fixed=True)
    assert done.returncode == 0, done.stderr
    assert answer in done.stdout


def test_ps_lists_every_container(platform: Platform, boxes: dict[str, Any]) -> None:
    found = platform.data("compose.ps", fixed=True)
    assert {c["part"] for c in found} == set(boxes)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="ending a container's process needs root")
def test_a_container_that_is_killed_comes_back(boxes: dict[str, Any], platform: Platform, engine: Any) -> None:
    pid = boxes["redis"]["State"]["Pid"]
    os.kill(pid, 9)
    end = time.monotonic() + 60
    while time.monotonic() < end:
        state = engine.inspect_container(boxes["redis"]["Id"])["State"]
        if state["Pid"] not in (0, pid) and state.get("Health", {}).get("Status") == "healthy":
            break
        time.sleep(0.2)
    assert platform.invoke("wait", "--service", "redis").returncode == 0


def test_this_tier_is_chosen_where_its_images_are_here(tmp_path: Path) -> None:
    images = {n: os.environ[n] for n in catalog.IMAGES if os.environ.get(n)}
    own = {"PLATFORM_STATE_DIR": str(tmp_path), "PLATFORM_STACK": f"platform-test-{secrets.token_hex(3)}"}
    done = run([sys.executable, "-m", "invoke", "status", "--json"], ROOT, clean_environment() | images | own, 60)
    assert json.loads(done.stdout)["tier"] == "compose"
    assert done.returncode == 9


def test_data_outlives_down_and_up(platform: Platform, engine: Any, project: str) -> None:
    mark = f"kept_{uuid.uuid4().hex}"
    with psycopg.connect(platform.contract["DATABASE_URL"], autocommit=True) as link:
        link.execute(f"create table {mark} (x int)")
    down = platform.invoke("compose.down", fixed=True)
    assert down.returncode == 0, down.stderr
    up = platform.invoke("compose.up", "--obs", fixed=True, timeout=600)
    assert up.returncode == 0, up.stderr
    with contextlib.closing(psycopg.connect(platform.contract["DATABASE_URL"], autocommit=True)) as link:
        assert link.execute("select to_regclass(%s)::text", (mark,)).fetchone() == (mark,)
        link.execute(f"drop table {mark}")
