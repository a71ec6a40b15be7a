"""What is looked at before a cluster is made, and while it runs."""

from __future__ import annotations

import shutil
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from infra.tiers.base import Check
from infra.tiers.kind import checks
from infra.tiers.kind.checks import GB
from infra.tiers.kind.cluster import KindCluster
from tests.unit.tiers.kind.fakes import Engine, cluster_of, node

Usage = namedtuple("Usage", "total used free")


def with_room(monkeypatch: pytest.MonkeyPatch, free: float) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(100 * GB, 0, int(free * GB)))


@pytest.mark.parametrize(("free", "status"), [(1.9, "fail"), (2.1, "warn"), (7.9, "warn"), (8.1, "ok")])
def test_a_new_cluster_needs_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: float, status: str) -> None:
    with_room(monkeypatch, free)
    found = checks.disk({"DockerRootDir": str(tmp_path)}, tmp_path)
    assert found.status == status
    assert str(tmp_path) in found.text
    assert (status == "fail") == bool(found.remedy)


def test_one_that_runs_is_only_warned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_room(monkeypatch, 1.0)
    found = checks.room(str(tmp_path), tmp_path)
    assert found.status == "warn"
    assert "free space" in found.remedy


def test_dockers_disk_in_a_virtual_machine_is_that_of_the_state(tmp_path: Path) -> None:
    found = checks.disk({"DockerRootDir": "/var/lib/docker-of-another-machine"}, tmp_path / "not" / "yet")
    assert str(tmp_path) in found.text


@pytest.mark.parametrize(("total", "obs", "status"), [(1, False, "warn"), (2, False, "ok"), (2, True, "warn")])
def test_memory_of_dockers_machine(total: int, obs: bool, status: str) -> None:
    assert checks.memory({"MemTotal": total * GB}, obs).status == status


def test_memory_that_is_unknown_is_no_trouble() -> None:
    assert checks.memory({}, False).status == "ok"


@pytest.mark.parametrize(("value", "status"), [(32, "fail"), (128, "warn"), (512, "ok")])
def test_limits_for_watching_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: int, status: str) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    (tmp_path / "max_user_instances").write_text(f"{value}\n")
    [found] = checks.inotify(tmp_path)
    assert found.status == status
    assert ("sysctl" in found.remedy) == (status != "ok")


def test_other_systems_have_no_such_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert checks.inotify(tmp_path) == []


def test_ports_that_are_free_are_one_finding() -> None:
    from tests.unit.helpers import free_port

    [found] = checks.node_ports([free_port()], Engine())
    assert (found.id, found.status) == ("ports", "ok")


def test_a_port_that_is_taken_names_the_container(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    monkeypatch.setattr(Engine, "publisher", lambda self, port: "somebodys-redis")
    with socket.create_server(("127.0.0.1", 0)) as held:
        [found] = checks.node_ports([held.getsockname()[1]], Engine())
    assert (found.status, found.code) == ("fail", "PORT_TAKEN")
    assert "docker stop somebodys-redis" in found.remedy


def test_a_cluster_that_runs_is_asked_only_for_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KindCluster, "listening", lambda self: True)
    assert [c.id for c in checks.machine(cluster_of(tmp_path), obs=False)] == ["disk"]


@pytest.mark.parametrize(("state", "asked"), [("running", False), ("exited", True)])
def test_ports_are_looked_at_unless_our_own_node_holds_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str, asked: bool
) -> None:
    monkeypatch.setattr(checks, "node_ports", lambda numbers, docker: [Check("ports", "ok", "free")])
    monkeypatch.setattr(checks, "cgroup", lambda *_: Check("node-image", "ok", ""))
    monkeypatch.setattr(KindCluster, "file", {"nodes": []})
    cluster = cluster_of(tmp_path, node(tmp_path / "state" / "kind", state=state))
    found = [c.id for c in checks.machine(cluster, obs=True)]
    assert ("ports" in found) == asked
    assert {"docker", "memory", "disk", "node-image"} <= set(found)
