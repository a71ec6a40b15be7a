"""The services of the native tier as the supervisor's specifications: pure functions of settings and programs."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from infra import catalog, health, rows
from infra.endpoints import Endpoints, Login
from infra.ports import Claim
from infra.settings import Settings
from infra.supervision.client import Spec, passed
from infra.supervision.process import WINDOWS
from infra.tiers import providers
from infra.tiers.native import object_store, postgres
from infra.tiers.native.postgres import PostgresPlace
from infra.tiers.providers import Program

MLFLOW_SERVER = Path(__file__).with_name("mlflow_server.py")
TEMPORAL_MEMORY = {"GOGC": "50"}
"""After 40 workflows 83 MB beside the program's own pages instead of 101, with the same CPU (7.2 s and 7.3 s)."""
MLFLOW_HOSTS = ",".join(f"{name},{name}:*" for name in ("localhost", "127.0.0.1", "host.docker.internal"))
"""Values of Host that MLflow accepts; its own list has private networks as `10.*`, which 10.evil.example fits too."""


@dataclass(frozen=True)
class Programs:
    """The programs that run the services on this machine."""

    postgres: PostgresPlace
    found: Mapping[str, Program]
    """By `Service.program`, those of the core."""

    @property
    def store(self) -> Program:
        """That of the object stores."""
        return self.found["object store"]


def programs(settings: Settings, home: Path, stack_name: str) -> Programs:
    """Find every program of the core. Raises PlatformError PROGRAM_MISSING or SETTING_INVALID."""
    recorded = object_store.recorded(home)
    names = dict.fromkeys(catalog.service(name).program for name in CORE)
    found = {name: program for name in names if (program := providers.SERVERS[name].find(settings, recorded))}
    return Programs(postgres.place(settings, home, found["postgres"], stack_name), found)


@dataclass(frozen=True)
class Builder:
    """Makes specifications; nothing is written or started."""

    settings: Settings
    endpoints: Endpoints
    home: Path
    programs: Programs

    def core(self) -> list[Spec]:
        """Return PostgreSQL, Redis, Temporal and the two object stores; independent of each other."""
        return [MAKERS[catalog.service(name).program](self, name) for name in CORE]

    def data(self, service: str) -> Path:
        """Return the data directory of a service."""
        return self.programs.postgres.data if service == "postgres" else self.home / "data" / service

    def data_of(self, service: str) -> list[Path]:
        """Return every directory with data of a service."""
        versions = [self.home / "data" / f"{service}-versions"] if service in stores() else []
        return [self.data(service), *versions]

    def log(self, service: str) -> Path:
        """Return the log file of a service."""
        return self.home / "logs" / f"{service}.log"

    def _spec(self, service: str, argv: Sequence[str], cwd: Path, **more: Any) -> Spec:
        question = self.question(service)
        entry = catalog.service(service)
        env = {**passed(self.settings), **more.pop("env", {})}
        facts = {"probe": question, "needs": list(entry.needs), "budget": entry.budget, "env": env, **more}
        return Spec(name=service, argv=list(argv), cwd=str(cwd), log=str(self.log(service)), **facts)

    def question(self, service: str) -> dict[str, Any]:
        """Return the probe of a service; PostgreSQL is asked apart from our databases, which are made later."""
        return health.probe(self.endpoints, service, self.programs.postgres.program("psql"), database="")

    def run_dir(self, service: str) -> Path:
        """Return a working directory of the service's own, by which a lost process is recognised."""
        return self.home / "run" / service

    def postgres(self, service: str = "postgres") -> Spec:
        """Return the database server; SIGINT is its fast shutdown."""
        where = self.programs.postgres
        return self._spec(
            service,
            postgres.server_argv(
                where,
                self.endpoints.port(service),
                self.endpoints.host,
                self.settings.text("POSTGRES_MAX_CONNECTIONS"),
            ),
            where.data,
            user=list(where.user) if where.user else None,
            stop_signal="INT",
            stop_argv=postgres.stop_argv(where, WINDOWS),
            grace=30.0,
        )

    def redis(self, service: str = "redis") -> Spec:
        """Specify Valkey, with an append-only file where it keeps data; its password is in a private file."""
        data = self.data(service)  # also its working directory: it changes there by itself
        flags = ["--port", str(self.endpoints.port(service)), "--bind", self.endpoints.host, "--dir", str(data)]
        durable = REDIS_KEEPS if catalog.service(service).keeps else REDIS_FORGETS
        secret = [str(self.config(service))] if self.endpoints.password(service) else []
        argv = [str(self.programs.found["redis"].path), *secret, *flags, *durable]
        # The password is not on the command line: this makes a new one a reason to restart all the same.
        mark = hashlib.sha256(self.endpoints.password(service).encode()).hexdigest()[:8]
        return self._spec(service, argv, data, env={"REDIS_PASSWORD_MARK": mark})

    def config(self, service: str) -> Path:
        """Return the private file that holds the password of a server without users."""
        return self.home / f"{service}.conf"

    def configs(self) -> dict[Path, str]:
        """Return what has to be in these files: one for each Redis that wants a password."""
        quoted = {
            name: password.replace("\\", "\\\\").replace('"', '\\"')
            for name, password in self.endpoints.passwords.items()
            if password and catalog.service(name).program == "redis"
        }
        return {self.config(name): f'requirepass "{password}"\n' for name, password in quoted.items()}

    def temporal(self, service: str = "temporal") -> Spec:
        """Return the development server with a database file, synchronous=2 (every commit reaches the disk)."""
        ends = self.endpoints
        ports = ["--port", str(ends.port(service)), "--ui-port", str(ends.port(service, "ui"))]
        metrics = ["--metrics-port", str(self.settings.port(catalog.TEMPORAL_METRICS_PORT.setting))]
        data = self.data(service) / "temporal.db"
        return self._spec(
            service,
            [
                *[
                    str(self.programs.found["temporal"].path),
                    "server",
                    "start-dev",
                    "--ip",
                    ends.host,
                    "--ui-ip",
                    ends.host,
                ],
                *[*ports, *metrics, "--db-filename", str(data), "--namespace", ends.temporal_namespace],
                *["--sqlite-pragma", "synchronous=2", "--log-format", "json", "--log-level", "warn"],
            ],
            self.run_dir(service),
            env=TEMPORAL_MEMORY,
        )

    def store_plan(self, service: str) -> object_store.StorePlan:
        """Plan one object store."""
        return object_store.StorePlan(
            service,
            self.endpoints.host,
            self.endpoints.port(service, "api"),
            self.endpoints.port(service, "console"),
            self.endpoints.store.user,
            self.endpoints.store.password,
            self.data(service),
            self.home / "cache" / service,
            self.settings.port(catalog.STORE_PORTS[service].setting),
            object_store.signing_key(self.home),
            object_store.certificate_file(self.home),
            self.settings.origins(),
        )

    def store(self, service: str) -> Spec:
        """Return one object store; 15 s of grace, since versitygw waits for requests that are under way."""
        command = object_store.command(self.programs.store, self.store_plan(service))
        return self._spec(service, command.argv, self.run_dir(service), env=command.env, grace=15.0)

    def directories(self, service: str) -> list[Path]:
        """Return the directories that a service expects to find."""
        common = [self.run_dir(service), self.log(service).parent]
        if service in stores():
            return [*common, *object_store.directories(self.programs.store, self.store_plan(service))]
        return common if service == "postgres" else [*common, self.data(service)]

    def mlflow(self, python: Path) -> Spec:
        """Return MLflow: tables in a schema of its own, artifacts in the results store."""
        ends = self.endpoints
        store = f"{ends.database_url('platform')}?options=-csearch_path%3D{catalog.MLFLOW_SCHEMA}"
        env = {
            "MLFLOW_SERVER_STORE": store.replace("postgresql://", "postgresql+psycopg2://", 1),
            "MLFLOW_SERVER_ARTIFACTS": "s3://mlflow-artifacts",
            "MLFLOW_SERVER_METRICS": str(self.run_dir("mlflow") / "metrics"),
            "MLFLOW_SERVER_HOST": ends.host,
            "MLFLOW_SERVER_PORT": str(ends.port("mlflow")),
            "MLFLOW_SERVER_ALLOWED_HOSTS": MLFLOW_HOSTS,
            "MLFLOW_S3_ENDPOINT_URL": ends.store_url("minio-results"),
            "AWS_ACCESS_KEY_ID": ends.store.user,
            "AWS_SECRET_ACCESS_KEY": ends.store.password,
            "AWS_DEFAULT_REGION": "us-east-1",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "DO_NOT_TRACK": "1",
            "NO_PROXY": ends.host,  # its S3 client would ask a company's proxy for our own store
            "no_proxy": ends.host,
            "MLFLOW_MODEL_CATALOG_URI": "",  # else a page of its UI waits for a server on the internet
            **self._mlflow_login(),
        }
        return self._spec("mlflow", [str(python), str(MLFLOW_SERVER)], self.run_dir("mlflow"), env=env)

    def _mlflow_login(self) -> dict[str, str]:
        """Return what makes it want a login: nothing where there is no password."""
        login = self.endpoints.mlflow
        key = hmac.new(object_store.signing_key(self.home).encode(), b"mlflow", hashlib.sha256).hexdigest()
        names = ("MLFLOW_AUTH_ADMIN_USERNAME", "MLFLOW_AUTH_ADMIN_PASSWORD", "MLFLOW_FLASK_SERVER_SECRET_KEY")
        return dict(zip(names, (login.user, login.password, key), strict=True)) if login.password else {}

    def prometheus(self, program: Program, config: str) -> Spec:
        """Return Prometheus, scraping what this tier's services expose; another configuration restarts it."""
        data = self.data("prometheus")
        address = self.endpoints.address("prometheus")
        flags = [f"--config.file={self.prometheus_config}", f"--storage.tsdb.path={data}"]
        argv = [str(program.path), *flags, f"--web.listen-address={address}"]
        mark = hashlib.sha256(config.encode()).hexdigest()[:8]
        return self._spec("prometheus", argv, self.run_dir("prometheus"), env={"PROMETHEUS_CONFIG_MARK": mark})

    @property
    def prometheus_config(self) -> Path:
        """Prometheus' configuration, written at each start."""
        return self.home / "prometheus.yml"

    def targets(self, services: Sequence[str]) -> dict[str, str]:
        """Return the services among these that expose metrics, each with the URL of its metrics."""
        ends, found = self.endpoints, dict[str, str]()
        for name in services:
            if name in stores():
                path = STORE_METRICS.get(self.programs.store.engine)
                port = self.settings.port(catalog.STORE_PORTS[name].setting) + METRICS_PORT
                where = f"{ends.host}:{port}" if self.programs.store.engine == "weed" else ends.address(name)
                found |= {name: f"http://{where}{path}"} if path else {}
        metrics = self.settings.port(catalog.TEMPORAL_METRICS_PORT.setting)
        own = {"prometheus": ends.address("prometheus"), "temporal": f"{ends.host}:{metrics}"}
        own["mlflow"] = ends.address("mlflow")
        return found | {name: f"http://{where}/metrics" for name, where in own.items() if name in services}

    def metrics_logins(self) -> dict[str, Login]:
        """Return the logins that services want from those who ask for their metrics."""
        return {"mlflow": self.endpoints.mlflow} if self.endpoints.mlflow.password else {}

    def claims(self, services: Sequence[str]) -> list[Claim]:
        """Return the ports that these services are going to listen on."""
        claims = [Claim(s, p.setting, self.endpoints.ports[p.setting]) for s in services for p in self._listens(s)]
        if "temporal" in services:
            metrics = catalog.TEMPORAL_METRICS_PORT
            claims.append(Claim("temporal", metrics.setting, self.settings.port(metrics.setting)))
        if self.programs.store.engine == "weed":
            claims += [claim for service in services if service in stores() for claim in self._internal(service)]
        return claims

    def _internal(self, service: str) -> list[Claim]:
        setting = catalog.STORE_PORTS[service].setting
        numbers = catalog.SETTINGS[setting].ports(self.settings.port(setting))
        return [Claim(service, setting, number) for number in numbers]

    def _listens(self, service: str) -> tuple[rows.Port, ...]:
        lacking = {gap.feature for gap in catalog.gaps(self.programs.store.engine)}
        ports = catalog.service(service).ports
        if service in stores() and "s3-console" in lacking:
            return tuple(p for p in ports if p.role != "console")
        return ports


REDIS_KEEPS = ("--appendonly", "yes", "--appendfsync", "everysec")
REDIS_FORGETS = ("--appendonly", "no", "--save", "")

MAKERS: Mapping[str, Callable[[Builder, str], Spec]] = {
    "postgres": Builder.postgres,
    "redis": Builder.redis,
    "temporal": Builder.temporal,
    "object store": Builder.store,
}
"""By the program that runs it (`Service.program`): the function that specifies a service of the core."""
CORE = tuple(s.name for s in catalog.SERVICES if s.overlay == catalog.OVERLAY_CORE and s.program in MAKERS)
OVERLAY = ("mlflow", "prometheus")
"""Observability of this tier; each needs something made before (`infra.tiers.native.tier`)."""


STORE_METRICS: Mapping[str, str] = {
    "minio": "/minio/v2/metrics/cluster",
    "silo": "/minio/v2/metrics/cluster",
    "weed": "/metrics",
}
"""The path of an object store's metrics, by its engine; the others expose none."""
METRICS_PORT = object_store.WEED_PORTS["metricsPort"]
"""The number of SeaweedFS' port for them within the block of its internal ports."""


def prometheus_yaml(targets: Mapping[str, str], logins: Mapping[str, Login]) -> str:
    """Return the scrape configuration for targets (name -> URL), with the logins that some of them want."""
    lines = ["global: {scrape_interval: 15s}", "scrape_configs:"]
    for name, url in targets.items():
        parts = urlsplit(url)
        where = f"metrics_path: {parts.path}, static_configs: [{{targets: ['{parts.netloc}']}}]"
        login = json.dumps({"username": logins[name].user, "password": logins[name].password}) if name in logins else ""
        lines.append(f"  - {{job_name: {name}, {where}{f', basic_auth: {login}' if login else ''}}}")
    return "\n".join(lines) + "\n"


def stores() -> tuple[str, ...]:
    """Return the object stores."""
    return tuple(s.name for s in catalog.SERVICES if s.login == catalog.STORE_LOGIN)
