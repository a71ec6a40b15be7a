"""The native tier: the platform as plain processes, from wheels, without Docker."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from infra import catalog, endpoints, ports, private, stack
from infra.endpoints import Endpoints
from infra.errors import PlatformError
from infra.provision import ensure
from infra.settings import Settings
from infra.supervision import client as supervise
from infra.tiers import providers
from infra.tiers.base import Availability, Check, Context, LogLine, Removal, ServiceStatus, known_or_why
from infra.tiers.native import checks, mlflow_env, object_store, postgres, services, trash
from infra.tiers.native import logs as native_logs
from infra.tiers.native import status as native_status
from infra.tiers.native.services import Builder
from infra.waiting import Item, Wait

NAME = "native"
STORES = ("postgres", *(s.name for s in catalog.SERVICES if s.login == catalog.STORE_LOGIN))
"""What holds the databases and buckets."""


@dataclass
class Native:
    """The verbs of `infra.tiers.base.Tier` on plain processes."""

    name: str = NAME
    _builders: dict[Path, Builder] = field(default_factory=dict)

    def available(self, settings: Settings) -> Availability:
        """Whether every program is there."""
        try:
            services.programs(settings, settings.state_dir / NAME, "")
        except PlatformError as error:
            return Availability(False, f"{error.what}; {error.why}".removesuffix("; "), error.steps)
        return Availability(True, "needs nothing but this Python environment")

    def home(self, context: Context) -> Path:
        """State, data and logs of this tier."""
        return context.stack.tier_home(NAME)

    def builder(self, context: Context) -> Builder:
        """The specifications for this run."""
        home = self.home(context)
        if home not in self._builders:
            found = services.programs(context.settings, home, context.stack.name)
            self._builders[home] = Builder(context.settings, self.endpoints(context), home, found)
        return self._builders[home]

    def running(self, context: Context) -> bool:
        """Whether a supervisor, or a service that lost its supervisor, runs."""
        home = self._mended(context)
        return supervise.running(home) or bool(supervise.survivors(home))

    def _mended(self, context: Context) -> Path:
        """The home, with the list of wanted services readable."""
        home = self.home(context)
        if supervise.wish(home) is None and (home / supervise.DESIRED).exists():
            supervise.mend(home, self.builder(context).core())
        return home

    def endpoints(self, context: Context) -> Endpoints:
        """127.0.0.1 and the ports of the settings; the services are those that are wanted, core if none is."""
        wanted = tuple(s.name for s in supervise.desired(self.home(context)))
        return endpoints.build(context.settings, wanted or services.CORE)

    def engines(self, context: Context) -> dict[str, str]:
        """The program behind each service that could be another."""
        store = self.builder(context).programs.store.engine
        return dict.fromkeys(("minio-datasets", "minio-results"), store)

    def programs(self, context: Context) -> dict[str, str]:
        """The servers: which program, its version, and where it was found."""
        settings, home = context.settings, self.home(context)
        return {
            "PostgreSQL server": known_or_why(lambda: providers.describe(providers.postgres_server(settings))),
            "Redis server": known_or_why(lambda: providers.describe(providers.redis_server(settings))),
            "Temporal server": known_or_why(lambda: providers.describe(providers.temporal_cli(settings))),
            "S3 server": known_or_why(
                lambda: providers.describe(providers.s3_server(settings, object_store.recorded(home)))
            ),
            "Prometheus server": known_or_why(lambda: providers.describe(providers.prometheus(settings))),
        }

    def selection(self, context: Context, obs: bool, only: Sequence[str]) -> tuple[str, ...]:
        """The named services and what they need, or else the core (and on `obs` the overlay); and what runs now."""
        overlay = ["mlflow", *(["prometheus"] if providers.prometheus(context.settings) else [])]
        wanted = set(catalog.with_needs(only)) if only else {*services.CORE, *(overlay if obs else ())}
        wanted |= {s.name for s in supervise.survivors(self.home(context))}
        return tuple(s.name for s in catalog.offered(NAME) if s.name in wanted)

    def preflight(self, context: Context, names: Sequence[str]) -> list[Check]:
        """Programs, data version, ports, disk and memory."""
        endpoints.refuse_external(context.settings, NAME, "remove that setting: the stores of this machine are used")
        builder = self.builder(context)
        postgres.check_version(builder.programs.postgres, builder.programs.postgres_found)
        origin = context.settings.origin("PLATFORM_S3_SERVER")
        object_store.check_layout(builder.home, builder.programs.store, origin)
        found = checks.programs(builder.programs)
        claims = self._claims(self._mended(context), builder, names)
        found += checks.ports(ports.conflicts(builder.endpoints.host, claims), context.stack.home)
        return [*found, checks.disk(context.stack.home), checks.memory("mlflow" in names)]

    def _claims(self, home: Path, builder: Builder, names: Sequence[str]) -> list[ports.Claim]:
        """The ports that are wanted and that our own services do not hold already."""
        alive = {s.name: s for s in supervise.survivors(home)}
        argv = {s.name: s.argv for s in supervise.desired(home)}
        moving = {s.name for s in builder.core() if s.name in alive and argv.get(s.name) != s.argv}
        held = {port for name in moving for port in ports.listening(alive[name].pid or 0)}
        claims = builder.claims([n for n in names if n not in alive or n in moving])
        return [claim for claim in claims if claim.port not in held]

    def start(self, context: Context, names: Sequence[str], timeout: float | None) -> None:
        """Start what is missing; a service that already runs as wanted is left alone."""
        builder, home = self.builder(context), self.home(context)
        self._prepare(builder, names)
        core = [s for s in builder.core() if s.name in names]
        overlay = [n for n in names if n not in services.CORE]
        running = [s for s in supervise.desired(home) if s.name in overlay]
        fresh = "postgres" in names and not builder.programs.postgres.initialised
        if fresh:
            ensure.preload()
            supervise.ensure(home, [s for s in core if s.name != "postgres"])
        if "postgres" in names:
            self._make_databases(context, builder)
        supervise.ensure(home, [*core, *running])
        wanted = endpoints.build(context.settings, tuple(names))
        if fresh:  # databases and buckets are made while the others still start
            self.wait(context, [s.name for s in core if s.name in STORES], timeout)
            ensure.everything(wanted)
        self.wait(context, [s.name for s in core], timeout)
        if not fresh and set(overlay) - {s.name for s in running}:
            ensure.everything(wanted)
        if overlay:
            supervise.ensure(home, [*core, *self._overlay(context, overlay)])
            self.wait(context, (), timeout)
        self._builders.clear()

    def _make_databases(self, context: Context, builder: Builder) -> None:
        where, login = builder.programs.postgres, builder.endpoints.postgres
        postgres.install(where, builder.programs.postgres_found)
        if not where.initialised:
            context.console.say("  making the databases' directory")
            postgres.initialise(where, builder.home, login.user, login.password)
        postgres.forget_recycled_pid(where)

    def _overlay(self, context: Context, names: Sequence[str]) -> list[supervise.Spec]:
        builder, specs = self.builder(context), []
        if "mlflow" in names:
            specs.append(builder.mlflow(mlflow_env.ensure(context.settings.root, context.console)))
        program = providers.prometheus(context.settings)
        if "prometheus" in names and program:
            metrics = context.settings.port(catalog.TEMPORAL_METRICS_PORT.setting)
            text = services.prometheus_yaml(builder.endpoints, metrics, builder.programs.store.engine)
            stack.write_atomic(builder.prometheus_config, text)
            specs.append(builder.prometheus(program))
        return specs

    def _prepare(self, builder: Builder, names: Sequence[str]) -> None:
        """Directories and private files that the services expect."""
        try:
            private.directory(builder.home / "data", private.way())
            for directory in (d for name in names for d in builder.directories(name)):
                private.directory(directory)
            if builder.endpoints.redis_password:
                password = builder.endpoints.redis_password.replace("\\", "\\\\").replace('"', '\\"')
                stack.write_atomic(builder.redis_config, f'requirepass "{password}"\n', mode=0o600)
            object_store.record(builder.home, builder.programs.store.engine)
        except OSError as error:
            raise stack.unwritable(builder.home, error) from error

    def wait(self, context: Context, names: Sequence[str], timeout: float | None) -> None:
        """Block until the named services (all wanted ones if none is named) are ready."""
        home = self.home(context)
        Wait(context.console, lambda: self._items(home, names), timeout).until_ready()

    def _items(self, home: Path, names: Sequence[str]) -> list[Item]:
        supervise.start_supervisor(home)
        # What a supervisor that was killed wrote last is no news.
        states = supervise.states(home) if supervise.supervisor_identity(home) else {}
        specs = [s for s in supervise.desired(home) if not names or s.name in names]
        return [native_status.item(spec, states.get(spec.name)) for spec in specs]

    def stop(self, context: Context) -> bool:
        """Stop all services in reverse order, then the supervisor."""
        return supervise.stop(self._mended(context))

    def restart(self, context: Context, names: Sequence[str]) -> None:
        """Restart and wait."""
        supervise.restart(self.home(context), names)
        self.wait(context, (), None)

    def status(self, context: Context) -> list[ServiceStatus]:
        """The wanted services with what their processes say."""
        engines = self.engines(context)
        found = []
        for spec, state, seen in self._seen(context):
            moved = self._moved(context, spec) if seen.state == "ready" else ""
            used, engine = native_status.memory(state), engines.get(spec.name, "")
            found.append(replace(seen, detail=moved or seen.detail, memory=used, engine=engine))
        return found

    def processes(self, context: Context) -> set[tuple[str, int | None]]:
        """The ready services with their pids."""
        return {(seen.name, seen.pid) for _, _, seen in self._seen(context) if seen.state == "ready"}

    def _seen(self, context: Context) -> list[tuple[supervise.Spec, supervise.State | None, ServiceStatus]]:
        """Each wanted service: what is asked for, what the supervisor noted, and what that means now."""
        home = self.home(context)
        states, supervised = supervise.known(home), supervise.running(home)
        known = [(spec, states.get(spec.name)) for spec in supervise.desired(home)]
        return [(spec, state, native_status.service(spec, state, supervised)) for spec, state in known]

    def _moved(self, context: Context, spec: supervise.Spec) -> str:
        """What to say of a service that was started with other settings than the present ones."""
        question = self.builder(context).question(spec.name)
        if question == spec.probe:
            return ""
        port = f" (port {spec.probe['port']})" if spec.probe.get("port") != question.get("port") else ""
        return f"was started with other settings{port}; `invoke up` applies the present ones"

    def logs(self, context: Context, names: Sequence[str], tail: int, follow: bool) -> Iterator[LogLine]:
        """Lines of the services' log files."""
        return native_logs.lines(self.home(context) / "logs", names, tail, follow)

    def removals(self, context: Context, names: Sequence[str]) -> list[Removal]:
        """The data directories, with their sizes."""
        builder = self.builder(context)
        known = [s.name for s in catalog.offered(NAME)]
        found = [(name, path) for name in known if not names or name in names for path in builder.data_of(name)]
        return [Removal(name, path, postgres.sizes([path])) for name, path in found if path.exists()]

    def remove(self, context: Context, removals: Sequence[Removal]) -> None:
        """Remove data directories; what depends on nothing but them (caches) goes too."""
        for removal in removals:
            data = trash.directory(removal)
            # Renamed first: a removal that is cut short leaves no half directory under the real name.
            doomed = data.with_name(f".{data.name}-removed-{time.time_ns()}")
            os.rename(data, doomed)
            shutil.rmtree(doomed, ignore_errors=True)
            self._clear(context, removal)

    def _clear(self, context: Context, removal: Removal) -> None:
        """Remove what was of use only beside data that has gone."""
        home, data = self.home(context), trash.directory(removal)
        for litter in (*_unfinished(data), home / "cache" / removal.service):
            shutil.rmtree(litter, ignore_errors=True)
        if removal.service == "postgres":
            (home / "postgres-data").unlink(missing_ok=True)
        if home not in data.parents:
            _remove_if_empty(data.parent)
        if not any((home / "data" / s.name).exists() for s in catalog.SERVICES if s.login == catalog.STORE_LOGIN):
            (home / "store-engine").unlink(missing_ok=True)
        self._builders.clear()

    def stash(self, context: Context, removal: Removal, into: Path) -> None:
        """Rename the directory into the trash; with a store goes the name of the engine that wrote it."""
        trash.stash(self.home(context), removal, into)
        self._clear(context, removal)

    def unstash(self, context: Context, removal: Removal, kept: Path) -> None:
        """Rename it back."""
        trash.unstash(self.home(context), removal, kept)
        self._builders.clear()


def _unfinished(data: Path) -> list[Path]:
    """What an initdb, or a removal, that was killed has left beside a data directory."""
    return [p for kind in ("new", "removed") for p in data.parent.glob(f".{data.name}-{kind}-*")]


def _remove_if_empty(directory: Path) -> None:
    with contextlib.suppress(OSError):
        directory.rmdir()
