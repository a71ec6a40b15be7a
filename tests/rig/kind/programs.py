"""The programs of a cluster and those that steer it, all built from Go modules.

Kubernetes is one program that is called by many names: its parts share nearly all of their packages.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.rig import cache, golang
from tests.rig.parts import GoProgram

SOURCES = Path(__file__).parent / "source"
KUBERNETES = "v1.34.4"
"""The newest of the last line whose kubelet starts on cgroup v1 without being told to."""
LIBRARIES = f"v0{KUBERNETES.removeprefix('v1')}"
"""Version of the modules that are published together with Kubernetes."""

_MAJOR, _MINOR = KUBERNETES.removeprefix("v").split(".")[:2]
KUBERNETES_VALUES = (
    *(
        f"{package}.{name}={value}"
        for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
        for name, value in (("gitVersion", KUBERNETES), ("gitMajor", _MAJOR), ("gitMinor", _MINOR))
    ),
    "k8s.io/component-base/version.gitTreeState=clean",
)
"""Without them the parts say v0.0.0, and kubeadm refuses to work with them."""


@dataclass(frozen=True)
class Program(GoProgram):
    """A Go program with values for its linker, or with our own main package, `source/<sources>`."""

    values: tuple[str, ...] = ()
    sources: str = ""
    neighbours: str = ""

    def key(self) -> str:
        """What GoProgram knows, the values and our sources."""
        own = cache.key_of_files(SOURCES / self.sources) if self.sources else ""
        return cache.key(super().key(), *self.values, own, self.neighbours)

    def make(self, into: Path, log: Path) -> None:
        """Build `<into>/<name>`."""
        sources = SOURCES / self.sources if self.sources else None
        extras = golang.Extras(self.values, sources, self.neighbours)
        golang.build(self.module, self.version, self.package, into / self.name, log, extras)


def _part_of_kubernetes(name: str, values: tuple[str, ...] = ()) -> Program:
    return Program("k8s.io/kubernetes", KUBERNETES, f"./cmd/{name}", name, values, name, LIBRARIES)


HYPERKUBE = _part_of_kubernetes("hyperkube", KUBERNETES_VALUES)
PAUSE = _part_of_kubernetes("pause")
"""Needs nothing of the module that it is built in."""

ETCD = Program("go.etcd.io/etcd/server/v3", "v3.6.5", ".", "etcd")
COREDNS = Program("github.com/coredns/coredns", "v1.14.7", "./cmd/coredns", "coredns", (), "coredns")
PROVISIONER = Program("github.com/rancher/local-path-provisioner", "v0.0.30", ".", "local-path-provisioner")

KIND = Program("sigs.k8s.io/kind", "v0.33.0", ".", "kind")
HELM, HELM_3 = (
    Program(module, version, "./cmd/helm", "helm", (f"{module}/internal/version.version={version}",))
    for module, version in (("helm.sh/helm/v4", "v4.3.1"), ("helm.sh/helm/v3", "v3.22.0"))
)

ALL = {
    "kind-hyperkube": HYPERKUBE,
    "kind-pause": PAUSE,
    "kind-etcd": ETCD,
    "kind-coredns": COREDNS,
    "kind-provisioner": PROVISIONER,
    "kind-kind": KIND,
    "kind-helm4": HELM,
    "kind-helm3": HELM_3,
}
"""By the name of the step that builds them, which is also the owner of the part. The longest build comes first."""
