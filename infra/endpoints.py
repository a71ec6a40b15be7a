"""Where the services are and how to log in: all that probes, tests and applications may know of a tier."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

from infra import catalog
from infra.settings import Settings

HOST = "127.0.0.1"
# The .env contract is written for people and says localhost; everything else uses the number (no IPv6 surprises).
CONTRACT_HOST = "localhost"


@dataclass(frozen=True)
class Login:
    """User and password; both may be empty."""

    user: str = ""
    password: str = ""


@dataclass(frozen=True)
class Endpoints:
    """Ports (by setting name), logins and the services that are expected to answer."""

    ports: Mapping[str, int]
    postgres: Login
    store: Login
    redis_password: str
    temporal_namespace: str
    services: tuple[str, ...]
    backends: tuple[str, ...]
    grafana: Login = Login()
    host: str = HOST

    def port(self, service: str, role: str = "") -> int:
        """Port number of a service; the first one unless a role is named."""
        entry = catalog.service(service)
        port = entry.port(role) if role else entry.ports[0]
        return self.ports[port.setting]

    def address(self, service: str, role: str = "") -> str:
        """`host:port` of a service."""
        return f"{self.host}:{self.port(service, role)}"

    def url(self, service: str, role: str = "") -> str:
        """Address with its scheme and without login, as shown to people."""
        entry = catalog.service(service)
        port = entry.port(role) if role else entry.ports[0]
        prefix = f"{port.scheme}://" if port.scheme else ""
        return f"{prefix}{self.host}:{self.ports[port.setting]}"

    def database_url(self, database: str, host: str = "") -> str:
        """libpq URL of a database, with login."""
        user, password = quote(self.postgres.user, safe=""), quote(self.postgres.password, safe="")
        return f"postgresql://{user}:{password}@{host or self.host}:{self.port('postgres')}/{database}"

    def redis_url(self, host: str = "") -> str:
        """Redis URL of database 0, with the password where there is one."""
        login = f":{quote(self.redis_password, safe='')}@" if self.redis_password else ""
        return f"redis://{login}{host or self.host}:{self.port('redis')}/0"

    def store_url(self, store: str, host: str = "") -> str:
        """S3 endpoint of an object store (`minio-datasets` or `minio-results`)."""
        return f"http://{host or self.host}:{self.port(store, 'api')}"


def build(settings: Settings, services: tuple[str, ...]) -> Endpoints:
    """Endpoints of a tier that listens on the ports of the settings.

    Args:
        settings: the settings of this run.
        services: names of the services that the tier runs now, or is about to run.
    """
    return Endpoints(
        ports={n: settings.port(n) for n, s in catalog.SETTINGS.items() if s.kind == "port"},
        postgres=Login(settings.text("POSTGRES_USER"), settings.text("POSTGRES_PASSWORD")),
        store=Login(settings.text("MINIO_ROOT_USER"), settings.text("MINIO_ROOT_PASSWORD")),
        redis_password=settings.text("REDIS_PASSWORD"),
        temporal_namespace=settings.text("TEMPORAL_NAMESPACE"),
        services=services,
        backends=_backends(settings.text("OBSERVABILITY_BACKENDS"), services),
        grafana=Login(settings.text("GRAFANA_ADMIN_USER"), settings.text("GRAFANA_ADMIN_PASSWORD")),
    )


def _backends(chosen: str, services: tuple[str, ...]) -> tuple[str, ...]:
    if chosen:
        return tuple(w.strip() for w in chosen.split(",") if w.strip())
    return ("database", *(name for name in ("mlflow", "clearml") if name in services))


def contract(endpoints: Endpoints) -> dict[str, str]:
    """The `.env` contract for applications: exactly the names of `catalog.CONTRACT_NAMES`."""
    host = CONTRACT_HOST if endpoints.host == HOST else endpoints.host
    store = endpoints.store
    web = {
        "CLEARML_API_HOST": ("clearml", "api"),
        "CLEARML_WEB_HOST": ("clearml", "web"),
        "CLEARML_FILES_HOST": ("clearml", "files"),
        "MLFLOW_TRACKING_URI": ("mlflow", "web"),
    }
    values = {
        "DATABASE_URL": endpoints.database_url("platform", host),
        "USER_DATABASE_URL": endpoints.database_url("users", host),
        "REDIS_URL": endpoints.redis_url(host),
        "TEMPORAL_HOST": f"{host}:{endpoints.port('temporal')}",
        "TEMPORAL_NAMESPACE": endpoints.temporal_namespace,
        "EXTERNAL_STORAGE_ENDPOINT": endpoints.store_url("minio-datasets", host),
        "EXTERNAL_STORAGE_ACCESS_KEY": store.user,
        "EXTERNAL_STORAGE_SECRET_KEY": store.password,
        "INTERNAL_STORAGE_ENDPOINT": endpoints.store_url("minio-results", host),
        "INTERNAL_STORAGE_ACCESS_KEY": store.user,
        "INTERNAL_STORAGE_SECRET_KEY": store.password,
        "OBSERVABILITY_BACKENDS": ",".join(endpoints.backends),
    }
    return values | {name: f"http://{host}:{endpoints.port(*where)}" for name, where in web.items()}
