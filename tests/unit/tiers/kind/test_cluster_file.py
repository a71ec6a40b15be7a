from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from infra import catalog
from infra.errors import PlatformError
from infra.settings import ROOT
from infra.tiers.kind import cluster_file
from infra.tiers.kind.cluster_file import Mount

BODY: dict[str, Any] = {
    "kind": "Cluster",
    "name": "platform",
    "nodes": [{"role": "control-plane", "image": "kindest/node:v1.36.4"}],
}


def test_the_file_maps_the_ports_of_the_catalogue_and_no_others() -> None:
    body = cluster_file.load(ROOT / "kind" / "cluster.yaml")
    assert set(cluster_file.node_ports(body)) == {p.node_port for p in catalog.CLUSTER_PORTS}


@pytest.mark.parametrize("text", ["", "nodes: 3", "a: [", "just text"])
def test_a_broken_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "cluster.yaml").write_text(text)
    with pytest.raises(PlatformError) as caught:
        cluster_file.load(tmp_path / "cluster.yaml")
    assert caught.value.code == "SETTINGS_UNREADABLE"


def test_a_host_with_cgroup_v1_gets_the_last_image_that_runs_there() -> None:
    image, warning = cluster_file.node_image(BODY, "", "1")
    assert image.startswith("kindest/node:v1.34.")
    assert "cgroup v1" in warning


@pytest.mark.parametrize(("chosen", "cgroup"), [("", "2"), ("", ""), ("own/node:v1.40.0", "1")])
def test_else_the_image_of_the_settings_or_of_the_file_is_used(chosen: str, cgroup: str) -> None:
    assert cluster_file.node_image(BODY, chosen, cgroup) == (chosen, "")


def test_an_older_image_in_the_file_is_left_alone() -> None:
    body = {**BODY, "nodes": [{"image": "kindest/node:v1.33.1"}]}
    assert cluster_file.node_image(body, "", "1") == ("", "")


def test_name_image_and_mounts_are_added_and_the_rest_stays() -> None:
    body = {**BODY, "nodes": [{**BODY["nodes"][0], "extraMounts": [{"hostPath": "a", "containerPath": "/a"}]}]}
    made = cluster_file.effective(body, "mine", "other:1", [Mount(Path("/data dir"), "/b", read_only=True)])
    node = made["nodes"][0]
    assert (made["name"], node["image"], node["role"]) == ("mine", "other:1", "control-plane")
    assert node["extraMounts"][0]["containerPath"] == "/a"
    assert node["extraMounts"][1] == {"hostPath": "/data dir", "containerPath": "/b", "readOnly": True}
    assert yaml.safe_load(cluster_file.text(made)) == made
    assert "extraMounts" not in BODY["nodes"][0], "the file's own data is untouched"


def test_the_hash_follows_ports_and_image_but_not_the_name() -> None:
    first = cluster_file.fingerprint(BODY, "")
    assert cluster_file.fingerprint({**BODY, "name": "another"}, "") == first
    assert cluster_file.fingerprint(BODY, "other:1") != first
    assert cluster_file.fingerprint({**BODY, "nodes": [{"role": "control-plane"}]}, "") != first
