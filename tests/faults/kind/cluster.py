"""Clusters of kind for tests, made by kind itself and not by our commands; each has a name of its own."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from infra.settings import ROOT
from tests.rig.kind import node, tools

CREATE_SECONDS, READY_SECONDS, START_SECONDS = 300, 180, 120
"""Bounds for a machine that is busy; on a quiet one they are 17, 12 and 6 s."""


class Failed(AssertionError):
    """A program that a test calls has failed."""


def run(
    argv: Sequence[str], *, stdin: str | None = None, timeout: float = 120, env: dict[str, str] | None = None
) -> str:
    """What a program printed on both streams.

    Raises:
        Failed: it ended with another code than 0.
    """
    done = subprocess.run(
        argv,
        input=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        env={**os.environ, **(env or {})},
    )
    if done.returncode:
        raise Failed(f"{' '.join(argv)} ended with {done.returncode}:\n{done.stdout}")
    return done.stdout.strip()


def until(what: str, look: Callable[[], bool], seconds: float) -> None:
    """Wait for something; a program that fails meanwhile counts as not yet.

    Raises:
        Failed: it did not come in time.
    """
    end, last = time.monotonic() + seconds, ""
    while time.monotonic() < end:
        try:
            if look():
                return
        except (Failed, OSError) as error:
            last = str(error)
        time.sleep(0.3)
    raise Failed(f"{what}: not within {seconds:.0f} s; {last}")


@dataclass(frozen=True)
class Cluster:
    """A cluster by its name, with a kubeconfig of its own."""

    name: str
    kubeconfig: Path

    @property
    def control_plane(self) -> str:
        """The container of the first node."""
        return f"{self.name}-control-plane"

    def kind(self, *arguments: str, stdin: str | None = None, timeout: float = CREATE_SECONDS) -> str:
        """`kind ... --name NAME`."""
        argv = [str(tools.directory() / "kind"), *arguments, "--name", self.name]
        return run(argv, stdin=stdin, timeout=timeout, env={"KUBECONFIG": str(self.kubeconfig)})

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """`kubectl ...` against it."""
        argv = [str(tools.directory() / "kubectl"), "--kubeconfig", str(self.kubeconfig), *arguments]
        return run(argv, stdin=stdin)

    def get(self, *arguments: str) -> Any:
        """`kubectl get ...` as Python values."""
        return json.loads(self.kubectl("get", *arguments, "--output", "json"))

    def apply(self, *documents: dict[str, Any]) -> None:
        """`kubectl apply`."""
        self.kubectl("apply", "--filename", "-", stdin=yaml.safe_dump_all(documents))

    def on_node(self, script: str, container: str = "") -> str:
        """What a shell in a node prints."""
        return run(["docker", "exec", container or self.control_plane, "bash", "-c", script])

    def create(self, workers: int = 0, ports: dict[int, int] | None = None) -> None:
        """Make it: `ports` leads ports of 127.0.0.1 to ports of the first node."""
        mappings = [
            {"hostPort": outer, "containerPort": inner, "listenAddress": "127.0.0.1"}
            for outer, inner in (ports or {}).items()
        ]
        nodes = [{"role": "control-plane", "image": node.REFERENCE, "extraPortMappings": mappings}]
        nodes += [{"role": "worker", "image": node.REFERENCE}] * workers
        ours = yaml.safe_load((ROOT / "kind/cluster.yaml").read_text(encoding="utf-8"))
        patches = ours["kubeadmConfigPatches"]  # nobody elects leaders: on a busy machine they lose their leases
        body = {"kind": "Cluster", "apiVersion": "kind.x-k8s.io/v1alpha4", "nodes": nodes}
        body["kubeadmConfigPatches"] = patches
        wait = f"{CREATE_SECONDS - 60}s"
        self.kind("create", "cluster", "--config", "-", "--retain", "--wait", wait, stdin=yaml.safe_dump(body))

    def delete(self) -> None:
        """Delete it, whatever is left of it."""
        self.kind("delete", "cluster")

    def ready(self) -> bool:
        """Whether its API server answers and every node and pod is ready; finished pods do not count."""
        if self.kubectl("get", "--raw", "/readyz") != "ok":
            return False
        pods = [p for p in self.get("pods", "--all-namespaces")["items"] if p["status"].get("phase") != "Succeeded"]
        return bool(pods) and all(map(is_ready, [*pods, *self.get("nodes")["items"]]))

    def until_ready(self, seconds: float = READY_SECONDS) -> None:
        """Wait until everything is ready."""
        until(f"everything in {self.name} is ready", self.ready, seconds)


def is_ready(thing: dict[str, Any]) -> bool:
    """Whether a pod or a node says that it is ready."""
    conditions = thing["status"].get("conditions") or []
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


@contextlib.contextmanager
def cluster(home: Path, workers: int = 0, ports: dict[int, int] | None = None) -> Iterator[Cluster]:
    """A running cluster that is gone afterwards."""
    made = Cluster(f"rig-{uuid.uuid4().hex[:6]}", home / "kubeconfig")
    try:
        made.create(workers, ports)
        made.until_ready()
        yield made
    finally:
        made.delete()
