"""A Kubernetes cluster, of any origin, that the platform is deployed to, and what is remembered of it."""

from __future__ import annotations

import contextlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from infra import private, stack
from infra.context import Context
from infra.kube.api import Api, NoAnswer, unreachable
from infra.kube.releases import Profile
from infra.settings import Settings
from infra.stack import write_atomic


@dataclass(frozen=True)
class Commands:
    """Commands that bring such a cluster up, show its state and report on it, as steps of errors."""

    up: str
    status: str
    report: str = ""


@dataclass
class Target(ABC):
    """A cluster and the directory of its tier; what is known of it is kept in `<home>/cluster.json`."""

    context: Context
    home: Path

    profile: ClassVar[Profile]
    commands: ClassVar[Commands]

    @property
    def settings(self) -> Settings:
        """The settings of this run."""
        return self.context.settings

    @property
    def kubeconfig(self) -> Path:
        """Our own kubeconfig."""
        return self.home / "kubeconfig"

    @property
    def memory(self) -> Path:
        """The file with what is known of the cluster."""
        return self.home / "cluster.json"

    @property
    def record(self) -> dict[str, Any]:
        """Read what is known of the cluster, e.g. which revisions of releases were deployed from here."""
        return stack.read_json(self.memory) or {}

    def remember(self, **facts: object) -> None:
        """Add to what is known. Raises PlatformError STATE_UNWRITABLE."""
        try:
            private.directory(self.home)
            write_atomic(self.memory, json.dumps(self.record | facts, indent=1) + "\n")
        except OSError as error:
            raise stack.unwritable(self.home, error) from error

    def manifests(self) -> list[object]:
        """Return the objects that it gets before the first release, beside the namespaces."""
        return []

    @abstractmethod
    def api(self) -> Api:
        """Return the API of this cluster, and of no other.

        Raises:
            PlatformError: NOT_RUNNING, CONTEXT_REFUSED.
        """

    @contextlib.contextmanager
    def connected(self) -> Iterator[Api]:
        """Connect as `api` does, for a block in which silence of the server is an error for people.

        Raises:
            PlatformError: UNREACHABLE, and what `api` raises.
        """
        link = self.api()
        try:
            yield link
        except NoAnswer as error:
            steps = (self.commands.status, f"{self.commands.up} brings a stopped one back")
            raise unreachable(error, steps) from error
        finally:
            link.close()
