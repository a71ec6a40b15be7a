"""The protocol of a tier. Whatever works from endpoints alone is not here but in `infra.lifecycle`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import ClassVar, Self

from infra import catalog
from infra.context import Context
from infra.endpoints import Endpoints, Login
from infra.errors import PlatformError
from infra.loglines import LogQuery

ELSEWHERE = "elsewhere"
"""A file in a directory of the trash: the path of what is kept beside its old place, since its disk is another one."""


@dataclass(frozen=True)
class Availability:
    """The answer to the question whether a tier can run on this machine, with its reason.

    `code` is the error's where it cannot; `prefer` is False where it is not to be chosen without being asked for,
    e.g. since it would have to download images.
    """

    ok: bool
    reason: str
    steps: tuple[str, ...] = ()
    code: str = "TIER_UNAVAILABLE"
    prefer: bool = True


@dataclass(frozen=True)
class Check:
    """One finding of doctor or of the preflight: status is ok, warn or fail."""

    id: str
    status: str
    text: str
    remedy: str = ""
    code: str = ""


@dataclass(frozen=True)
class ServiceStatus:
    """A service as its tier sees it; memory in bytes, `since` in seconds since 1970."""

    name: str
    state: str
    detail: str = ""
    pid: int | None = None
    memory: int | None = None
    restarts: int = 0
    since: float | None = None
    engine: str = ""
    log: str = ""


class TemporalStorage(StrEnum):
    """Kinds of Temporal's storage: a file on this machine, a file inside a container, databases in PostgreSQL."""

    FILE = "file"
    INSIDE = "inside"
    DATABASES = "databases"


@dataclass(frozen=True)
class Observed:
    """The coverage of a tier's monitoring: whether logs reach Loki, and which scrape jobs have no service that runs.

    `targets` are the URLs of metrics by service, where one can ask them without Prometheus, `logins` what they want.
    """

    logs: bool
    absent: tuple[str, ...]
    targets: Mapping[str, str] = field(default_factory=dict)
    logins: Mapping[str, Login] = field(default_factory=dict)


@dataclass(frozen=True)
class LogLine:
    """A line of a service's log."""

    service: str
    text: str


@dataclass(frozen=True)
class Removal:
    """One thing that a reset removes: the storage of a service, a directory of this machine or a volume of an engine.

    `size` is in bytes; `volume` is the engine's name for it, and `path` is None then.
    """

    service: str
    path: Path | None
    size: int
    volume: str = ""

    @property
    def place(self) -> str:
        """Name it for people: the volume's name, or the directory."""
        return self.volume or str(self.path)


def known_or_why(ask: Callable[[], str]) -> str:
    """Return the answer, or why there is none."""
    try:
        return ask()
    except PlatformError as error:
        return f"unknown: {error.what}"


class Tier(ABC):
    """The verbs of a tier, bound to one run: what was found out about it is kept in cached properties."""

    name: ClassVar[str]
    from_images: ClassVar[bool] = True
    """True where services run from images: a setting names their version, and PLATFORM_LEAVE_OUT leaves some out."""

    def __init__(self, context: Context) -> None:
        self.context = context

    def with_context(self, context: Context) -> Self:
        """Return this tier for another context, e.g. with other settings; nothing it found out is carried over."""
        return type(self)(context)

    @property
    def home(self) -> Path:
        """State of this tier."""
        return self.context.stack.tier_home(self.name)

    def outdated(self) -> tuple[str, ...]:
        """Return the running services that `up` would start again: by an earlier version, or with other settings."""
        return ()

    @abstractmethod
    def available(self) -> Availability:
        """Tell whether this machine can run the tier."""

    @abstractmethod
    def running(self) -> bool:
        """Return whether anything of the stack runs on this tier."""

    @abstractmethod
    def selection(self, obs: bool, only: Sequence[str]) -> tuple[str, ...]:
        """Return the services that `up` must run: named ones with what they need, or all; and what runs now."""

    @abstractmethod
    def preflight(self, names: Sequence[str]) -> list[Check]:
        """Return everything that would make `up` fail, found before anything is started."""

    def own_answers(self) -> list[Check]:
        """Check what runs of the tier itself, beside the services of the catalogue; for doctor, never before `up`."""
        return []

    @abstractmethod
    def start(self, names: Sequence[str], timeout: float | None) -> None:
        """Start what is missing and wait until it is ready; deletes nothing."""

    @abstractmethod
    def stop(self) -> bool:
        """Stop everything, keep the data; False when nothing ran."""

    @abstractmethod
    def restart(self, services: Sequence[str]) -> None:
        """Restart running services and wait until they are ready."""

    @abstractmethod
    def status(self) -> list[ServiceStatus]:
        """Return every service that this tier has running, or should have running."""

    @abstractmethod
    def processes(self) -> set[tuple[str, int | None]]:
        """Return the names of ready services, with pids if any; `up` compares them to tell whether it did anything.

        Quick: unlike `status` it need not ask for memory and the like.
        """

    @abstractmethod
    def wait(self, services: Sequence[str], timeout: float | None) -> None:
        """Block until the services are ready."""

    @abstractmethod
    def logs(self, services: Sequence[str], query: LogQuery) -> Iterator[LogLine]:
        """Return the wanted lines of the services' logs (of all if none is named), and those that come."""

    @abstractmethod
    def endpoints(self) -> Endpoints:
        """Return the addresses, ports and logins of the services."""

    @abstractmethod
    def engines(self) -> dict[str, str]:
        """Return the program behind each service that has a choice of several, e.g. {'minio-datasets': 'rclone'}."""

    @abstractmethod
    def programs(self) -> dict[str, str]:
        """Return the versions of the tier's programs, for people and bug reports; no server is started.

        Raises nothing: what is missing or does not answer has the reason in place of its version, see `known_or_why`.
        """

    @abstractmethod
    def removals(self, services: Sequence[str]) -> list[Removal]:
        """List what `reset` would remove for these services."""

    @abstractmethod
    def remove(self, removals: Sequence[Removal]) -> None:
        """Remove exactly that."""

    @abstractmethod
    def stash(self, removal: Removal, into: Path) -> None:
        """Move storage into the trash while the stack is stopped; afterwards nothing is in its place any more.

        Args:
            removal: what to move.
            into: a private directory that is there and empty. What is kept appears in it whole (by a rename) or not
                at all; what cannot be kept in it is named there, see ELSEWHERE.

        Raises:
            PlatformError: it could not be moved; it is in its place then.
        """

    @abstractmethod
    def unstash(self, removal: Removal, kept: Path) -> None:
        """Bring back what `stash` has put into the directory `kept`, while the stack is stopped.

        Its place is empty; what is left in `kept` is removed by the caller.

        Raises:
            PlatformError: NOT_FOUND when nothing whole is kept; DATA_INCOMPATIBLE; it is still in the trash then.
        """

    @property
    def temporal_storage(self) -> TemporalStorage:
        """Tell where Temporal keeps its state."""
        return TemporalStorage.INSIDE if self.context.settings.light else TemporalStorage.DATABASES

    @property
    def advice(self) -> str:
        """A line about what could be better on this tier, with the next step; '' for none."""
        return ""

    @property
    def mlflow_tables(self) -> str:
        """The version of the tables that this tier's MLflow makes; its image where that is the user's choice."""
        chosen = self.context.settings.text("MLFLOW_IMAGE") if self.from_images else ""
        return chosen or catalog.MLFLOW_TABLES

    @property
    def jobs_kubeconfig(self) -> Path | None:
        """The kubeconfig with which trainings run as Kubernetes Jobs; None where they cannot."""
        return None

    def renew_application(self, _timeout: float | None) -> None:
        """Bring the application to what services were started with, where the tier itself runs it."""
        return

    def observed(self) -> Observed:
        """Return what the monitoring of the running services covers."""
        running = self.endpoints().services
        return Observed(False, tuple(name for name in catalog.OBSERVABILITY if name not in running))

    def stop_services(self, _names: Sequence[str]) -> tuple[str, ...]:
        """Stop these services alone and keep their data; returns those that ran.

        Raises:
            PlatformError: USAGE where services only stop together.
        """
        steps = ("invoke down stops everything",)
        raise PlatformError("USAGE", f"the {self.name} tier stops all its services together", steps=steps)

    def paused(self, _name: str) -> AbstractContextManager[None]:
        """Stop one service for the block; it is ready again afterwards, whatever happened.

        Raises:
            PlatformError: USAGE where no single service can be stopped.
        """
        steps = ("omit --alerts",)
        raise PlatformError("USAGE", f"the {self.name} tier cannot stop a single service", steps=steps)
