"""The product's own cluster for fault tests: our commands, and what it takes to break what they have made."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from infra.tiers.kind.nodes import Docker, Node
from tests.faults.kind.cluster import Cluster
from tests.rig import env_file
from tests.smoke.stage import Completed, Stage, only_cluster, stage

LIGHT = {"PLATFORM_LIGHT": "yes"}
"""These tests are not about Temporal: its development server starts sooner."""


@dataclass(frozen=True)
class Product:
    """A stack on kind that belongs to a test."""

    stage: Stage

    @property
    def name(self) -> str:
        """What its cluster is called."""
        return self.stage.env["PLATFORM_STACK"]

    @property
    def home(self) -> Path:
        """The tier's part of its state."""
        return self.stage.home / "kind"

    @cached_property
    def cluster(self) -> Cluster:
        """Its cluster for kubectl and shells in nodes."""
        return Cluster(self.name, self.home / "kubeconfig")

    def having(self, **settings: str) -> Product:
        """The same stack with other settings."""
        return Product(replace(self.stage, env={**self.stage.env, **settings}))

    def invoke(self, *words: str, expect: int = 0) -> Completed:
        """Run a task; fails the test when it ends otherwise than expected."""
        done = self.stage.invoke(*words)
        assert done.returncode == expect, f"invoke {' '.join(words)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def data(self, *words: str) -> Any:
        """The `data` of a task's JSON envelope."""
        return json.loads(self.invoke(*words, "--json").stdout)["data"]

    def error(self, *words: str, expect: int) -> dict[str, Any]:
        """The `error` of a task's JSON envelope; it must end with that code."""
        found: dict[str, Any] = json.loads(self.invoke(*words, "--json", expect=expect).stdout)["error"]
        return found

    def begin(self, *words: str) -> subprocess.Popen[str]:
        """Start a task and go on."""
        import sys

        argv = [sys.executable, "-m", "invoke", *words]
        pipe = subprocess.PIPE
        return subprocess.Popen(
            argv, cwd=self.stage.root, env=dict(self.stage.env), stdout=pipe, stderr=pipe, text=True
        )

    def nodes(self) -> list[Node]:
        """The containers of its cluster, running or not."""
        return Docker().nodes(self.name)

    def statuses(self) -> Mapping[str, str]:
        """What Helm says of each release."""
        return {str(r["name"]): str(r["status"]) for r in self.data("helm.list")}

    def sql(self, text: str) -> str:
        """What psql in the cluster prints."""
        argv = ["exec", "--namespace", "platform", "postgresql-0", "--", "psql", "-U", "admin", "-d", "platform"]
        return self.cluster.kubectl(*argv, "-tAc", text)


def said(error: Mapping[str, Any]) -> str:
    """All texts of an error, to look for words in."""
    return json.dumps(error, ensure_ascii=False)


@contextlib.contextmanager
def product(**settings: str) -> Iterator[Product]:
    """A stack that has no cluster yet; nothing of it is left afterwards."""
    with only_cluster("kind"), stage("kind", **(env_file.values() | LIGHT | settings)) as made:
        yield Product(made)
