"""The decisions of the rig for kind: names, numbers, arguments, and that nothing is made without the guard."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.rig import cache
from tests.rig.kind import node, programs, tools, up

FILES = node.IMAGES / "node" / "files"
NAMES = ["r.io/kube-apiserver:v1.34.4", "r.io/coredns/coredns:v1.12.1", "r.io/pause:3.10.1", "r.io/etcd:3.6.5-0"]
pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the rig needs Linux")


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLATFORM_RIG_CACHE", str(tmp_path / "cache"))


def program(folder: Path, name: str, text: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


def said(argv: list[str], **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, capture_output=True, text=True, env={"PATH": "/usr/bin:/bin", **env})


def test_each_name_of_kubeadm_has_an_image_of_ours() -> None:
    assert [node._stand_in(name) for name in NAMES] == [node.SYSTEM, node.COREDNS, node.PAUSE, node.SYSTEM]
    assert node._one(NAMES, "pause") == "r.io/pause:3.10.1"
    with pytest.raises(cache.RigProblem, match="should have one nothing"):
        node._one(NAMES, "nothing")


def test_every_program_and_image_has_a_key_of_its_own() -> None:
    keys = [program.key() for program in programs.ALL.values()] + [image.key() for image in node.POD_IMAGES]
    assert len(set(keys)) == len(keys)
    assert node.key() not in keys


def test_placeholders_are_filled_in_and_the_manifests_can_be_read(tmp_path: Path) -> None:
    shutil.copytree(FILES, tmp_path / "files")
    node._fill_in(tmp_path / "files", {"@PAUSE@": "r.io/pause:1", "@SYSTEM@": "r.io/system:1"})
    left = [
        p
        for p in (tmp_path / "files").rglob("*")
        if p.is_file() and ("@PAUSE@" in (t := p.read_text()) or "@SYSTEM@" in t)
    ]
    assert left == []
    storage = list(yaml.safe_load_all((tmp_path / "files/kind/manifests/default-storage.yaml").read_text()))
    settings = next(d for d in storage if d["kind"] == "ConfigMap")["data"]
    assert yaml.safe_load(settings["helperPod.yaml"])["spec"]["containers"][0]["image"] == "r.io/system:1"
    network = list(yaml.safe_load_all((FILES / "kind/manifests/default-cni.yaml").read_text()))
    assert [d["kind"] for d in network] == ["ConfigMap", "ClusterRole", "ClusterRoleBinding"]


@pytest.mark.parametrize(("name", "number"), [("a-control-plane", "0"), ("a-worker", "1"), ("a-worker12", "12")])
def test_a_node_has_the_number_that_its_name_tells(name: str, number: str) -> None:
    assert said([str(FILES / "usr/local/bin/pod-routes"), "number", name]).stdout.strip() == number


def test_a_node_of_another_name_is_refused() -> None:
    done = said([str(FILES / "usr/local/bin/pod-routes"), "number", "a-machine"])
    assert (done.returncode, done.stdout) == (1, "")
    assert "a-machine" in done.stderr


def docker_sees(tmp_path: Path, *arguments: str) -> list[str]:
    """What the real docker is called with when kind calls the one in front of it."""
    shim = shutil.copytree(tools.SOURCE / "shim", tmp_path / "shim", dirs_exist_ok=True)
    program(tmp_path / "real", "docker", 'for word in "$@"; do echo "$word"; done; cat')
    path = f"{shim}:{shim}:{tmp_path / 'real'}:/usr/bin:/bin"
    done = subprocess.run(["docker", *arguments], input="input", capture_output=True, text=True, env={"PATH": path})
    assert done.stdout.endswith("\ninput"), "what kind sends to a node does not get there"
    return done.stdout.splitlines()[:-1]


def test_privileged_becomes_what_can_be_given(tmp_path: Path) -> None:
    seen = docker_sees(tmp_path, "run", "--privileged", "--label", "a b", "image")
    assert "--privileged" not in seen
    assert seen.index("--cap-add=ALL") < seen.index("--cap-drop=SYS_RESOURCE")
    assert seen[0] == "run"
    assert seen[-3:] == ["--label", "a b", "image"]
    assert docker_sees(tmp_path, "exec", "--privileged", "node", "true") == ["exec", "node", "true"]
    assert docker_sees(tmp_path, "ps", "--all") == ["ps", "--all"]


def kind(tmp_path: Path, guard: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The rig's kind, with a guard that ends with that code."""
    folder = tmp_path / "with blank"
    program(folder, "guard", f"echo guard $1; exit {guard}")
    program(folder, "kind.real", 'echo "kind $*"; echo "$PATH"')
    shutil.copy2(tools.SOURCE / "kind", folder / "kind")
    return said([str(folder / "kind"), *arguments])


def test_no_cluster_is_made_without_the_guard(tmp_path: Path) -> None:
    done = kind(tmp_path, 1, "create", "cluster", "--name", "x")
    assert done.returncode == 1
    assert "kind create" not in done.stdout


def test_kind_is_called_as_it_was_asked_for_once_the_guard_is_set(tmp_path: Path) -> None:
    lines = kind(tmp_path, 0, "create", "cluster", "--name", "x").stdout.splitlines()
    assert lines[:2] == ["guard set", "kind create cluster --name x"]
    assert lines[2].startswith(f"{tmp_path / 'with blank'}/shim:")
    assert kind(tmp_path, 1, "version").stdout.splitlines()[0] == "kind version"


def test_settings_are_told_only_when_everything_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "present", lambda: True)
    monkeypatch.setattr(node, "present", lambda: False)
    assert up.values() == {}
    monkeypatch.setattr(node, "present", lambda: True)
    assert up.values()["KIND_NODE_IMAGE"] == node.REFERENCE
