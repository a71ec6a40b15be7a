from __future__ import annotations

from pathlib import Path

import pytest

from infra.kube.helm_cli import RENDERED_FOR, STDIN, Deploy, Helm
from infra.kube.kubectl_cli import Kubectl
from infra.tiers.kind import cli as kind_cli

FILE = Path("/state dir/kind/kubeconfig")
REDIS = Deploy("redis", "helm/redis", "platform", values=("values-kind.yaml", STDIN), sets=("a.b=c,d",))


@pytest.mark.parametrize("major", [3, 4])
def test_every_helm_that_speaks_to_a_cluster_names_its_kubeconfig(major: int) -> None:
    helm = Helm("/bin/helm", major, FILE)
    lines = [
        helm.upgrade(REDIS),
        helm.releases(),
        *(f("redis", "platform") for f in (helm.status, helm.history, helm.values, helm.manifest)),
        *(f("redis", "platform") for f in (helm.rollback, helm.uninstall, helm.test)),
    ]
    for argv in lines:
        assert argv[argv.index("--kubeconfig") + 1] == str(FILE)


def test_every_kubectl_that_speaks_to_a_cluster_names_its_kubeconfig() -> None:
    kubectl = Kubectl("/bin/kubectl", FILE)
    lines = [
        kubectl.apply_text(),
        kubectl.apply(Path("k8s/overlays/kind")),
        kubectl.diff(Path("k8s/overlays/kind")),
        kubectl.delete(["service/a"], "platform"),
        kubectl.restart("platform", "deployment/a"),
        kubectl.scale("platform", "deployment/a", 0),
        kubectl.shell("platform", "a", ["sh"]),
        kubectl.cluster_dump(Path("out")),
    ]
    assert all(argv[:3] == ["/bin/kubectl", "--kubeconfig", str(FILE)] for argv in lines)


def test_helm_3_lists_all_states_only_when_asked() -> None:
    assert "--all" in Helm("helm", 3, FILE).releases()
    assert "--all" not in Helm("helm", 4, FILE).releases()


def test_an_upgrade_takes_files_then_standard_input_then_what_is_set() -> None:
    argv = Helm("helm", 4, FILE).upgrade(REDIS)
    assert argv[:4] == ["helm", "upgrade", "redis", "helm/redis"]
    assert [argv[i + 1] for i, word in enumerate(argv) if word == "-f"] == ["values-kind.yaml", "-"]
    assert argv[argv.index("--set") + 1] == "a.b=c,d"
    assert "--reset-values" in argv
    assert "--install" in argv


def test_an_upgrade_of_one_value_keeps_the_others() -> None:
    argv = Helm("helm", 4, FILE).upgrade(Deploy("redis", "c", "platform", sets=("a=b",), reuse=True))
    assert "--reuse-values" in argv
    assert "--reset-values" not in argv


def test_rendering_asks_no_cluster() -> None:
    argv = Helm("helm", 4, FILE).template(REDIS)
    assert "--kubeconfig" not in argv
    assert argv[argv.index("--kube-version") + 1] == RENDERED_FOR, "else some builds take a version that charts refuse"


def test_kind_keeps_a_cluster_that_failed_for_inspection() -> None:
    argv = kind_cli.create("kind", "mine", Path("c.yaml"), FILE)
    assert "--retain" in argv
    assert argv[argv.index("--kubeconfig") + 1] == str(FILE)
    assert argv[argv.index("--name") + 1] == "mine"


def test_kind_loads_all_images_at_once() -> None:
    assert kind_cli.load("kind", "mine", ["a:1", "b:2"])[:5] == ["kind", "load", "docker-image", "a:1", "b:2"]


@pytest.mark.parametrize(("major", "asked"), [(3, False), (4, True)])
def test_only_helm_4_is_asked_what_the_pods_of_a_test_said(major: int, asked: bool) -> None:
    assert ("--logs" in Helm("/bin/helm", major, FILE).test("redis", "platform")) is asked
