"""Addresses of the services and their logins: all that probes, tests and applications may know of a tier."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote, urlsplit

from infra import catalog
from infra.errors import PlatformError
from infra.settings import Settings
from infra.sigv4 import REGION

HOST = "127.0.0.1"
# The .env contract is written for people and says localhost; everything else uses the number (no IPv6 surprises).
CONTRACT_HOST = "localhost"


@dataclass(frozen=True)
class Login:
    """User and password; both may be empty."""

    user: str = ""
    password: str = ""


@dataclass(frozen=True)
class StorePlace:
    """An external S3 service: its URL without a path, the keys for it, the region it signs for."""

    url: str
    login: Login
    region: str = REGION

    @property
    def host(self) -> str:
        """Name or address, without brackets."""
        return urlsplit(self.url).hostname or ""

    @property
    def secure(self) -> bool:
        """Return whether it speaks TLS."""
        return urlsplit(self.url).scheme == "https"

    @property
    def port(self) -> int:
        """Its port."""
        return urlsplit(self.url).port or (443 if self.secure else 80)


@dataclass(frozen=True)
class Endpoints:
    """Ports (by setting name), logins and the services that are expected to answer.

    `passwords` has those of servers without users, by service; `elsewhere` the external object stores, for which no
    server of the platform listens.
    """

    ports: Mapping[str, int]
    postgres: Login
    store: Login
    passwords: Mapping[str, str]
    temporal_namespace: str
    services: tuple[str, ...]
    backends: tuple[str, ...]
    grafana: Login = Login()
    mlflow: Login = Login()
    host: str = HOST
    elsewhere: Mapping[str, StorePlace] = field(default_factory=dict)

    def port(self, service: str, role: str = "") -> int:
        """Return the port number of a service; the first one unless a role is named."""
        entry = catalog.service(service)
        port = entry.port(role) if role else entry.ports[0]
        return self.ports[port.setting]

    def address(self, service: str, role: str = "") -> str:
        """Return `host:port` of a service."""
        if service in self.elsewhere:
            return self.elsewhere[service].url.partition("://")[2]
        return f"{self.host}:{self.port(service, role)}"

    def url(self, service: str, role: str = "") -> str:
        """Return the address with its scheme and without login, as shown to people."""
        if service in self.elsewhere:
            return self.elsewhere[service].url
        entry = catalog.service(service)
        port = entry.port(role) if role else entry.ports[0]
        prefix = f"{port.scheme}://" if port.scheme else ""
        return f"{prefix}{self.host}:{self.ports[port.setting]}"

    def database_url(self, database: str, host: str = "") -> str:
        """Return the libpq URL of a database, with login."""
        user, password = quote(self.postgres.user, safe=""), quote(self.postgres.password, safe="")
        return f"postgresql://{user}:{password}@{host or self.host}:{self.port('postgres')}/{quote(database, safe='')}"

    def password(self, service: str) -> str:
        """Return the password of a server without users; '' where it wants none."""
        return self.passwords.get(service, "")

    def told(self, service: str, role: str, host: str = "") -> str:
        """Return the URL of a port as applications get it: with the password where there is one, Redis' database 0."""
        port, password = catalog.service(service).port(role), self.password(service)
        login = f":{quote(password, safe='')}@" if password else ""
        database = "/0" if port.scheme == "redis" else ""
        return f"{port.scheme}://{login}{host or self.host}:{self.ports[port.setting]}{database}"

    def store_url(self, store: str, host: str = "") -> str:
        """Return the S3 endpoint of an object store (`minio-datasets` or `minio-results`)."""
        if store in self.elsewhere:
            return self.elsewhere[store].url
        return f"http://{host or self.host}:{self.port(store, 'api')}"

    def key_settings(self, store: str) -> tuple[str, str]:
        """Return the names of the settings with the keys of an object store."""
        if store not in self.elsewhere:
            return catalog.STORE_LOGIN
        prefix = catalog.EXTERNAL_STORES[store]
        return f"{prefix}_ACCESS_KEY", f"{prefix}_SECRET_KEY"

    def place(self, store: str) -> StorePlace:
        """Return address and keys of an object store."""
        return self.elsewhere.get(store) or StorePlace(self.store_url(store), self.store)


def build(
    settings: Settings, services: tuple[str, ...], elsewhere: Mapping[str, StorePlace] | None = None
) -> Endpoints:
    """Return the endpoints of a tier that listens on the ports of the settings.

    Args:
        settings: the settings of this run.
        services: names of the services that the tier runs now, or is about to run.
        elsewhere: object stores that are not the tier's.
    """
    return Endpoints(
        ports={n: settings.port(n) for n, s in catalog.SETTINGS.items() if s.kind == "port"},
        postgres=Login(settings.text("POSTGRES_USER"), settings.text("POSTGRES_PASSWORD")),
        store=Login(settings.text("MINIO_ROOT_USER"), settings.text("MINIO_ROOT_PASSWORD")),
        passwords={s.name: settings.text(s.password) for s in catalog.SERVICES if s.password},
        temporal_namespace=settings.text("TEMPORAL_NAMESPACE"),
        services=services,
        backends=_backends(settings.words("OBSERVABILITY_BACKENDS"), services),
        grafana=Login(settings.text("GRAFANA_ADMIN_USER"), settings.text("GRAFANA_ADMIN_PASSWORD")),
        elsewhere=elsewhere or {},
    )


def external(settings: Settings) -> dict[str, StorePlace]:
    """Return the object stores described by the settings S3_...; {} unless PLATFORM_S3_ENGINE is external.

    Raises:
        PlatformError: SETTING_INVALID when an address is missing.
    """
    if settings.text("PLATFORM_S3_ENGINE") != "external":
        return {}
    return {store: _place(settings, prefix) for store, prefix in catalog.EXTERNAL_STORES.items()}


def refuse_external(settings: Settings, tier: str, instead: str) -> None:
    """Refuse object stores elsewhere on a tier that only runs its own: using others than were asked for is worse.

    Raises:
        PlatformError: SETTING_INVALID.
    """
    if settings.text("PLATFORM_S3_ENGINE") == "external":
        raise PlatformError(
            "SETTING_INVALID",
            f"PLATFORM_S3_ENGINE=external is not supported on the {tier} tier",
            why=f"it comes from {settings.origin('PLATFORM_S3_ENGINE')}",
            steps=(instead, "or use --tier compose, or set PLATFORM_S3_ENGINE=silo"),
        )


def _place(settings: Settings, prefix: str) -> StorePlace:
    url = settings.text(f"{prefix}_ENDPOINT").rstrip("/")
    if not url:
        raise PlatformError(
            "SETTING_INVALID",
            f"{prefix}_ENDPOINT is not set: where is the S3 service?",
            why=f"PLATFORM_S3_ENGINE is external (from {settings.origin('PLATFORM_S3_ENGINE')})",
            steps=(f"set {prefix}_ENDPOINT, e.g. to https://s3.example.com", "or set PLATFORM_S3_ENGINE=silo"),
        )
    user = settings.text(f"{prefix}_ACCESS_KEY") or settings.text("MINIO_ROOT_USER")
    password = settings.text(f"{prefix}_SECRET_KEY") or settings.text("MINIO_ROOT_PASSWORD")
    return StorePlace(url, Login(user, password), settings.text("S3_REGION"))


def _backends(chosen: tuple[str, ...], services: tuple[str, ...]) -> tuple[str, ...]:
    return chosen or ("database", *(name for name in ("mlflow", "clearml") if name in services))


def absent(endpoints: Endpoints) -> dict[str, tuple[str, ...]]:
    """Return the observability services that do not run, each with its names in the contract, if it has any."""
    return {name: names for name, names in catalog.OPTIONAL_NAMES.items() if name not in endpoints.services}


def contract(endpoints: Endpoints) -> dict[str, str]:
    """Return the `.env` contract for applications: the names of `catalog.CONTRACT_NAMES`, without those of `absent`.

    An S3 service elsewhere that signs for another region adds AWS_DEFAULT_REGION, which every AWS SDK reads; an MLflow
    that wants a login adds `catalog.MLFLOW_LOGIN`, which its clients read.
    """
    host = CONTRACT_HOST if endpoints.host == HOST else endpoints.host
    datasets, results = (endpoints.place(store).login for store in ("minio-datasets", "minio-results"))
    values = {
        "DATABASE_URL": endpoints.database_url("platform", host),
        "USER_DATABASE_URL": endpoints.database_url("users", host),
        "TEMPORAL_HOST": f"{host}:{endpoints.port('temporal')}",
        "TEMPORAL_NAMESPACE": endpoints.temporal_namespace,
        "EXTERNAL_STORAGE_ENDPOINT": endpoints.store_url("minio-datasets", host),
        "EXTERNAL_STORAGE_ACCESS_KEY": datasets.user,
        "EXTERNAL_STORAGE_SECRET_KEY": datasets.password,
        "INTERNAL_STORAGE_ENDPOINT": endpoints.store_url("minio-results", host),
        "INTERNAL_STORAGE_ACCESS_KEY": results.user,
        "INTERNAL_STORAGE_SECRET_KEY": results.password,
        "OBSERVABILITY_BACKENDS": ",".join(endpoints.backends),
    }
    values |= {
        variable.name: endpoints.told(s.name, variable.role, host)
        for s in catalog.SERVICES
        for variable in s.contract
        if variable.role
    }
    left_out = {name for names in absent(endpoints).values() for name in names}
    values = {name: values[name] for name in catalog.CONTRACT_NAMES if name not in left_out}
    region = endpoints.place("minio-results").region
    values |= {"AWS_DEFAULT_REGION": region} if region != REGION else {}
    return values | _mlflow_login(endpoints)


def mlflow_login(settings: Settings) -> Login:
    """Return the login that MLflow wants on tiers whose MLflow has one; without a password it wants none."""
    return Login("admin", settings.text("MLFLOW_ADMIN_PASSWORD"))


def _mlflow_login(endpoints: Endpoints) -> dict[str, str]:
    login = endpoints.mlflow
    wanted = "mlflow" in endpoints.services and login.password
    return dict(zip(catalog.MLFLOW_LOGIN, (login.user, login.password), strict=True)) if wanted else {}


STORES: Mapping[str, str] = {"datasets": "minio-datasets", "results": "minio-results"}
"""Name that people give an object store -> the service."""


def familiar(endpoints: Endpoints, store: str = "datasets") -> dict[str, str]:
    """Return the names of `catalog.FAMILIAR_NAMES`, which SDKs and tools read by themselves.

    Args:
        store: the object store that AWS_* is about, a key of STORES.
    """
    host = CONTRACT_HOST if endpoints.host == HOST else endpoints.host
    place = endpoints.place(STORES[store])
    values = {
        "AWS_ENDPOINT_URL_S3": endpoints.store_url(STORES[store], host),
        "AWS_ACCESS_KEY_ID": place.login.user,
        "AWS_SECRET_ACCESS_KEY": place.login.password,
        "AWS_REGION": place.region,
        "PGHOST": host,
        "PGPORT": str(endpoints.port("postgres")),
        "PGUSER": endpoints.postgres.user,
        "PGPASSWORD": endpoints.postgres.password,
        "PGDATABASE": "platform",
        "LABELER_DATABASE_URL": endpoints.database_url("labeler", host),
        "TEMPORAL_ADDRESS": f"{host}:{endpoints.port('temporal')}",
        **catalog.MLFLOW_THROUGH_SERVER,
    }
    return values | {f"BUCKET_{b.name.upper().replace('-', '_')}": b.name for b in catalog.BUCKETS}


def store_comments(store: str = "datasets") -> tuple[str, ...]:
    """Return comments that say which object store each group of variables is about."""
    held = {name: ", ".join(b.name for b in catalog.BUCKETS if b.store == s) for name, s in STORES.items()}
    other = next(name for name in STORES if name != store)
    return (
        f"# EXTERNAL_STORAGE_* is the store of data sets (bucket {held['datasets']})",
        f"# INTERNAL_STORAGE_* is the store of results (buckets {held['results']})",
        f"# AWS_* is the store of {_PEOPLE[store]}; for the other one: invoke env --store {other}",
    )


_PEOPLE = {"datasets": "data sets", "results": "results"}


def profiles(endpoints: Endpoints) -> str:
    """Return a configuration file of AWS tools with a profile for each object store (AWS_CONFIG_FILE, AWS_PROFILE)."""
    parts = []
    for name in STORES:
        found = familiar(endpoints, name)
        parts.append(
            f"[profile {name}]\nendpoint_url = {found['AWS_ENDPOINT_URL_S3']}\nregion = {found['AWS_REGION']}\n"
            f"aws_access_key_id = {found['AWS_ACCESS_KEY_ID']}\n"
            f"aws_secret_access_key = {found['AWS_SECRET_ACCESS_KEY']}\ns3 =\n    addressing_style = path\n"
        )
    return "\n".join(parts)
