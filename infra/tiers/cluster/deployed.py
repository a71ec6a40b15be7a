"""The services whose releases were deployed, in a file of the tier's directory: known without asking the cluster."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from infra import catalog, stack
from infra.kube import releases

FILE = "services.json"


@dataclass(frozen=True)
class DeployedServices:
    """Reads and writes `<home>/services.json`."""

    home: Path

    @property
    def names(self) -> tuple[str, ...]:
        """In the order of the catalogue; () when nothing was deployed yet."""
        found = (stack.read_json(self.home / FILE) or {}).get("services")
        return _ordered(found if isinstance(found, list) else ())

    def of_releases(self, names: Sequence[str]) -> tuple[str, ...]:
        """Return the services of some releases: those that were deployed of them, or all."""
        there, found = self.names, list[str]()
        for name in names:
            every = releases.services_of(name)
            found += [s for s in every if s in there] or list(every)
        return tuple(found)

    def add(self, services: Sequence[str]) -> None:
        """Record that these services have been deployed, too."""
        self._write({*self.names, *services})

    def forget(self, gone: Sequence[str]) -> None:
        """Record that the services of these releases have been removed."""
        self._write({s for s in self.names if releases.RELEASES_OF[s] not in gone})

    def _write(self, names: Collection[str]) -> None:
        body = {"services": list(_ordered(names))}
        if body != stack.read_json(self.home / FILE):
            stack.write_atomic(self.home / FILE, json.dumps(body) + "\n", sync=False)


def _ordered(names: Collection[str]) -> tuple[str, ...]:
    return tuple(s.name for s in catalog.SERVICES if s.release and s.name in names)
