from __future__ import annotations

import base64
from pathlib import Path

import pytest

from infra.errors import PlatformError
from infra.kube import kubeconfig
from infra.tiers.kind import kubeconfig as kind_kubeconfig

PEM = base64.b64encode(b"-----BEGIN X-----").decode()


def written(path: Path, server: str = "https://127.0.0.1:40123", context: str = "kind-mine") -> Path:
    path.write_text(
        f"""apiVersion: v1
clusters:
- cluster:
    certificate-authority-data: {PEM}
    server: {server}
  name: kind-mine
contexts:
- context:
    cluster: kind-mine
    user: kind-mine
  name: kind-mine
current-context: {context}
kind: Config
users:
- name: kind-mine
  user:
    client-certificate-data: {PEM}
    client-key-data: {PEM}
"""
    )
    return path


def test_address_and_context_without_a_parser(tmp_path: Path) -> None:
    path = written(tmp_path / "config")
    assert kubeconfig.address(path) == ("127.0.0.1", 40123)
    assert kubeconfig.context(path) == "kind-mine"
    assert kubeconfig.address(tmp_path / "none") is None


def test_our_own_cluster_is_accepted(tmp_path: Path) -> None:
    kind_kubeconfig.refuse_others(written(tmp_path / "config"), "mine")


@pytest.mark.parametrize(
    ("server", "context"),
    [
        ("https://127.0.0.1:40123", "production"),
        ("https://127.0.0.1:40123", "kind-another"),
        ("https://10.1.2.3:6443", "kind-mine"),
        ("https://prod.example.com:443", "kind-mine"),
    ],
)
def test_any_other_cluster_is_refused(tmp_path: Path, server: str, context: str) -> None:
    path = written(tmp_path / "config", server, context)
    before = path.read_bytes()
    with pytest.raises(PlatformError) as caught:
        kind_kubeconfig.refuse_others(path, "mine")
    assert caught.value.code == "CONTEXT_REFUSED"
    assert path.read_bytes() == before


def test_what_is_needed_to_speak_to_it(tmp_path: Path) -> None:
    access = kubeconfig.read(written(tmp_path / "config"))
    assert (access.host, access.port, access.context) == ("127.0.0.1", 40123, "kind-mine")
    assert access.key == "-----BEGIN X-----"


@pytest.mark.parametrize("text", ["", "a: [", "current-context: x\ncontexts: []\n", "just text"])
def test_a_file_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "config").write_text(text)
    with pytest.raises(PlatformError) as caught:
        kubeconfig.read(tmp_path / "config")
    assert caught.value.code == "CONTEXT_REFUSED"


def test_no_file_means_no_cluster(tmp_path: Path) -> None:
    with pytest.raises(PlatformError) as caught:
        kubeconfig.read(tmp_path / "config")
    assert caught.value.code == "NOT_RUNNING"
