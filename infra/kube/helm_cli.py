"""Command lines of Helm 3.18+ and 4. Pure: they return argument lists; each names its kubeconfig.

The two majors differ for us in one option: how releases of all states are listed.
Source: helm v4.2.4, pkg/cmd/{flags,install,upgrade,rollback}.go.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

RENDERED_FOR = "1.34.0"
"""The Kubernetes that charts are rendered for where no cluster is asked; some builds of Helm 3 would take 1.20."""
STDIN = "-"
"""As a values file: the values come on standard input, where no other user can read them."""


@dataclass(frozen=True)
class Deploy:
    """One installation or upgrade. `sets` are `key=value` texts; `values` are files, or STDIN.

    For rendering only: `kubernetes` is the version to render for, `crds` whether the chart's definitions are wanted.
    """

    release: str
    chart: str
    namespace: str
    version: str = ""
    values: tuple[str, ...] = ()
    sets: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    reuse: bool = False
    timeout: float = 600.0
    dry_run: bool = False
    kubernetes: str = RENDERED_FOR
    crds: bool = False


@dataclass(frozen=True)
class Helm:
    """Helm of a major version on one kubeconfig."""

    program: str
    major: int
    kubeconfig: Path

    def _argv(self, *words: str) -> list[str]:
        return [self.program, *words, "--kubeconfig", str(self.kubeconfig)]

    def upgrade(self, deploy: Deploy) -> list[str]:
        """Install a release, or upgrade it to what is given."""
        words = ["upgrade", deploy.release, deploy.chart, "--install", "-n", deploy.namespace, "--create-namespace"]
        words += ["--version", deploy.version] if deploy.version else []
        words += ["--reuse-values"] if deploy.reuse else ["--reset-values"]
        words += [word for file in deploy.values for word in ("-f", file)]
        words += [word for text in deploy.sets for word in ("--set", text)]
        labels = ",".join(f"{key}={value}" for key, value in deploy.labels.items())
        words += ["--labels", labels] if labels else []
        words += ["--timeout", f"{deploy.timeout:.0f}s"]
        return self._argv(*words, *(["--dry-run=server"] if deploy.dry_run else []))

    def template(self, deploy: Deploy) -> list[str]:
        """Render a chart; asks no cluster."""
        words = ["template", deploy.release, deploy.chart, "-n", deploy.namespace, "--kube-version", deploy.kubernetes]
        words += ["--include-crds"] if deploy.crds else []
        words += ["--version", deploy.version] if deploy.version else []
        words += [word for file in deploy.values for word in ("-f", file)]
        return [self.program, *words, *(word for text in deploy.sets for word in ("--set", text))]

    def lint(self, chart: str, values: Sequence[str]) -> list[str]:
        """Check a chart."""
        return [self.program, "lint", chart, "--strict", *(word for file in values for word in ("-f", file))]

    def releases(self) -> list[str]:
        """List all releases of all namespaces, also those that failed or hang, as JSON."""
        # Helm 4 lists every state by itself and has no option for it any more.
        every = [] if self.major >= 4 else ["--all"]
        return self._argv("list", "--all-namespaces", *every, "--max", "0", "-o", "json")

    def status(self, release: str, namespace: str) -> list[str]:
        """Print one release, as JSON."""
        return self._argv("status", release, "-n", namespace, "-o", "json")

    def history(self, release: str, namespace: str) -> list[str]:
        """List its revisions, as JSON."""
        return self._argv("history", release, "-n", namespace, "--max", "256", "-o", "json")

    def values(self, release: str, namespace: str, revision: int = 0, all_values: bool = False) -> list[str]:
        """Print the values a release was given, or with `all_values` those that result, as JSON."""
        which = (["--revision", str(revision)] if revision else []) + (["--all"] if all_values else [])
        return self._argv("get", "values", release, "-n", namespace, *which, "-o", "json")

    def manifest(self, release: str, namespace: str, revision: int = 0) -> list[str]:
        """Print what a release has put into the cluster, as YAML."""
        which = ["--revision", str(revision)] if revision else []
        return self._argv("get", "manifest", release, "-n", namespace, *which)

    def rollback(self, release: str, namespace: str, revision: int = 0) -> list[str]:
        """Go back to a revision; 0 is the one before."""
        which = [str(revision)] if revision else []
        return self._argv("rollback", release, *which, "-n", namespace, "--timeout", "300s")

    def uninstall(self, release: str, namespace: str) -> list[str]:
        """Remove a release; what its chart keeps (volumes) stays."""
        return self._argv("uninstall", release, "-n", namespace, "--ignore-not-found")

    def test(self, release: str, namespace: str) -> list[str]:
        """Run the tests of a release's chart; with what their pods say, where Helm can tell it."""
        # Helm 3 looks for the pods after it has deleted those that passed, and calls that a failure.
        logs = ["--logs"] if self.major >= 4 else []
        return self._argv("test", release, "-n", namespace, *logs, "--timeout", "120s")
