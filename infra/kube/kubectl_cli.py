"""Command lines of kubectl. Pure: they return argument lists; each names its kubeconfig."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

OWNER = "platform-infra"
"""The field manager of applied objects."""


@dataclass(frozen=True)
class Kubectl:
    """kubectl on one kubeconfig."""

    program: str
    kubeconfig: Path

    def _argv(self, *words: str) -> list[str]:
        return [self.program, "--kubeconfig", str(self.kubeconfig), *words]

    def apply_text(self) -> list[str]:
        """Apply what comes on standard input."""
        return self._argv("apply", "--server-side", "--force-conflicts", "--field-manager", OWNER, "-f", "-")

    def kustomize(self, overlay: Path) -> list[str]:
        """Print what an overlay renders; asks no cluster."""
        return [self.program, "kustomize", str(overlay)]

    def apply(self, overlay: Path) -> list[str]:
        """Apply an overlay, as a person would."""
        return self._argv("apply", "-k", str(overlay))

    def diff(self, overlay: Path) -> list[str]:
        """Print what applying an overlay would change; exit 1 when there is a difference."""
        return self._argv("diff", "-k", str(overlay))

    def delete(self, kinds_and_names: Sequence[str], namespace: str) -> list[str]:
        """Delete objects, e.g. `deployment/backend`; those that are not there are no error."""
        return self._argv("delete", "-n", namespace, "--ignore-not-found", "--wait=true", *kinds_and_names)

    def names(self, kind_and_name: str, namespace: str) -> list[str]:
        """Print an object's name; nothing where it is not there."""
        return self._argv("get", kind_and_name, "-n", namespace, "--ignore-not-found", "-o", "name")

    def restart(self, namespace: str, workload: str) -> list[str]:
        """Replace the pods of a workload, e.g. `statefulset/postgresql`, one after the other."""
        return self._argv("rollout", "restart", "-n", namespace, workload)

    def scale(self, namespace: str, workload: str, replicas: int) -> list[str]:
        """Set the number of pods."""
        return self._argv("scale", "-n", namespace, workload, f"--replicas={replicas}")

    def shell(self, namespace: str, target: str, command: Sequence[str]) -> list[str]:
        """Run an interactive program in a pod."""
        return self._argv("exec", "-it", "-n", namespace, target, "--", *command)

    def cluster_dump(self, target: Path) -> list[str]:
        """Write state and logs of every namespace to a directory."""
        return self._argv("cluster-info", "dump", "--all-namespaces", "--output-directory", str(target))
