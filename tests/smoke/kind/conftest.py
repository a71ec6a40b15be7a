"""What the tests of the kind tier share: the cluster behind the running platform."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from infra import settings, shell, stack
from infra.console import Console
from infra.context import Context
from infra.kube.api import Api
from infra.tiers.kind.nodes import Docker, Node
from infra.tiers.kind.tier import Kind
from tests.smoke.platform import Platform


@dataclass(frozen=True)
class TheCluster:
    """The cluster as the tier sees it, and the tasks of the platform in it."""

    tier: Kind
    platform: Platform

    @property
    def context(self) -> Context:
        """The run that the tier is bound to."""
        return self.tier.context

    @property
    def kubeconfig(self) -> Path:
        """Its kubeconfig."""
        return self.tier.cluster.kubeconfig

    def api(self) -> Api:
        """Its API."""
        return self.tier.cluster.api()

    def nodes(self) -> list[Node]:
        """Its nodes."""
        return self.tier.cluster.nodes()

    def items(self, path: str, **query: str) -> list[dict[str, Any]]:
        """The items of a list of the API."""
        link = self.api()
        try:
            return link.items(path, **query)
        finally:
            link.close()

    def task(self, *words: str, expect: int = 0, timeout: float = 600) -> shell.Result:
        """Run a task that is fixed to this tier; fails the test when it ends otherwise than expected."""
        import subprocess
        import sys

        done = subprocess.run(
            [sys.executable, "-m", "invoke", *words],
            cwd=settings.ROOT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            timeout=timeout,
            check=False,
        )
        assert done.returncode == expect, f"invoke {' '.join(words)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return shell.Result(done.returncode, done.stdout, done.stderr)

    def data(self, *words: str) -> Any:
        """The `data` of a task's JSON envelope."""
        import json

        return json.loads(self.task(*words, "--json").out)["data"]

    def revisions(self) -> Mapping[str, int]:
        """The present revision of each release."""
        return {str(r["name"]): int(r["revision"]) for r in self.data("helm.list")}


@pytest.fixture(scope="session")
def cluster(platform: Platform) -> TheCluster:
    """The cluster of the running platform."""
    loaded = settings.load(environ=os.environ)
    return TheCluster(Kind(Context(loaded, stack.of(loaded), Console())), platform)


@pytest.fixture
def docker() -> Docker:
    """The engine that runs its nodes."""
    return Docker()
