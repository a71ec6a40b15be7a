"""No engine, one that is stopped, too old or not for this user, and a Compose that is too old: what is said, with 5."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.errors import ExitCode
from infra.settings import ROOT
from tests.rig.fake_engine import fake_engine
from tests.smoke.stage import Completed, clean_environment, run

LIMIT = 120
needs_root = pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0, reason="takes another user's place, which root on Linux can"
)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A directory for sockets (whose paths have to be short) that every user may enter."""
    made = Path("/tmp") / f"pf-{os.getpid()}"
    made.mkdir(mode=0o755)
    yield made
    shutil.rmtree(made)


def up(home: Path, *before: str, **env: str) -> Completed:
    """`invoke up --tier compose` with nothing but these settings; `before` are words in front of the command."""
    state = home / "state"
    state.mkdir(exist_ok=True)
    state.chmod(0o777)
    own = {"HOME": str(home), "PLATFORM_STATE_DIR": str(state), "PLATFORM_TIER": "compose"}
    base = {k: v for k, v in clean_environment().items() if not k.startswith(("DOCKER_", "XDG_"))}
    argv = [*before, sys.executable, "-m", "invoke", "up", "--tier", "compose"]
    return run(argv, ROOT, base | own | env, LIMIT)


def refused(done: Completed, *said: str) -> None:
    """It ended with 5 and says each of these words and a next step."""
    assert done.returncode == ExitCode.DEPENDENCY, done.stderr + done.stdout
    for words in said:
        assert words in done.stderr, done.stderr
    assert "next: " in done.stderr
    assert "Traceback" not in done.stderr


def program(directory: Path, name: str, text: str) -> None:
    """Put a program of that name into a directory."""
    directory.mkdir(exist_ok=True)
    path = directory / name
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)


@needs_root
def test_docker_that_is_not_there(tmp_path: Path) -> None:
    # A mount namespace whose /run is empty hides the engine of this machine.
    hidden = ("unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /run && PATH=$BARE exec "$@"', "sh")
    bare = tmp_path / "bin"
    bare.mkdir()
    refused(up(tmp_path, *hidden, BARE=str(bare)), "Docker is not installed", "--tier native")


def test_docker_that_does_not_run(tmp_path: Path, place: Path) -> None:
    url = f"unix://{place}/docker.sock"
    refused(up(tmp_path, DOCKER_HOST=url), "does not run", url, "DOCKER_HOST")


def test_an_engine_that_died_leaves_a_socket_where_nobody_listens(tmp_path: Path, place: Path) -> None:
    with fake_engine(place / "docker.sock", "28.0", "1.48") as url:
        pass
    assert (place / "docker.sock").is_socket()
    refused(up(tmp_path, DOCKER_HOST=url), "does not run", url)


def test_an_engine_that_is_too_old(tmp_path: Path, place: Path) -> None:
    with fake_engine(place / "docker.sock", "19.03.15", "1.40") as url:
        refused(up(tmp_path, DOCKER_HOST=url), "19.03.15", "too old", "20.10")


@needs_root
def test_an_engine_that_this_user_may_not_use(tmp_path: Path, place: Path) -> None:
    with fake_engine(place / "docker.sock", "28.0", "1.48") as url:
        (place / "docker.sock").chmod(0o600)
        # May read what root's checkout holds, but write nothing, to a socket least of all.
        ordinary = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
        reads = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search", "--")
        refused(up(tmp_path, *ordinary, *reads, DOCKER_HOST=url), "is not allowed to use Docker", "usermod -aG docker")


def test_compose_version_1_is_refused(tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    program(tools, "docker", """echo "docker: 'compose' is not a docker command." >&2; exit 1""")
    program(tools, "docker-compose", "echo 'docker-compose version 1.29.2, build unknown'")
    refused(up(tmp_path, PATH=f"{tools}{os.pathsep}{os.environ['PATH']}"), "Compose", "2.24.4")


@pytest.mark.parametrize("version", ["2.23.3", "v2.24.3", "2.17.2-desktop.1"])
def test_an_older_compose_2_is_refused(tmp_path: Path, version: str) -> None:
    tools = tmp_path / "tools"
    program(tools, "docker", f"echo '{version}'")
    refused(up(tmp_path, PATH=f"{tools}{os.pathsep}{os.environ['PATH']}"), version.removeprefix("v"), "2.24.4")
