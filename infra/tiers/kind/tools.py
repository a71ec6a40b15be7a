"""The programs kind, kubectl and helm, and the environment that kind runs in."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from infra import catalog, docker_engine
from infra.kube import tools
from infra.kube.tools import KubeProgram
from infra.settings import Settings

SHIM = "shim"
"""A directory next to the programs that comes first on kind's PATH, e.g. with a `docker` of fewer privileges."""


@dataclass(frozen=True)
class Tools:
    """The three programs, and the directory that kind is to find first on PATH (None: nothing special)."""

    kind: KubeProgram
    kubectl: KubeProgram
    helm: KubeProgram
    shim: Path | None = None

    def kind_environment(self, kubeconfig: Path) -> dict[str, str]:
        """Return the variables for kind: its kubeconfig, the engine, and the PATH with the shim in front."""
        found = {"KUBECONFIG": str(kubeconfig), **docker_engine.led()}
        return found | ({"PATH": f"{self.shim}{os.pathsep}{os.environ.get('PATH', '')}"} if self.shim else {})


def find(settings: Settings, memory: Path) -> Tools:
    """Return the three programs; `memory` and errors as for `kube.tools.require`."""
    found = tools.require([tool.name for tool in catalog.KUBE_TOOLS], settings, memory)
    shim = Path(found["kind"].path).parent / SHIM
    return Tools(found["kind"], found["kubectl"], found["helm"], shim if shim.is_dir() else None)
