"""The files in compose/ without our tool, from a fresh clone, and the commands that users type."""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from infra import catalog
from infra.settings import ROOT
from tests.smoke import containers
from tests.smoke.stage import Completed, clean_environment, free_ports, run

CORE, OBS, LIGHT = (f"compose/docker-compose{kind}.yml" for kind in ("", ".observability", ".light"))


@dataclass(frozen=True)
class Files:
    """A clone of the repository, and the environment in which `docker compose` is called there."""

    root: Path
    env: dict[str, str]

    def compose(self, *words: str, files: tuple[str, ...] = (CORE,), check: bool = True) -> Completed:
        """Run `docker compose -f ... WORDS`."""
        named = [word for name in files for word in ("-f", name)]
        done = run(["docker", "compose", *named, *words], self.root, self.env, 600)
        assert done.returncode == 0 or not check, done.stderr + done.stdout
        return done


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Files]:
    """A fresh clone with a project and ports of its own, and no .env; everything of it is gone afterwards."""
    root = tmp_path_factory.mktemp("clone") / "a clone, näht"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(root)], check=True, timeout=120)
    images = {n: os.environ[n] for n in catalog.IMAGES if os.environ.get(n)}
    env = {k: v for k, v in clean_environment().items() if k not in catalog.SETTINGS}
    project = f"platform-test-{secrets.token_hex(3)}"
    made = Files(root, {**env, **free_ports(), **images, "PLATFORM_STACK": project})
    try:
        yield made
    finally:
        containers.remove_all(project)


def test_the_core_comes_up_and_waits(files: Files) -> None:
    files.compose("up", "-d", "--wait")
    listed = files.compose("ps", "-a", "--format", "{{.Service}} {{.State}} {{.Health}} {{.ExitCode}}").stdout
    states = {line.split()[0]: line.split()[1:] for line in listed.splitlines()}
    assert states["minio-setup"] == ["exited", "0"]
    assert all(s[:2] == ["running", "healthy"] for s in states.values() if s[0] != "exited"), states


def test_buckets_can_be_made_again(files: Files) -> None:
    files.compose("up", "-d", "minio-setup")


def test_one_service_is_made_anew_and_keeps_its_data(files: Files) -> None:
    psql = ("exec", "-T", "postgres", "psql", "-U", "admin", "-d", "platform", "-Atc")
    files.compose(*psql, "create table kept (x int)")
    files.compose("up", "-d", "--wait", "--force-recreate", "postgres")
    assert files.compose(*psql, "select to_regclass('kept')").stdout.strip() == "kept"


def test_logs_restart_and_ps(files: Files) -> None:
    assert files.compose("logs", "--tail=100", "temporal").returncode == 0
    files.compose("restart", "redis", "temporal")
    assert "redis" in files.compose("ps").stdout
    assert files.compose("exec", "-T", "redis", "redis-cli", "ping").stdout.strip() == "PONG"


def test_with_observability(files: Files) -> None:
    absent = containers.without_image({**files.env, "PLATFORM_STATE_DIR": str(files.root / ".platform")})
    known = files.compose("config", "--services", files=(CORE, OBS)).stdout.split()
    there = [name for name in known if name not in absent]
    files.compose("up", "-d", "--wait", *there, files=(CORE, OBS))
    assert "mlflow" in absent or files.compose("ps", "mlflow", files=(CORE, OBS)).stdout.count("healthy") == 1


def test_light_has_temporal_in_one_container(files: Files) -> None:
    files.compose("down", files=(CORE, OBS))
    files.compose("up", "-d", "--wait", files=(CORE, LIGHT))
    running = files.compose("ps", "--services", files=(CORE, LIGHT)).stdout.split()
    assert sorted(running) == ["minio-datasets", "minio-results", "postgres", "redis", "temporal"]


def test_down_keeps_the_volumes_and_down_with_volumes_does_not(files: Files) -> None:
    engine, project = containers.client(), files.env["PLATFORM_STACK"]
    files.compose("down", files=(CORE, LIGHT))
    assert f"{project}_postgres_platform_data" in containers.volumes_of(engine, project)
    files.compose("down", "--volumes")
    assert f"{project}_postgres_platform_data" not in containers.volumes_of(engine, project)
