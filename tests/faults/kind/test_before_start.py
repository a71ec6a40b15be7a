"""What is found before a cluster is made: programs, Docker, ports, disk, the node's image. Nothing is left behind."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.kind.cluster import run
from tests.faults.kind.product import Product, product, said
from tests.rig.kind import node, tools

pytestmark = pytest.mark.usefixtures("rig")

PROGRAMS = ("kind", "kubectl", "helm")
OLD = {
    "kind": ("kind v0.20.0 go1.20", "0.20.0"),
    "kubectl": ("Client Version: v1.20.0", "1.20.0"),
    "helm": ("v3.12.0+gc9f554d", "3.12.0"),
}
"""What old ones say of themselves, and their versions."""
REDIS, STORE = 30679, 30900


@pytest.fixture(scope="module")
def planned(rig: dict[str, str]) -> Iterator[Product]:
    """A stack that gets no cluster in any of these tests."""
    with product() as made:
        yield made


@pytest.fixture(autouse=True)
def nothing_made(planned: Product) -> Iterator[None]:
    """No test of this file may leave a node or a record of a cluster."""
    yield
    assert planned.nodes() == []
    assert not (planned.home / "cluster.json").exists()


def programs(folder: Path, *names: str) -> str:
    """A directory with only these of the programs."""
    folder.mkdir()
    for name in names:
        real = tools.directory() / f"{name}.real"  # the rig's kind is a wrapper that looks for it beside itself
        (folder / name).symlink_to(real if real.exists() else tools.directory() / name)
    return str(folder)


def path_without_programs() -> str:
    """PATH without directories that have one of them."""
    folders = os.environ["PATH"].split(os.pathsep)
    return os.pathsep.join(f for f in folders if not any(shutil.which(p, path=f) for p in PROGRAMS))


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("task", ["kind.up", "helm.list"])
def test_a_program_that_is_missing_is_named_with_what_to_install(
    planned: Product, tmp_path: Path, name: str, task: str
) -> None:
    own = programs(tmp_path / "bin", *(p for p in PROGRAMS if p != name))
    found = planned.having(PLATFORM_KIND_BIN=own, PATH=path_without_programs()).error(task, expect=5)
    assert found["code"] in ("TIER_UNAVAILABLE", "PROGRAM_MISSING")
    assert name in found["message"] + found["why"]
    assert f"install {name} " in said(found)
    assert not [p for p in PROGRAMS if p != name and f"install {p} " in said(found)]


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_that_is_too_old_is_named_with_its_version(planned: Product, tmp_path: Path, name: str) -> None:
    own = programs(tmp_path / "bin", *(p for p in PROGRAMS if p != name))
    old = Path(own, name)
    old.write_text(f"#!/bin/sh\necho '{OLD[name][0]}'\n", encoding="utf-8")
    old.chmod(0o755)
    found = planned.having(PLATFORM_KIND_BIN=own).error("kind.up", expect=5)
    assert found["code"] == "PROGRAM_MISSING"
    assert f"too old: {name} {OLD[name][1]}" in said(found)
    assert str(old) in found["why"]
    assert f"install {name} " in said(found)


def test_a_program_that_does_not_work_is_not_called_old(planned: Product, tmp_path: Path) -> None:
    own = programs(tmp_path / "bin", "kind", "kubectl")
    (Path(own) / "helm").write_text("#!/bin/sh\necho 'helm: cannot execute' >&2; exit 126\n", encoding="utf-8")
    (Path(own) / "helm").chmod(0o755)
    found = planned.having(PLATFORM_KIND_BIN=own).error("kind.up", expect=5)
    assert found["code"] == "PROGRAM_MISSING"
    assert "helm does not report its version" in found["message"]


def test_docker_that_is_missing_is_named(planned: Product) -> None:
    found = planned.having(PATH=str(Path("/nonexistent"))).error("kind.up", expect=5)
    assert "docker" in found["why"]
    assert "install Docker" in said(found)


@pytest.mark.parametrize("task", ["kind.up", "kind.status", "kind.start", "kind.down", "kind.logs"])
def test_docker_that_is_stopped_is_said(planned: Product, tmp_path: Path, task: str) -> None:
    done = planned.having(DOCKER_HOST=f"unix://{tmp_path}/docker.sock").stage.invoke(task)
    if task == "kind.logs":  # a report about what is broken must not break
        assert (done.returncode, "Docker does not answer" in done.stdout) == (0, True), done.stderr
        return
    assert (done.returncode, "Docker does not answer" in done.stderr) == (5, True), done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_that_a_process_has_names_it(planned: Product) -> None:
    with socket.create_server(("127.0.0.1", REDIS)):
        found = planned.error("kind.up", expect=4)
    assert found["code"] == "PORT_TAKEN"
    assert str(REDIS) in said(found)
    assert f"(pid {os.getpid()})" in said(found)
    assert "kind/cluster.yaml" in said(found)


@contextlib.contextmanager
def container_on(port: int) -> Iterator[str]:
    """A container that publishes a port of this machine."""
    name = f"platform-test-{uuid.uuid4().hex[:6]}"
    words = ["run", "--detach", "--name", name, "--publish", f"127.0.0.1:{port}:1", "--entrypoint", "sleep"]
    run(["docker", *words, node.SYSTEM.reference, "300"])
    try:
        yield name
    finally:
        run(["docker", "rm", "--force", "--volumes", name])


def test_a_port_that_a_container_has_names_it(planned: Product) -> None:
    with container_on(STORE) as name:
        found = planned.error("kind.up", expect=4)
    assert found["code"] == "PORT_TAKEN"
    assert f"port {STORE} is taken by the container {name}" in said(found)
    assert f"docker stop {name}" in said(found)


def test_all_ports_that_are_taken_are_named_at_once(planned: Product) -> None:
    with socket.create_server(("127.0.0.1", REDIS)), container_on(STORE):
        found = planned.error("kind.up", expect=4)
    assert all(f"port {port} " in said(found) for port in (REDIS, STORE))


def test_a_node_image_that_nobody_has_ends_it_with_the_reason(planned: Product) -> None:
    found = planned.having(KIND_NODE_IMAGE="registry.invalid/node:v1.34.4").error("kind.up", expect=7)
    assert "registry.invalid/node:v1.34.4" in found["message"]
    assert found["why"]
    assert "KIND_NODE_IMAGE" in said(found)


def test_a_disk_that_is_nearly_full_is_said_before_anything_is_made(planned: Product, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        shim = engine_on(disk, tmp_path / "shim")
        found = planned.having(PATH=f"{shim}{os.pathsep}{os.environ['PATH']}").error("kind.up", expect=4)
    assert found["code"] == "PREFLIGHT_FAILED"
    assert f"free at {disk}" in said(found)
    assert "free space" in said(found)


@contextlib.contextmanager
def small_disk(place: Path) -> Iterator[Path]:
    """A file system of 64 MB; root only."""
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(place)], check=False)
    if mounted.returncode:
        pytest.skip("a small file system needs root")
    try:
        yield place
    finally:
        run(["umount", str(place)])


def engine_on(disk: Path, folder: Path) -> Path:
    """A directory with a `docker` that says that its data is on another disk, and is the real one else."""
    folder.mkdir()
    real = shutil.which("docker")
    words = f'exec {real} "$@"'
    text = f'#!/bin/sh\nif [ "$1" = info ]; then {real} "$@" | sed \'s|"DockerRootDir":"[^"]*"|'
    text += f'"DockerRootDir":"{disk}"|\'; else {words}; fi\n'
    (folder / "docker").write_text(text, encoding="utf-8")
    (folder / "docker").chmod(0o755)
    return folder


@pytest.mark.parametrize("task", ["kind.stop", "kind.down"])
def test_what_ends_a_cluster_has_nothing_to_do(planned: Product, task: str) -> None:
    assert "no cluster" in planned.invoke(task).stdout


@pytest.mark.parametrize("task", ["kind.start", "kind.status", "kind.kubeconfig", "kind.shell", "kind.load"])
def test_what_needs_a_cluster_says_that_there_is_none(planned: Product, task: str) -> None:
    done = planned.invoke(task, expect=9)
    assert "there is no cluster" in done.stderr + done.stdout
    assert "invoke kind.up" in done.stderr + done.stdout


@pytest.mark.parametrize("task", ["helm.list", "helm.deploy", "k8s.apply", "k8s.diff", "kind.clean-raw"])
def test_so_does_what_works_in_one(planned: Product, task: str) -> None:
    assert planned.error(task, expect=9)["code"] == "NOT_RUNNING"


def test_a_broken_cluster_file_is_refused_with_its_place(planned: Product, tmp_path: Path) -> None:
    copy = tmp_path / "checkout"
    shutil.copytree(planned.stage.root, copy, ignore=shutil.ignore_patterns(".git", ".venv*", ".platform*", ".mypy*"))
    (copy / "kind" / "cluster.yaml").write_text("kind: Cluster\nnodes: [\n", encoding="utf-8")
    from dataclasses import replace

    found = Product(replace(planned.stage, root=copy)).error("kind.up", expect=2)
    assert "cluster.yaml" in found["message"]
    assert "line" in found["why"]
