"""Clusters of two nodes, deleted ones, and the programs. Alone: the kernel bounds how many nodes watch files."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.faults.kind.cluster import cluster, run
from tests.faults.kind.files import NODE_PORT, deploy, until_it_answers
from tests.rig.kind import tools
from tests.unit.helpers import free_port

pytestmark = pytest.mark.usefixtures("rig")


def test_pods_reach_each_other_across_nodes(rig: dict[str, str], tmp_path: Path) -> None:
    outer = free_port()
    with cluster(tmp_path, workers=1, ports={outer: NODE_PORT}) as two:
        deploy(two)
        pod = two.get("pods", "--selector", "app=files")["items"][0]
        assert pod["spec"]["nodeName"] == f"{two.name}-worker"
        until_it_answers(outer)


def test_nothing_is_left_of_a_deleted_cluster(rig: dict[str, str], tmp_path: Path) -> None:
    with cluster(tmp_path) as gone:
        mounts = json.loads(run(["docker", "inspect", gone.control_plane]))[0]["Mounts"]
        volumes = [m["Name"] for m in mounts if m["Type"] == "volume"]
        assert volumes
    assert run(["docker", "ps", "--all", "--quiet", "--filter", f"name={gone.name}"]) == ""
    for volume in volumes:
        assert subprocess.run(["docker", "volume", "inspect", volume], capture_output=True).returncode


def test_both_lines_of_helm_are_there() -> None:
    for major in (4, 3):
        assert run([str(tools.directory(major) / "helm"), "version", "--short"]).startswith(f"v{major}.")
