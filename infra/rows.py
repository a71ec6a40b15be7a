"""The kinds of rows that the catalogue consists of. Data only."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Port:
    """A port on 127.0.0.1: its role, the setting that moves it, its default number and URL scheme."""

    role: str
    setting: str
    default: int
    scheme: str = ""


@dataclass(frozen=True)
class Question:
    """The question that proves that a service works: a kind of `infra.probes`, of which port, at which HTTP path."""

    kind: str = "http"
    role: str = ""
    path: str = "/"


@dataclass(frozen=True)
class Part:
    """A container of a service: its name in the Compose files, the setting of its image, its place in the chart.

    `section` is where the values of the service's release speak of it ('' for their top, None for nowhere); `volume`:
    whether that section has a volume; `optional`: PLATFORM_LEAVE_OUT may name it; `only`: the engine behind S3, or
    `full` or `light`, without which it is not there.
    """

    name: str
    image: str
    section: str | None = None
    volume: bool = False
    optional: bool = False
    only: str = ""


@dataclass(frozen=True)
class Variable:
    """A line of the `.env` contract: its name, the port whose URL it is, whether a login is in it.

    The URL of a server that has a `password` carries it. Without a `role` `infra.endpoints.contract` knows how to make
    it.
    """

    name: str
    role: str = ""
    secret: bool = False


@dataclass(frozen=True)
class Service:
    """One service of the platform, on any tier: all that tiers and documents derive from.

    `login` names the settings that hold user and password, `password` that of a server that knows no users; `secrets`
    those that nobody may see, `generated` those of them that are random in a private stack; `needs` the services
    that must be ready first; `budget` is the time in seconds that it may take to become ready on the native tier,
    downloads not counted; `program` what runs it there (a key of `infra.tiers.providers.SERVERS`); `release` its Helm
    release, `values` what that gets from the settings, as pairs of a path and a setting.
    """

    name: str
    title: str
    overlay: str
    ports: tuple[Port, ...]
    login: tuple[str, str] | None = None
    password: str = ""
    needs: tuple[str, ...] = ()
    budget: float = 60.0
    question: Question = Question()
    program: str = ""
    parts: tuple[Part, ...] = ()
    release: str = ""
    values: tuple[tuple[str, str], ...] = ()
    contract: tuple[Variable, ...] = ()
    secrets: tuple[str, ...] = ()
    generated: tuple[str, ...] = ()

    @property
    def keeps(self) -> bool:
        """Return whether it keeps data on the disk: one of its containers has a volume."""
        return any(part.volume for part in self.parts)

    def port(self, role: str) -> Port:
        """Return the port with that role; KeyError when there is none."""
        for port in self.ports:
            if port.role == role:
                return port
        raise KeyError(f"{self.name} has no {role} port")


@dataclass(frozen=True)
class Database:
    """A database of the PostgreSQL instance."""

    name: str
    purpose: str


@dataclass(frozen=True)
class Bucket:
    """A bucket and the object store (a service name) that holds it."""

    name: str
    store: str


@dataclass(frozen=True)
class Setting:
    """A value that users may change: kind is port, count, text, secret, path, program, choice, list or origins.

    `empty`: whether it may be empty although its default is not. `span`: how many ports in a row a port stands for;
    `far`: the distance from it to one more port, 0 for none. `check`: what its value must be like besides, by names
    of `infra.setting_rules.RULES`.
    """

    name: str
    default: str
    kind: str
    help: str
    choices: tuple[str, ...] = ()
    empty: bool = False
    span: int = 1
    far: int = 0
    check: tuple[str, ...] = ()

    def ports(self, first: int) -> tuple[int, ...]:
        """Return all ports that the setting stands for, where its value is `first`."""
        return (*range(first, first + self.span), *([first + self.far] if self.far else []))


@dataclass(frozen=True)
class Tool:
    """A program that must be installed for a tier: the oldest version that works (major, minor) and where it is."""

    name: str
    minimum: tuple[int, int]
    install: str


@dataclass(frozen=True)
class Gap:
    """Something that a tier, or an engine on it, cannot do, and why; shown as such, never passed in silence."""

    where: str
    feature: str
    reason: str
    instead: str = ""


@dataclass(frozen=True)
class ClusterPort:
    """The place of a port in a Kubernetes cluster: the setting that moves it, Service, namespace, port, NodePort.

    kind/cluster.yaml maps the NodePort to the same number of 127.0.0.1; production has none.
    """

    setting: str
    name: str
    namespace: str
    port: int
    node_port: int


@dataclass(frozen=True)
class Chart:
    """A Helm release, its namespace and its chart: the folder helm/<release>, or an upstream one (`source`).

    `source` is the address of a chart repository, or of the chart itself where it begins with oci://. An upstream
    chart takes its values from helm/<release>. `needs` are releases that must work before this one can be ready.
    """

    release: str
    namespace: str
    overlay: str
    needs: tuple[str, ...] = ()
    source: str = ""
    chart: str = ""
    version: str = ""
    values: tuple[tuple[str, str], ...] = ()
    """Values from the settings of a release that runs no service of the catalogue, as `Service.values`."""
    image: tuple[str, str] = ("", "")
    """Of an upstream chart: where its values name repository and tag, and the setting that replaces the image."""
